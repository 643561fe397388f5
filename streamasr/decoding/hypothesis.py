"""What a decoder believes: words with the frames and log-probabilities they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class HypothesisWord:
    """A word, the frames of its first and last letter, and the log-probability of each letter."""

    text: str
    first_frame: int
    last_frame: int
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Hypothesis:
    """The words of the utterance that is being decoded, and since when nothing was added to them."""

    words: tuple[HypothesisWord, ...]
    open_word: bool  # the last word may still grow
    quiet_frames: int  # frames since the last letter

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


class Decoder(Protocol):
    """A decoder is shared by all streams; its state is immutable and plain, so it can be saved and forked."""

    def start(self) -> Any:
        """The state before the first frame of a stream."""

    def step(self, log_probs: NDArray[np.float32], state: Any) -> Any:
        """One frame, (tokens,) -> the next state."""

    def hypothesis(self, state: Any) -> Hypothesis:
        """The best words of the current utterance."""

    def next_utterance(self, state: Any) -> Any:
        """The state after an endpoint: words are forgotten, the place in the stream is not."""

    def pack(self, state: Any) -> Any:
        """The state as JSON data."""

    def unpack(self, values: Any) -> Any:
        """The inverse of pack."""
