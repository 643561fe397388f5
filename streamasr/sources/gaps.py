"""Finds audio that a sound card lost, from the times its blocks came with.

The overflow flag is not enough: a stall of 658 ms was seen to pass without it. Neither is one clock: through
PulseAudio the time of the converter leapt by 190 ms while the sound was whole, because a buffer became shorter;
and the time of the call back leaps whenever the process was late, until a burst of blocks makes up for it. So audio
counts as lost only when BOTH clocks are behind the samples, and stay so for several blocks. Those blocks
are held back meanwhile, so that the loss is told where it happened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIRM_BLOCKS = 5
TOLERANCE_BLOCKS = 2
DRIFT = 1e-3  # a sound card's clock may run this much slower than the computer's


@dataclass(frozen=True)
class Lost:
    """Audio that was lost here; samples at the microphone's rate."""

    samples: int


@dataclass(frozen=True)
class Block:
    """What one callback brought: samples (frames,) or (frames, channels)."""

    samples: NDArray[np.generic]
    adc_s: float  # when its first sample was converted; 0 where the driver does not say
    now_s: float  # when the callback ran; 0 where the driver does not say
    overflow: bool  # PortAudio's flag: something before this block was lost
    dropped: int  # samples before this block that found our queue full


class GapFinder:
    """Blocks in, the same blocks out in the same order, with Lost where audio is missing between them."""

    def __init__(self, rate: int, block: int):
        self._rate = rate
        self._tolerance_s = TOLERANCE_BLOCKS * block / rate
        self._position = 0  # samples that came, and those known to be lost
        self._base_s: list[float] = [math.inf, math.inf]  # each clock minus the samples' time, when nothing is late
        self._held: list[Block] = []
        self._late_s = math.inf  # the least of the held blocks
        self._flagged = False

    def push(self, block: Block) -> list[Block | Lost]:
        """What can be passed on now that this block has come."""
        out: list[Block | Lost] = []
        if block.dropped:
            out += self.finish()
            out.append(Lost(block.dropped))
            self._position += block.dropped
        late_s = self._lateness(block)
        self._position += len(block.samples)
        self._flagged |= block.overflow
        self._held.append(block)
        self._late_s = min(self._late_s, late_s)
        if len(self._held) >= CONFIRM_BLOCKS or (late_s <= self._tolerance_s and not self._flagged):
            out += self.finish()
        return out

    def finish(self) -> list[Block | Lost]:
        """What is held back."""
        confirmed = len(self._held) >= CONFIRM_BLOCKS and self._late_s > self._tolerance_s
        out: list[Block | Lost] = []
        if self._held and (confirmed or self._flagged):
            samples = max(1, round(self._late_s * self._rate))  # the flag does not say how many
            self._position += samples
            out.append(Lost(samples))
        out += self._held
        self._held, self._late_s, self._flagged = [], math.inf, False
        return out

    def _lateness(self, block: Block) -> float:
        """Seconds by which the clock that is less behind is behind the samples."""
        late = []
        for i, clock_s in enumerate((block.adc_s, block.now_s)):
            if clock_s:
                offset_s = clock_s - self._position / self._rate
                drifted_s = self._base_s[i] + DRIFT * len(block.samples) / self._rate
                self._base_s[i] = min(drifted_s, offset_s)
                late.append(offset_s - self._base_s[i])
        return min(late, default=0.0)
