"""A recurrent language model in torch: which word comes after those before it, in few parameters.

Frequent words are tokens of their own. The rare ones share tokens, a share of each token's probability being
fixed for each word; so P(word | before) = P(token | before) P(word | token).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from streamasr.bundle import StateSpec
from streamasr.nn.cells import make_cell
from streamasr.nn.stage import Stage, State


@dataclass(frozen=True)
class WordModelConfig:
    """What the weights are shaped by."""

    numbers: int  # of words: the language model's, then </s> and <s>
    tokens: int
    embedding: int = 96  # of a token, where it comes in and where it goes out
    width: int = 320  # of the state
    cell: str = "gru"

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


class WordModel(Stage):
    """Embedding -> cell -> the same embedding; (N, T) tokens in, (N, T, tokens) log-probabilities of the next out."""

    token: Tensor  # (numbers,) the token of each word
    share: Tensor  # (numbers,) log-probability of a word where its token is known

    def __init__(self, config: WordModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.tokens, config.embedding)
        self.widen = nn.Linear(config.embedding, config.width)
        self.cell = make_cell(config.cell, config.width)
        self.narrow = nn.Linear(config.width, config.embedding)
        self.bias = nn.Parameter(torch.zeros(config.tokens))
        self.register_buffer("token", torch.zeros(config.numbers, dtype=torch.int64))
        self.register_buffer("share", torch.zeros(config.numbers))
        nn.init.normal_(self.embedding.weight, std=config.embedding**-0.5)

    def state_specs(self) -> list[StateSpec]:
        return self.cell.state_specs()

    def hidden(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(N, T) tokens -> (N, T, embedding): what is compared with the embedding of every token."""
        scale = self.config.embedding**0.5  # small going out, of size one coming in
        wide = nn.functional.silu(self.widen(scale * self.embedding(x)))
        y, state = self.cell.step(wide.float(), state)
        return self.narrow(y), state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.hidden(x, state)
        return self.following(y), state

    def following(self, y: Tensor) -> Tensor:
        """(..., embedding) from `hidden` -> (..., tokens) log-probabilities."""
        return nn.functional.log_softmax(nn.functional.linear(y, self.embedding.weight, self.bias), dim=-1)
