"""Changes to training audio: samples in, samples out, every draw from the generator it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges to draw from, uniformly. Zero widths and probabilities switch a change off."""

    speed: float = 0.1  # playback rate 1 - speed .. 1 + speed
    gain_db: tuple[float, float] = (-18.0, 6.0)
    noise_probability: float = 0.3
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    room_probability: float = 0.0  # that speech sounds in a room with an echo, where there are responses of rooms
    edge_s: float = 0.4  # up to this much quiet before, between and after utterances
    frequency_masks: int = 2  # SpecAugment (Park et al. 2019)
    frequency_width: int = 12  # mel bands
    time_masks: int = 2  # in every 10 s
    time_width: int = 12  # feature frames


def change_speed(audio: Samples, config: AugmentConfig, rng: np.random.Generator) -> Samples:
    """Speed perturbation (Ko et al. 2015): pitch and tempo together, by resampling."""
    if not config.speed:
        return audio
    rate = rng.uniform(1.0 - config.speed, 1.0 + config.speed)
    changed: Samples = soxr.resample(audio, 16000.0 * rate, 16000.0)  # quality LQ dulls what lies above 6.5 kHz
    return changed


def change_gain(audio: Samples, config: AugmentConfig, rng: np.random.Generator) -> Samples:
    """A new level, clipped where it leaves [-1, 1] as a microphone would."""
    gain = np.float32(10.0 ** (rng.uniform(*config.gain_db) / 20.0))
    changed: Samples = np.clip(audio * gain, -1.0, 1.0)
    return changed


def add_noise(audio: Samples, noise: Samples, config: AugmentConfig, rng: np.random.Generator) -> Samples:
    """Noise, looped to the audio's length from a drawn start, at a drawn signal-to-noise ratio."""
    start = int(rng.integers(len(noise)))
    looped = np.resize(np.roll(noise, -start), len(audio))
    noise_power = float(np.mean(looped**2))
    if noise_power == 0.0:
        return audio
    snr = 10.0 ** (rng.uniform(*config.noise_snr_db) / 10.0)
    return audio + looped * np.float32(np.sqrt(float(np.mean(audio**2)) / (noise_power * snr)))


def reverberate(audio: Samples, response: Samples) -> Samples:
    """As it sounds in a room with this impulse response, whose first sample is the direct sound; as loud as before."""
    samples = len(audio) + len(response) - 1
    size = math.ceil(samples / 4096) * 4096  # quick to transform, as a prime would not be
    spectrum = np.fft.rfft(audio, size) * np.fft.rfft(response, size)
    echoed = np.fft.irfft(spectrum, size)[: len(audio)].astype(np.float32)
    power = float(np.mean(echoed**2))
    return echoed * np.float32(np.sqrt(float(np.mean(audio**2)) / power)) if power else echoed


def quiet(config: AugmentConfig, rng: np.random.Generator) -> Samples:
    """A short stretch of faint hiss, for the edges of utterances."""
    samples = int(rng.uniform(0.0, config.edge_s) * 16000)
    return rng.standard_normal(samples, dtype=np.float32) * np.float32(10.0 ** rng.uniform(-5.0, -3.0))


def mask(features: Tensor, lengths: Tensor, config: AugmentConfig, rng: torch.Generator) -> Tensor:
    """SpecAugment on (N, T, mels) normalised features: bands and stretches set to the mean, zero."""
    batch, _, mels = features.shape
    keep = torch.ones_like(features)
    for i in range(batch):
        length = int(lengths[i])
        for _ in range(config.frequency_masks):
            start, width = _stretch(mels, config.frequency_width, rng)
            keep[i, :, start : start + width] = 0.0
        for _ in range(round(config.time_masks * length / 1000)):
            start, width = _stretch(length, config.time_width, rng)
            keep[i, start : start + width] = 0.0
    return features * keep


def _stretch(size: int, width: int, rng: torch.Generator) -> tuple[int, int]:
    drawn = int(torch.randint(width + 1, (), generator=rng))
    return int(torch.randint(max(size - drawn, 0) + 1, (), generator=rng)), drawn
