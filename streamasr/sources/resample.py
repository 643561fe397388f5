"""From the source's sample rate to the model's, in a stream that can be continued elsewhere.

soxr's inner state cannot be copied. But its filter is finite: a stream started a little earlier says
the same from now on. So the last half second of input is kept, and `restore` plays it to a new stream.
The restart lies at a multiple of rate / gcd(rate, model_rate) samples, where an input and an output
sample fall on the same instant, or the restarted outputs would lie between the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from streamasr.errors import StreamError
from streamasr.sources.samples import check_rate

HISTORY_S = 0.5  # soxr's HQ filter with its blocks stays under 0.1 s from 4 to 192 kHz

_SNAPSHOT_KEYS = {"rate", "model_rate", "position", "delivered", "history"}


class Resampler:
    """Mono float32 samples at `rate` Hz in, at `model_rate` Hz out; the same for any cutting into pushes."""

    def __init__(self, rate: int, model_rate: int):
        self.rate = check_rate(rate, "samples")
        self.model_rate = check_rate(model_rate, "model")
        self._delivered = 0  # output samples handed out
        self._skip = 0  # output samples still to come that were delivered before a restore
        self._ready = np.zeros(0, np.float32)  # output samples that a restore has made too early
        self._finished = False
        self._history = _History(self.rate, self.rate // math.gcd(self.rate, self.model_rate))
        self._stream: Any = None
        if self.rate != self.model_rate:
            self._stream = soxr.ResampleStream(self.rate, self.model_rate, 1, dtype="float32")

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The outputs that these inputs complete; both (n,). Outputs lag by up to 0.1 s."""
        self._expect_open()
        if self._stream is None:
            return samples
        self._history.push(samples)
        return self._deliver(self._run(samples))

    def finish(self) -> NDArray[np.float32]:
        """The last outputs, so that all together last as long as the inputs."""
        self._expect_open()
        self._finished = True
        if self._stream is None:
            return np.zeros(0, np.float32)
        return self._deliver(self._run(np.zeros(0, np.float32), last=True))

    def snapshot(self) -> dict[str, Any]:
        """Plain data, from which `restore` continues: integers and the short input history (n,) float32."""
        self._expect_open()
        return {
            "rate": self.rate,
            "model_rate": self.model_rate,
            "position": self._history.position,
            "delivered": self._delivered,
            "history": self._history.tail(),
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> Resampler:
        """Go on where the snapshot was taken: the outputs agree within 1e-6, their number exactly."""
        if set(snapshot) != _SNAPSHOT_KEYS:
            raise StreamError(f"resampler snapshot has {sorted(snapshot)}; expected {sorted(_SNAPSHOT_KEYS)}")
        self = cls(int(snapshot["rate"]), int(snapshot["model_rate"]))
        if self._stream is None:
            return self
        history = np.asarray(snapshot["history"], np.float32)
        start = int(snapshot["position"]) - len(history)
        self._delivered = int(snapshot["delivered"])
        before = start * self.model_rate // self.rate  # outputs before the restart
        if start < 0 or start % self._history.grain or self._delivered < before:
            raise StreamError(f"resampler snapshot does not fit {self.rate} Hz; restore what snapshot() returned")
        self._skip = self._delivered - before
        self._history.restart(start, history)
        self._ready = self._drop_delivered(self._run(history))
        return self

    def _expect_open(self) -> None:
        if self._finished:
            raise StreamError("the resampler has been finished; start a new one for new audio")

    def _run(self, samples: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        # soxr takes neither strided nor read-only arrays for granted
        outputs: NDArray[np.float32] = self._stream.resample_chunk(np.require(samples, np.float32, ["C", "W"]), last)
        return outputs

    def _drop_delivered(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        dropped = min(self._skip, len(outputs))
        self._skip -= dropped
        return outputs[dropped:]

    def _deliver(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs = self._drop_delivered(outputs)
        if len(self._ready):
            outputs = np.concatenate([self._ready, outputs])
            self._ready = np.zeros(0, np.float32)
        self._delivered += len(outputs)
        return outputs


class _History:
    """The last samples of a stream, at least HISTORY_S of them, beginning at a multiple of `grain`."""

    def __init__(self, rate: int, grain: int):
        self.grain = grain
        self.position = 0  # samples pushed since the stream's start
        self._needed = math.ceil(HISTORY_S * rate)
        self._kept = np.zeros(0, np.float32)  # twice what is needed, made when first used; [:_used] is filled
        self._used = 0

    def push(self, samples: NDArray[np.float32]) -> None:
        self.position += len(samples)
        longest = self._needed + self.grain
        samples = samples[-longest:]
        if self._used + len(samples) > len(self._kept):
            recent = self._kept[max(0, self._used - longest) : self._used]
            self._kept = np.empty(2 * longest, np.float32)
            self._kept[: len(recent)] = recent
            self._used = len(recent)
        self._kept[self._used : self._used + len(samples)] = samples
        self._used += len(samples)

    def restart(self, start: int, samples: NDArray[np.float32]) -> None:
        self.push(samples)
        self.position = start + len(samples)

    def tail(self) -> NDArray[np.float32]:
        start = max(0, self.position - self._needed) // self.grain * self.grain
        length = self.position - start
        return self._kept[self._used - length : self._used].copy()
