"""Real speech to check and calibrate with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from streamasr.sources import open_file
from streamasr.sources.samples import as_mono_float


def read_speech(path: Path, rate: int) -> NDArray[np.float32]:
    """(n,) samples at `rate` Hz of any recording that `streamasr transcribe` takes."""
    with open_file(path) as source:
        audio = np.concatenate([as_mono_float(chunk) for chunk in source.chunks()])
        own = source.rate
    return audio if own == rate else np.asarray(soxr.resample(audio, own, rate), dtype=np.float32)
