"""Layers that read forwards and backwards: over whole utterances, or over blocks with a bounded wait."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamasr.bundle import StateSpec
from streamasr.nn.cells import make_cell
from streamasr.nn.stage import Stage, State


class BidirectionalLayer(nn.Module):
    """x + forward(norm(x)) + backward(norm(x)), summed as in Deep Speech 2 (Amodei et al. 2016)."""

    def __init__(self, cell: str, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.forwards = make_cell(cell, width)
        self.backwards = make_cell(cell, width)
        self.dropout = nn.Dropout(dropout)


class Bidirectional(Stage):
    """A stack of bidirectional layers with latency control (Zhang et al. 2016; Xue and Yan 2017).

    Every block is read together with `ahead` frames after it, by all layers alike, so the wait is block + ahead and
    not that times the depth. The forward state is carried from the end of one block to the next; what it made of the
    frames ahead is thrown away, since the next block computes them again. The backward pass begins afresh at the
    end of what lies ahead. block = 0: the whole utterance in one step, nothing ahead.
    """

    def __init__(self, cell: str, width: int, layers: int, dropout: float, block: int, ahead: int) -> None:
        super().__init__()
        self.block = block
        self.ahead = self.delay = ahead
        self.width = width
        self.layers = nn.ModuleList(BidirectionalLayer(cell, width, dropout) for _ in range(layers))

    def state_specs(self) -> list[StateSpec]:
        carried = [
            StateSpec(f"{number}.{spec.name}", spec.shape)
            for number, layer in enumerate(self.layers, 1)
            for spec in layer.forwards.state_specs()  # type: ignore[union-attr, operator]
        ]
        past = [StateSpec("past", ("N", self.ahead, self.width))] if self.ahead else []
        return [*carried, *past] if self.block else []

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(N, T, width), T a multiple of block -> as many frames, `ahead` later."""
        if not self.block:
            return self._whole(x), {}
        count = x.shape[1] // self.block
        new: State = {}
        if self.ahead:
            x = torch.cat([state["past"], x], dim=1)
            new["past"] = x[:, count * self.block :]
        # (N * count, block, width) and (N * count, ahead, width): each block, and what lies ahead of it
        blocks = self._rows([x[:, i * self.block :][:, : self.block] for i in range(count)])
        aheads = self._rows([x[:, (i + 1) * self.block :][:, : self.ahead] for i in range(count)])
        for number, layer in enumerate(self.layers, 1):
            assert isinstance(layer, BidirectionalLayer)
            blocks, aheads, end = self._layer(layer, blocks, aheads, _of(state, number), count)
            new.update({f"{number}.{name}": value for name, value in end.items()})
        return blocks.reshape(-1, count * self.block, self.width), new

    def _layer(
        self, layer: BidirectionalLayer, blocks: Tensor, aheads: Tensor, state: State, count: int
    ) -> tuple[Tensor, Tensor, State]:
        own, far = layer.norm(blocks), layer.norm(aheads)
        outputs, ends = [], []
        for block in own.view(-1, count, self.block, self.width).unbind(1):
            y, state = layer.forwards.step(block, state)
            outputs.append(y)
            ends.append(state)
        backward = _backwards(layer, torch.cat([own, far], dim=1) if self.ahead else own)
        blocks = blocks + layer.dropout(self._rows(outputs) + backward[:, : self.block])
        if self.ahead:
            forward, _ = layer.forwards.step(far, {name: self._rows([end[name] for end in ends]) for name in state})
            aheads = aheads + layer.dropout(forward + backward[:, self.block :])
        return blocks, aheads, state

    @staticmethod
    def _rows(blocks: list[Tensor]) -> Tensor:
        """Blocks of N streams, each (N, ...), as rows stream by stream: (N * count, ...)."""
        return torch.stack(blocks, dim=1).flatten(0, 1)

    def _whole(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            assert isinstance(layer, BidirectionalLayer)
            normed = layer.norm(x)
            forward, _ = layer.forwards.step(normed, layer.forwards.zero_state(x.shape[0]))
            x = x + layer.dropout(forward + _backwards(layer, normed))
        return x


def _backwards(layer: BidirectionalLayer, x: Tensor) -> Tensor:
    """Read from the last frame to the first, from nothing."""
    y, _ = layer.backwards.step(x.flip(1), layer.backwards.zero_state(x.shape[0]))
    return y.flip(1)


def _of(state: State, number: int) -> State:
    prefix = f"{number}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
