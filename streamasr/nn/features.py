"""Log-mel features as a streaming stage: a windowed DFT by convolution, so that it exports with the network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamasr.bundle import FeatureConfig, StateSpec
from streamasr.nn.stage import Stage, State


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    log_part = 15.0 + 27.0 * np.log(np.maximum(hz, 1e-9) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of hz_to_mel."""
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp(np.log(6.4) * (mel - 15.0) / 27.0))


def mel_filters(config: FeatureConfig) -> NDArray[np.float64]:
    """(mels, n_fft // 2 + 1) triangles of equal area, as librosa.filters.mel makes them by default."""
    top = config.sample_rate / 2.0
    bins = np.linspace(0.0, top, config.n_fft // 2 + 1)
    edges = mel_to_hz(np.linspace(0.0, float(hz_to_mel(np.array(top))), config.mels + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.maximum(triangles, 0.0) * 2.0 / (high - low)


def hann(config: FeatureConfig) -> NDArray[np.float64]:
    """(window,): the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(config.window) / config.window)


def dft_kernel(config: FeatureConfig) -> NDArray[np.float64]:
    """(2 (n_fft // 2 + 1), window): rows of cosines, then of sines, under a periodic Hann window."""
    angle = 2.0 * np.pi * np.outer(np.arange(config.n_fft // 2 + 1), np.arange(config.window)) / config.n_fft
    return np.concatenate([np.cos(angle), np.sin(angle)]) * hann(config)


class LogMel(Stage):
    """Samples (N, T) in [-1, 1] -> ln(mel power + floor), (N, T / hop, mels).

    Frame i ends with sample hop (i + 1); samples before the first are taken as zeros.
    Equal to librosa.feature.melspectrogram(n_fft, hop, win_length=window, center=False) on
    audio shifted accordingly (tests/test_features.py).
    """

    kernel: Tensor
    filters: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.stride = config.hop
        # Constants, made from the configuration: they stay out of checkpoints.
        self.register_buffer("kernel", torch.tensor(dft_kernel(config), dtype=torch.float32)[:, None], persistent=False)
        self.register_buffer("filters", torch.tensor(mel_filters(config).T, dtype=torch.float32), persistent=False)

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("past", ("N", self.config.window - self.config.hop))]

    def zero_state(self, batch: int) -> State:
        return {"past": self.kernel.new_zeros(batch, self.config.window - self.config.hop)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        audio = torch.cat([state["past"], x], dim=1)  # (N, window - hop + T)
        spectrum = nn.functional.conv1d(audio[:, None], self.kernel, stride=self.config.hop)
        real, imaginary = spectrum.transpose(1, 2).chunk(2, dim=2)  # (N, frames, n_fft // 2 + 1) each
        power = real * real + imaginary * imaginary
        past = audio[:, -(self.config.window - self.config.hop) :]
        return torch.log(power @ self.filters + self.config.floor), {"past": past}
