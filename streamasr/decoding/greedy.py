"""Greedy CTC: the best token of every frame, repeats merged, blanks dropped; a space ends a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import Evidence
from streamasr.decoding.hypothesis import Hypothesis, HypothesisWord, Spoken

BLANK = 0


@dataclass(frozen=True)
class Spelled:
    """A word, the frames of its first and last letter, and the log-probability of each letter."""

    text: str
    first_frame: int
    last_frame: int
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class GreedyState:
    """Everything a stream's decoding rests on."""

    frame: int = 0  # frames seen since the stream began
    last: int = BLANK  # best token of the last frame
    letter_frame: int = 0  # the frame of the last letter
    words: tuple[Spelled, ...] = ()
    open_word: bool = False
    log_prob: float = 0.0  # of the best tokens since the utterance began


class Greedy:
    """A Decoder over one head of letters."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tuple(tokens)
        self._space = self._tokens.index(" ")

    def start(self) -> GreedyState:
        return GreedyState()

    def step(self, log_probs: NDArray[np.float32], state: GreedyState) -> GreedyState:
        best = int(log_probs.argmax())
        score = float(log_probs[best])
        following = replace(state, frame=state.frame + 1, last=best, log_prob=state.log_prob + score)
        if best == BLANK:
            return following
        if best == self._space:
            return replace(following, open_word=False)
        if best == state.last:  # the same letter goes on
            words = state.words[:-1] + ((_longer(state.words[-1], state.frame, score),) if state.words else ())
        elif state.open_word:
            words = (*state.words[:-1], _with_letter(state.words[-1], self._tokens[best], state.frame, score))
        else:
            words = (*state.words, Spelled(self._tokens[best], state.frame, state.frame, (score,)))
            following = replace(following, open_word=True)
        return replace(following, words=words, letter_frame=state.frame)

    def spoken(self, state: GreedyState) -> Spoken | None:
        return Spoken(state.words[0].first_frame, state.frame - 1 - state.letter_frame) if state.words else None

    def hypothesis(self, state: GreedyState) -> Hypothesis:
        words = tuple(
            HypothesisWord(
                word.text,
                word.first_frame,
                word.last_frame,
                Evidence(sum(word.log_probs) / len(word.log_probs), min(word.log_probs), len(word.log_probs)),
            )
            for word in state.words
        )
        return Hypothesis(words, len(words) - state.open_word)

    def final(self, state: GreedyState) -> Hypothesis:
        return self.hypothesis(state)

    def n_best(self, state: GreedyState, n: int) -> list[tuple[str, float]]:
        return [(self.hypothesis(state).text, state.log_prob)]

    def next_utterance(self, state: GreedyState) -> GreedyState:
        return replace(state, words=(), open_word=False, log_prob=0.0)

    def pack(self, state: GreedyState) -> Any:
        words = [[w.text, w.first_frame, w.last_frame, list(w.log_probs)] for w in state.words]
        return [state.frame, state.last, state.letter_frame, words, state.open_word, state.log_prob]

    def unpack(self, values: Any) -> GreedyState:
        frame, last, letter_frame, words, open_word, log_prob = values
        made = tuple(Spelled(text, first, final, tuple(scores)) for text, first, final, scores in words)
        return GreedyState(frame, last, letter_frame, made, open_word, log_prob)


def _longer(word: Spelled, frame: int, score: float) -> Spelled:
    return replace(word, last_frame=frame, log_probs=(*word.log_probs[:-1], max(word.log_probs[-1], score)))


def _with_letter(word: Spelled, letter: str, frame: int, score: float) -> Spelled:
    return Spelled(word.text + letter, word.first_frame, frame, (*word.log_probs, score))
