"""Samples as people have them, checked and made into what the model takes. Everything is done sample by sample,
so that cutting the audio elsewhere changes nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamasr.errors import AudioError

MIN_RATE_HZ, MAX_RATE_HZ = 4000, 192000
MAX_CHANNELS = 256  # more are frames: an array that lies on its side
LOUDEST = 100.0  # float recordings may pass 1 a little; beyond this they are integers in disguise

_SCALES = {"i2": 2.0**15, "i4": 2.0**31, "u1": 2.0**7}


def as_mono_float(samples: ArrayLike, name: str = "samples") -> NDArray[np.float32]:
    """A new float32 array (frames,) in [-1, 1] from samples (frames,) or (frames, channels), channels averaged.

    Takes float32 and float64 in [-1, 1], int16 (/ 2^15), int32 (/ 2^31) and uint8 (128 is silence).
    `name` stands in front of what AudioError says.
    """
    array = np.asarray(samples)
    if array.ndim not in (1, 2):
        raise AudioError(f"{name}: array of shape {array.shape}; expected (frames,) or (frames, channels)")
    if array.ndim == 2 and not 1 <= array.shape[1] <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: {array.shape[1]} channels; expected 1 to {MAX_CHANNELS} in (frames, channels); transpose it"
        )
    if array.size == 0:
        return np.zeros(array.shape[0] if array.ndim == 1 else 0, np.float32)
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"  # whatever the byte order
    if kind in _SCALES:
        wide = array.astype(np.float64) - (128.0 if kind == "u1" else 0.0)
        return _mix(wide / _SCALES[kind])
    if kind not in ("f4", "f8"):
        raise AudioError(
            f"{name}: samples of type {array.dtype}; expected float32 or float64 in [-1, 1], int16, int32 or uint8"
        )
    mono = _mix(array)
    bad = first_bad(mono)
    if bad is not None:
        raise AudioError(f"{name}: sample {bad} {describe_bad(mono[bad])}")
    return mono


def first_bad(mono: NDArray[np.float32]) -> int | None:
    """Index of the first sample that is NaN, infinite or far outside [-1, 1]."""
    good = np.abs(mono) <= LOUDEST  # false for NaN
    return None if good.all() else int(np.argmin(good))


def describe_bad(value: np.float32) -> str:
    """What is wrong with such a sample, and what to do."""
    if not np.isfinite(value):
        return f"is {value}; expected finite numbers; repair or re-record it"
    return f"is {value:.0f}; expected numbers in [-1, 1]; divide by the largest value of the integers it came from"


def check_rate(rate: float, name: str) -> int:
    """The rate as an integer, if it is one that can be resampled well."""
    if not isinstance(rate, int | float | np.integer | np.floating):
        raise AudioError(f"{name}: rate {rate!r}; expected a number of Hz")
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ or rate != int(rate):
        raise AudioError(f"{name}: {rate:g} Hz; expected {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; resample it")
    return int(rate)


def _mix(array: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mean over channels, added up in their order: the same result in any memory layout."""
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes Inf, which is refused
        if array.ndim == 1:
            return array.astype(np.float32)
        total = array[:, 0].astype(np.float64)
        for channel in range(1, array.shape[1]):
            total += array[:, channel]
        mono: NDArray[np.float32] = (total / array.shape[1]).astype(np.float32)
        return mono
