"""The frozen network, its adapter, and the heads above: heard piece by piece, whatever the length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel, Heads
from streamasr.nn.adapter import Adapter
from streamasr.nn.stage import Chain, State

PIECE_MS = 1000  # of audio: what is computed at once

Pieces = Callable[[], Iterator[Tensor]]  # the frozen network's last layer, (1, T, width) at a time, from the beginning


class Adaptive:
    """A model with an adapter, the only part of it that learns. An adapter that it has learns on."""

    def __init__(self, model: AcousticModel) -> None:
        if not model.block:
            raise StreamasrError("the model hears a recording only as a whole; adapt one that streams")
        self.model = model if model.config.adapter else _with_adapter(model)
        self.model.eval().requires_grad_(False)
        stages = self.model.body.stages
        adapter, heads = stages["adapter"], stages["heads"]
        assert isinstance(adapter, Adapter)
        assert isinstance(heads, Heads)
        self.adapter, self.heads = adapter.requires_grad_(True), heads
        below = [(name, stage) for name, stage in stages.items() if name not in ("adapter", "heads")]
        self.below = Chain([("front", self.model.front), *below])  # type: ignore[list-item]
        unit = self.model.block
        self.piece = max(PIECE_MS * self.model.config.features.sample_rate // 1000 // unit, 1) * unit

    def frames(self, samples: int) -> int:
        """Frames of a recording."""
        return self.model.frames(samples)

    def hear(self, pcm: NDArray[np.int16]) -> Pieces:
        """The frozen part, run anew each time it is asked; of the recording, only the piece at hand is in use."""

        def pieces() -> Iterator[Tensor]:
            state, drop = self.below.zero_state(1), self.model.delay
            left = self.frames(len(pcm))
            start = 0
            while left > 0:
                audio = np.zeros((1, self.piece), dtype=np.float32)
                part = pcm[start : start + self.piece]
                audio[0, : len(part)] = part.astype(np.float32) / np.float32(32768.0)
                with torch.no_grad():
                    x, state = self.below.step(torch.from_numpy(audio), state)
                x, drop, start = x[:, drop:][:, :left], max(drop - x.shape[1], 0), start + self.piece
                left -= x.shape[1]
                if x.shape[1]:
                    yield x

        return pieces

    def outputs(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Frames of the frozen part -> log-probabilities of all heads, the adapter's state."""
        y, state = self.adapter.step(x, state)
        return self.heads.step(y, {})[0], state

    @torch.no_grad()
    def log_probs(self, pieces: Pieces) -> Tensor:
        """(T, all heads' tokens) of a whole recording: all that a first pass keeps."""
        state, rows = self.adapter.zero_state(1), []
        for x in pieces():
            y, state = self.outputs(x, state)
            rows.append(y[0])
        return torch.cat(rows)


def kept(pieces: Pieces) -> Pieces:
    """The same, computed once: for 320 units at 25 frames a second as many bytes as the samples in 16 bits."""
    rows = list(pieces())
    return lambda: iter(rows)


def _with_adapter(model: AcousticModel) -> AcousticModel:
    made = AcousticModel(replace(model.config, adapter=True))
    missing, unexpected = made.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert all("adapter" in name for name in missing)
    return made
