"""What a second pass needs: the samples of the utterance that is being spoken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Reread:
    """The last samples that the first pass has heard, in the pieces they came in. Never changed."""

    pieces: tuple[Floats, ...] = ()
    end: int = 0  # samples from the stream's beginning to the last one here

    @property
    def start(self) -> int:
        """Samples from the stream's beginning to the first one here."""
        return self.end - sum(map(len, self.pieces))

    @property
    def samples(self) -> Floats:
        """All of them in one piece."""
        return np.concatenate(self.pieces) if self.pieces else np.zeros(0, dtype=np.float32)

    def add(self, samples: Floats) -> Reread:
        """With what came next."""
        return Reread((*self.pieces, samples.copy()), self.end + len(samples))

    def keep(self, samples: float, stride: int) -> Reread:
        """Without what lies more than `samples` back; what stays begins with a frame."""
        return self.after(max(self.end - int(samples), 0) // stride * stride)

    def until(self, end: int) -> Reread:
        """What came before a sample."""
        return Reread((self.samples[: max(end - self.start, 0)],), min(end, self.end))

    def after(self, start: int) -> Reread:
        """What came from a sample on."""
        if start <= self.start:
            return self
        left = self.samples[start - self.start :].copy()
        return Reread((left,) if len(left) else (), self.end)


NOTHING = Reread()
