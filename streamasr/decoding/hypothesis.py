"""What a decoder believes: words with the frames and log-probabilities they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import Evidence


@dataclass(frozen=True)
class HypothesisWord:
    """A word, the frames of its first and last token, and what speaks for it."""

    text: str
    first_frame: int
    last_frame: int
    evidence: Evidence


@dataclass(frozen=True)
class Hypothesis:
    """The words of the utterance that is being decoded."""

    words: tuple[HypothesisWord, ...]
    stable: int  # so many of the first words will not be taken back

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class Spoken:
    """How far an utterance that has words has come: what endpoint rules look at after every frame."""

    first_frame: int  # of its first word
    quiet_frames: int  # since the last token


class Decoder(Protocol):
    """A decoder is shared by all streams; its state is immutable and plain, so it can be saved and forked."""

    def start(self) -> Any:
        """The state before the first frame of a stream."""

    def step(self, log_probs: NDArray[np.float32], state: Any) -> Any:
        """One frame, (tokens,) -> the next state."""

    def spoken(self, state: Any) -> Spoken | None:
        """None while the current utterance has no words."""

    def hypothesis(self, state: Any) -> Hypothesis:
        """The best words of the current utterance, while it goes on."""

    def final(self, state: Any) -> Hypothesis:
        """The best words of the current utterance, if it ends here."""

    def n_best(self, state: Any, n: int) -> list[tuple[str, float]]:
        """Up to n texts of the current utterance with their log-probabilities if it ends here, the best first."""

    def next_utterance(self, state: Any) -> Any:
        """The state after an endpoint: words are forgotten, the place in the stream is not."""

    def pack(self, state: Any) -> Any:
        """The state as JSON data."""

    def unpack(self, values: Any) -> Any:
        """The inverse of pack."""


def decoded(decoder: Decoder, rows: NDArray[np.float32]) -> Any:
    """The decoder's state after log-probabilities (frames, tokens) of one utterance."""
    state = decoder.start()
    for row in rows:
        state = decoder.step(row, state)
    return state
