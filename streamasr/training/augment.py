"""Changes to training audio: samples in, samples out, every draw from the generator it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamasr.nn.features import hz_to_mel, mel_to_hz

Samples = NDArray[np.float32]

WARP_KNEE = 4800.0  # Hz: formants lie below it
COLOUR_KNOTS = 6


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges to draw from, uniformly. Zero widths and probabilities switch a change off."""

    speed: float = 0.1  # playback rate 1 - speed .. 1 + speed
    gain_db: tuple[float, float] = (-18.0, 6.0)
    noise_probability: float = 0.3
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    room_probability: float = 0.0  # that speech sounds in a room with an echo, where there are responses of rooms
    edge_s: float = 0.4  # up to this much quiet before, between and after utterances
    warp: float = 0.0  # frequencies times 1 - warp .. 1 + warp, as longer and shorter throats have them
    colour_db: float = 0.0  # up to so much more or less of each stretch of the spectrum, as microphones differ
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


def disguise(features: Tensor, top: float, config: AugmentConfig, rng: torch.Generator) -> Tensor:
    """(N, T, mels) log-mel features as another speaker and another microphone would give them, one draw a row.

    Vocal tract length perturbation (Jaitly and Hinton 2013), between mel bands; then a broken line of gains
    along the spectrum. top: frequency at which the bands end, in Hz.
    """
    mels = features.shape[2]
    if config.warp:
        drawn = 1.0 + config.warp * (2.0 * torch.rand(len(features), 1, generator=rng) - 1.0)
        position = torch.from_numpy(_warped(mels, top, drawn.double().numpy())).to(features.dtype)  # in bands
        below = position.floor().clamp(0, mels - 2)
        part = (position - below).clamp(0.0, 1.0)[:, None]
        band = below.long()[:, None].expand(-1, features.shape[1], -1)
        features = torch.lerp(features.gather(2, band), features.gather(2, band + 1), part)
    if config.colour_db:
        gains = config.colour_db * (2.0 * torch.rand(len(features), 1, COLOUR_KNOTS, generator=rng) - 1.0)
        curve = torch.nn.functional.interpolate(gains, mels, mode="linear", align_corners=True)
        features = features + curve * (math.log(10.0) / 10.0)
    return features


def _warped(mels: int, top: float, factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, mels): where in the spectrum, in bands, each band finds its energy when frequencies are divided by `factor`.

    Above WARP_KNEE the scale bends so that `top` stays where it is.
    """
    step = float(hz_to_mel(np.array(top))) / (mels + 1)
    centre = mel_to_hz(step * np.arange(1, mels + 1, dtype=np.float64))[None]
    knee = WARP_KNEE * np.minimum(factor, 1.0)
    bent = top - (top - knee) / (top - knee / factor) * (top - centre)
    return hz_to_mel(np.where(centre <= knee / factor, centre * factor, bent)) / step - 1.0


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
