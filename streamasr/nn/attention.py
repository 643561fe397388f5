"""Self-attention over a window of the past, beside recurrence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from streamasr.bundle import StateSpec
from streamasr.nn.stage import Stage, State

HEADS = 4


class Attention(Stage):
    """x + attention(norm(x)) over each frame and `past` frames before it (Vaswani et al. 2017, windowed).

    State: keys and values of the last `past` frames, and beside each a one; zeros are frames before the stream, which
    nothing looks at. How far back a frame lies counts through a learned number a head (Raffel et al. 2020).
    """

    def __init__(self, width: int, past: int, dropout: float) -> None:
        super().__init__()
        if width % HEADS:
            raise ValueError(f"attention needs a width that {HEADS} heads can share, got {width}")
        self.past = past
        self.width = width
        self.norm = nn.LayerNorm(width)
        self.asks = nn.Linear(width, width)
        self.answers = nn.Linear(width, 2 * width)  # keys, values
        self.out = nn.Linear(width, width)
        self.distance = nn.Parameter(torch.zeros(HEADS, past + 1))
        self.dropout = nn.Dropout(dropout)

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("past", ("N", self.past, 2 * self.width + 1))]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(N, T, width), state -> the same shape."""
        normed, shares = self.norm(x), (HEADS, self.width // HEADS)
        answers = torch.cat([self.answers(normed), torch.ones_like(normed[:, :, :1])], dim=2)
        answers = torch.cat([state["past"], answers], dim=1)  # (N, past + T, 2 width + 1)
        frames = x.shape[1]  # (N, T, 2 width + 1, past + 1): what each frame looks at
        seen = torch.stack([answers[:, i : i + frames] for i in range(self.past + 1)], dim=3)
        split = (-1, x.shape[1], *shares)
        asked = self.asks(normed).view(*split, 1)  # (N, T, heads, width / heads, 1)
        keys, values = (part.reshape(*split, self.past + 1) for part in seen[:, :, :-1].chunk(2, dim=2))
        unreal = 1e4 * (1.0 - seen[:, :, -1:])  # (N, T, 1, past + 1)
        scores = (asked * keys).sum(3) / math.sqrt(shares[1]) + self.distance - unreal
        heard = (values * scores.softmax(3)[:, :, :, None]).sum(4).flatten(2)
        return x + self.dropout(self.out(heard)), {"past": answers[:, -self.past :]}
