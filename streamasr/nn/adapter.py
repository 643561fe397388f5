"""A layer for one speaker, laid over a network that stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamasr.bundle import StateSpec
from streamasr.nn.cells import MinGru
from streamasr.nn.stage import Stage, State

SLOWEST, FASTEST = -4.0, 2.0  # biases of the update gates at the start: units that hold 55 frames to 1 frame


class Adapter(Stage):
    """x + cell(x / size(x)), the cell diagonal (MinGru): nothing at first, as all its candidates are zero.

    Its units look back over times from one frame to seconds, so that it can follow a sound as well as a voice. It
    stands below the heads, which look at single frames: so the error of a frame needs no other frame, and the cell
    learns without back-propagation through time (streamasr.nn.rtrl).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = MinGru(width)
        with torch.no_grad():
            update, candidate = self.cell.linear.bias.chunk(2)
            update.copy_(torch.linspace(SLOWEST, FASTEST, width)[torch.randperm(width)])
            candidate.zero_()
            nn.init.zeros_(self.cell.linear.weight[width:])

    def state_specs(self) -> list[StateSpec]:
        return self.cell.state_specs()

    def scaled(self, x: Tensor) -> Tensor:
        """What the cell hears: every frame at the same size (Zhang and Sennrich 2019, RMSNorm), nothing to learn."""
        return x * torch.rsqrt(x.square().mean(dim=2, keepdim=True) + 1e-5)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.cell.step(self.scaled(x), state)
        return x + y, state
