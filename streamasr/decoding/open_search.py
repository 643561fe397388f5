"""A beam search that also hears words of no list: their phones become letters where they are shown."""

from __future__ import annotations

from dataclasses import replace

from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.beam_state import BeamState
from streamasr.decoding.hypothesis import Hypothesis


class OpenSearch(BeamSearch):
    """A Decoder over a vocabulary with `unknown`. In its states such a word is still its phones."""

    def hypothesis(self, state: BeamState) -> Hypothesis:
        return self._written(super().hypothesis(state))

    def final(self, state: BeamState) -> Hypothesis:
        return self._written(super().final(state))

    def n_best(self, state: BeamState, n: int) -> list[tuple[str, float]]:
        found: dict[str, float] = {}
        for text, log_prob in super().n_best(state, n):
            found.setdefault(self._in_letters(text), log_prob)
        return list(found.items())

    def _written(self, hypothesis: Hypothesis) -> Hypothesis:
        words = tuple(replace(word, text=self._in_letters(word.text)) for word in hypothesis.words)
        return replace(hypothesis, words=words)

    def _in_letters(self, text: str) -> str:
        unknown = self.vocabulary.unknown
        return unknown.write(text) if unknown else text
