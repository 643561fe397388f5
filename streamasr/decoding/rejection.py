"""A beam search over a grammar that says so where speech is none of its phrases, rather than force it into one.

Beside the beam runs the free path: the best token of every frame, whatever words it makes. A phrase
that was said is about as probable as that path; the more it is below, for each token that was heard,
the less the speech is a phrase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import Evidence
from streamasr.decoding import links
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.beam_state import BLANK, BeamState
from streamasr.decoding.candidates import NEVER
from streamasr.decoding.grammar import Grammar
from streamasr.decoding.hypothesis import Hypothesis, HypothesisWord, Spoken
from streamasr.decoding.prefixtree import ROOT
from streamasr.decoding.spellings import Spellings
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.errors import BundleError

OTHER = "<other>"  # what is said for speech that is no phrase
MOST_LOST = 1.6  # log-probability for each token heard that a phrase may be below the free path
# Few words are possible, so a badly heard one can be looked for longer: chosen on the even lines of commands.jsonl.
WIDE = {
    "hypotheses": 300,
    "width": 30.0,
    "token_width": 14.0,
    "blank_penalty": 0.0,  # a phrase is compared with the free path, which is of the network's own probabilities
    "token_penalties": (),
    "blank_skip": 0.9999,
    "lm_weight": 0.1,
    "word_bonus": 4.0,
}
FEWEST_TOKENS = 3  # in an utterance that is answered with OTHER; fewer are noise
NOTHING = Hypothesis((), 0)


@dataclass(frozen=True)
class GrammarState:
    """The beam, and the free path since the utterance began."""

    beam: BeamState
    last: int = BLANK  # best token of the last frame
    first_frame: int = 0  # of the first token; without meaning while there are none
    token_frame: int = 0  # of the last
    tokens: int = 0
    total: float = 0.0  # log-probability of the path
    token_sum: float = 0.0  # of the frames in which its tokens begin
    token_min: float = 0.0
    blank_sum: float = 0.0  # log-probability of the blank from the first token to the last, summed
    quiet: float = 0.0  # and since


class GrammarSearch:
    """A Decoder whose words are one phrase of a grammar, or OTHER, or none where nobody speaks."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        grammar: Grammar,
        most_lost: float = MOST_LOST,
        settings: Mapping[str, Any] = MappingProxyType(WIDE),
    ) -> None:
        """vocabulary: whose spellings are used; its language model is not. settings: of its BeamConfig, replaced."""
        self.grammar, self.most_lost = grammar, most_lost
        self.beam = BeamSearch(_restricted(vocabulary, grammar, settings))

    def start(self) -> GrammarState:
        return GrammarState(self.beam.start())

    def step(self, log_probs: NDArray[np.float32], state: GrammarState) -> GrammarState:
        best, frame = int(log_probs.argmax()), state.beam.frame
        score = float(log_probs[best])
        following = replace(
            state,
            beam=self.beam.step(log_probs, state.beam),
            last=best,
            total=state.total + min(score, 0.0),
            quiet=(state.quiet if state.tokens else 0.0) + float(log_probs[BLANK]),
        )
        if best == BLANK or (best == state.last and not state.tokens):
            return following
        following = replace(following, token_frame=frame, blank_sum=state.blank_sum + following.quiet, quiet=0.0)
        if best == state.last:  # it goes on
            return following
        return replace(
            following,
            first_frame=state.first_frame if state.tokens else frame,
            tokens=state.tokens + 1,
            token_sum=state.token_sum + score,
            token_min=min(state.token_min, score),
        )

    def spoken(self, state: GrammarState) -> Spoken | None:
        if not state.tokens:
            return None
        return Spoken(state.first_frame, state.beam.frame - 1 - state.token_frame)

    def hypothesis(self, state: GrammarState) -> Hypothesis:
        # Until the end everything may turn out to be OTHER, so nothing is stable.
        best = float(np.logaddexp(state.beam.blank, state.beam.label).max())
        if self._lost(state, best) > self.most_lost:
            return NOTHING
        return Hypothesis(self.beam.hypothesis(state.beam).words, 0)

    def final(self, state: GrammarState) -> Hypothesis:
        phrase, log_prob = self.phrase(state)
        if phrase.words and self._lost(state, log_prob) <= self.most_lost:
            return phrase
        if state.tokens < FEWEST_TOKENS:
            return NOTHING
        blank = state.blank_sum / (state.token_frame - state.first_frame + 1)
        evidence = Evidence(state.token_sum / state.tokens, state.token_min, state.tokens, blank)
        return Hypothesis((HypothesisWord(OTHER, state.first_frame, state.token_frame, evidence),), 1)

    def phrase(self, state: GrammarState) -> tuple[Hypothesis, float]:
        """The best whole phrase, and the log-probability of the frames under it, whether it was said or not."""
        beam = state.beam
        log_prob = np.logaddexp(beam.blank, beam.label)
        ended = np.where(beam.node == ROOT, self.grammar.end(beam.lm), NEVER)
        rank = np.where(ended > NEVER, log_prob + beam.prior + self.beam.config.lm_weight * ended, NEVER)
        best = int(rank.argmax())
        if rank[best] == NEVER:
            return NOTHING, NEVER
        words = links.words_of(beam.links[best])
        return Hypothesis(words, len(words)), float(log_prob[best])

    def lost(self, state: GrammarState) -> float:
        """By how much the best phrase is below the free path, for each token of that path; inf: there is none."""
        return self._lost(state, self.phrase(state)[1])

    def _lost(self, state: GrammarState, log_prob: float) -> float:
        return (state.total - log_prob) / max(state.tokens, 1)

    def n_best(self, state: GrammarState, n: int) -> list[tuple[str, float]]:
        words = self.final(state).words
        if not words or words[0].text == OTHER:
            return [(OTHER, state.total)][:n] if words else []
        found = self.beam.n_best(state.beam, n)
        return [(text, log_prob) for text, log_prob in found if log_prob > NEVER]

    def next_utterance(self, state: GrammarState) -> GrammarState:
        words = self.final(state).words
        if words and words[0].text != OTHER:
            return GrammarState(self.beam.next_utterance(state.beam), last=state.last)
        fresh = replace(self.beam.start(), frame=state.beam.frame, letter_frame=state.beam.letter_frame)
        return GrammarState(fresh, last=state.last)  # words that were begun were none

    def pack(self, state: GrammarState) -> Any:
        path = [state.last, state.first_frame, state.token_frame, state.tokens]
        sums = [state.total, state.token_sum, state.token_min, state.blank_sum, state.quiet]
        return [self.beam.pack(state.beam), path, sums]

    def unpack(self, values: Any) -> GrammarState:
        beam, path, sums = values
        return GrammarState(self.beam.unpack(beam), *path, *sums)


def _restricted(vocabulary: Vocabulary, grammar: Grammar, settings: Mapping[str, Any]) -> Vocabulary:
    """The grammar's words only."""
    spelled: list[bytes] = []
    numbers: list[int] = []
    for number, word in enumerate(grammar.words):
        if number == grammar.unknown:
            continue
        try:
            ways = vocabulary.speller.spell(word, 2)
        except ValueError as error:
            raise BundleError(f"grammar: the word {word!r} cannot be spelled: {error}") from error
        spelled += ways
        numbers += [number] * len(ways)
    config = replace(vocabulary.config, **settings)
    return Vocabulary(grammar, Spellings.of(spelled, numbers), vocabulary.speller, config)
