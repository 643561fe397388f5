"""Greedy CTC: the best token of every frame, repeats merged, blanks dropped; a space ends a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.hypothesis import Hypothesis, HypothesisWord

BLANK = 0


@dataclass(frozen=True)
class GreedyState:
    """Everything a stream's decoding rests on."""

    frame: int = 0  # frames seen since the stream began
    last: int = BLANK  # best token of the last frame
    letter_frame: int = 0  # the frame of the last letter
    words: tuple[HypothesisWord, ...] = ()
    open_word: bool = False


class Greedy:
    """A Decoder over one head of letters."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tuple(tokens)
        self._space = self._tokens.index(" ")

    def start(self) -> GreedyState:
        return GreedyState()

    def step(self, log_probs: NDArray[np.float32], state: GreedyState) -> GreedyState:
        best = int(log_probs.argmax())
        following = replace(state, frame=state.frame + 1, last=best)
        if best == BLANK:
            return following
        if best == self._space:
            return replace(following, open_word=False)
        score = float(log_probs[best])
        if best == state.last:  # the same letter goes on
            words = state.words[:-1] + ((_longer(state.words[-1], state.frame, score),) if state.words else ())
        elif state.open_word:
            words = (*state.words[:-1], _with_letter(state.words[-1], self._tokens[best], state.frame, score))
        else:
            words = (*state.words, HypothesisWord(self._tokens[best], state.frame, state.frame, (score,)))
            following = replace(following, open_word=True)
        return replace(following, words=words, letter_frame=state.frame)

    def hypothesis(self, state: GreedyState) -> Hypothesis:
        return Hypothesis(state.words, state.open_word, state.frame - 1 - state.letter_frame)

    def next_utterance(self, state: GreedyState) -> GreedyState:
        return replace(state, words=(), open_word=False)

    def pack(self, state: GreedyState) -> Any:
        words = [[w.text, w.first_frame, w.last_frame, list(w.log_probs)] for w in state.words]
        return [state.frame, state.last, state.letter_frame, words, state.open_word]

    def unpack(self, values: Any) -> GreedyState:
        frame, last, letter_frame, words, open_word = values
        made = tuple(HypothesisWord(text, first, final, tuple(scores)) for text, first, final, scores in words)
        return GreedyState(frame, last, letter_frame, made, open_word)


def _longer(word: HypothesisWord, frame: int, score: float) -> HypothesisWord:
    scores = (*word.log_probs[:-1], max(word.log_probs[-1], score))
    return HypothesisWord(word.text, word.first_frame, frame, scores)


def _with_letter(word: HypothesisWord, letter: str, frame: int, score: float) -> HypothesisWord:
    return HypothesisWord(word.text + letter, word.first_frame, frame, (*word.log_probs, score))
