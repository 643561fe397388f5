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
    """A word, the frames of its first and last letter, the log-probability of each letter and of the blank in them."""

    text: str
    first_frame: int
    last_frame: int
    log_probs: tuple[float, ...]
    blank: float  # sum over all its frames

    @property
    def said(self) -> HypothesisWord:
        """As it is shown."""
        count, frames = len(self.log_probs), self.last_frame - self.first_frame + 1
        evidence = Evidence(sum(self.log_probs) / count, min(self.log_probs), count, self.blank / frames)
        return HypothesisWord(self.text, self.first_frame, self.last_frame, evidence)


@dataclass(frozen=True)
class GreedyState:
    """Everything a stream's decoding rests on."""

    frame: int = 0  # frames seen since the stream began
    last: int = BLANK  # best token of the last frame
    letter_frame: int = 0  # the frame of the last letter
    words: tuple[Spelled, ...] = ()
    open_word: bool = False
    quiet: float = 0.0  # log-probability of the blank since the last letter, summed
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
        quiet = state.quiet + float(log_probs[BLANK])
        following = replace(state, frame=state.frame + 1, last=best, quiet=quiet, log_prob=state.log_prob + score)
        if best == BLANK:
            return following
        if best == self._space:
            return replace(following, open_word=False)
        if best == state.last:  # the same letter goes on
            words = state.words[:-1] + ((_longer(state.words[-1], state.frame, score, quiet),) if state.words else ())
        elif state.open_word:
            words = (*state.words[:-1], _with_letter(state.words[-1], self._tokens[best], state.frame, score, quiet))
        else:
            own = float(log_probs[BLANK])
            words = (*state.words, Spelled(self._tokens[best], state.frame, state.frame, (score,), own))
            following = replace(following, open_word=True)
        return replace(following, words=words, letter_frame=state.frame, quiet=0.0)

    def spoken(self, state: GreedyState) -> Spoken | None:
        return Spoken(state.words[0].first_frame, state.frame - 1 - state.letter_frame) if state.words else None

    def hypothesis(self, state: GreedyState) -> Hypothesis:
        return Hypothesis(tuple(word.said for word in state.words), len(state.words) - state.open_word)

    def final(self, state: GreedyState) -> Hypothesis:
        return self.hypothesis(state)

    def n_best(self, state: GreedyState, n: int) -> list[tuple[str, float]]:
        return [(self.hypothesis(state).text, state.log_prob)]

    def next_utterance(self, state: GreedyState) -> GreedyState:
        return replace(state, words=(), open_word=False, log_prob=0.0)

    def pack(self, state: GreedyState) -> Any:
        words = [[w.text, w.first_frame, w.last_frame, list(w.log_probs), w.blank] for w in state.words]
        return [state.frame, state.last, state.letter_frame, words, state.open_word, state.quiet, state.log_prob]

    def unpack(self, values: Any) -> GreedyState:
        frame, last, letter_frame, words, *rest = values
        made = tuple(Spelled(text, first, final, tuple(scores), blank) for text, first, final, scores, blank in words)
        return GreedyState(frame, last, letter_frame, made, *rest)


def _longer(word: Spelled, frame: int, score: float, blank: float) -> Spelled:
    log_probs = (*word.log_probs[:-1], max(word.log_probs[-1], score))
    return replace(word, last_frame=frame, log_probs=log_probs, blank=word.blank + blank)


def _with_letter(word: Spelled, letter: str, frame: int, score: float, blank: float) -> Spelled:
    return Spelled(word.text + letter, word.first_frame, frame, (*word.log_probs, score), word.blank + blank)
