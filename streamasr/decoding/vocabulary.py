"""What a beam search chooses from: the language model's words, and phrases that a user adds while it runs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import BeamConfig
from streamasr.decoding.prefixtree import PrefixTree
from streamasr.decoding.speller import Speller
from streamasr.decoding.spellings import Spellings
from streamasr.decoding.unknown import Unknown
from streamasr.errors import StreamError

Ints = NDArray[np.int64]
MOST_SPELLINGS = 8  # of one phrase


class LanguageModel(Protocol):
    """How probable words are after others. Its states are numbers; natural logarithms."""

    @property
    def words(self) -> Sequence[str]:
        """All words; places in it are their numbers."""

    @property
    def unigram(self) -> NDArray[np.float32]:
        """(words,) log-probabilities without context."""

    @property
    def unknown(self) -> int:
        """The word that stands for all others."""

    @property
    def start(self) -> int:
        """The state at the beginning of a sentence."""

    @property
    def checksum(self) -> int:
        """Equal for equal models."""

    def number(self, word: str) -> int:
        """The number of a word; that of the unknown one where it is none of these."""

    def score(self, states: Ints, words: NDArray[np.int32]) -> tuple[NDArray[np.float32], Ints]:
        """(Q,) states, (Q,) words -> the words' log-probabilities, the next states."""

    def end(self, states: Ints) -> NDArray[np.float32]:
        """(Q,) states -> log-probability that the sentence ends there."""


@dataclass(frozen=True)
class Phrase:
    """Words that are found as one."""

    text: str
    words: tuple[int, ...]  # as the language model knows them
    bonus: float  # log-probability that is given on top


@dataclass(frozen=True)
class Vocabulary:
    """Words and phrases in one numbering: the language model's words first."""

    lm: LanguageModel
    spellings: Spellings  # of the language model's words
    speller: Speller  # of all words
    config: BeamConfig
    phrases: tuple[Phrase, ...] = ()
    phrase_spellings: Spellings | None = None
    unknown: Unknown | None = None  # None: words are the language model's and the phrases

    @cached_property
    def checksum(self) -> int:
        """Equal where a state of the search means the same; phrases do not count."""
        return zlib.crc32(self.spellings.table.tobytes() + self.spellings.words.tobytes(), self.lm.checksum)

    @cached_property
    def plain_tree(self) -> PrefixTree:
        """Of the language model's words alone, and the loop for unknown ones."""
        worth = self.config.lm_weight * self.lm.unigram + self.config.word_bonus
        tree, number = PrefixTree(self.spellings, worth), self.lm.unknown
        if not self.unknown:
            return tree
        hope = self.config.lm_weight * max(float(self.lm.unigram[number]), self._rarest) + self.config.word_bonus
        return tree.with_loop(range(1, len(self.unknown.tokens)), number, hope)

    @cached_property
    def tree(self) -> PrefixTree:
        """Of everything."""
        if self.phrase_spellings is None:
            return self.plain_tree
        worth = [self._worth(phrase, sum(map(self._unigram, phrase.words))) for phrase in self.phrases]
        phrases = PrefixTree(self.phrase_spellings, np.array(worth, dtype=np.float32))
        return self.plain_tree.joined(phrases, len(self.lm.words))

    @cached_property
    def penalties(self) -> NDArray[np.float64]:
        """(tokens,): what a search takes off the log-probability of each token, the blank first."""
        others = self.config.token_penalties or (0.0,) * (len(self.speller.tokens) - 1)
        return np.array([self.config.blank_penalty, *others])

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """How each word or phrase is written."""
        return (*self.lm.words, *(phrase.text for phrase in self.phrases))

    def score(self, states: Ints, words: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float64], Ints]:
        """(Q,) states, (Q,) words or phrases -> log-probability, what it is worth to the search, next state."""
        known = len(self.lm.words)
        plain = np.where(words < known, words, np.int32(self.lm.unknown)) if self.phrases else words
        score, following = self.lm.score(states, plain)
        if self.unknown:
            score = np.where(words == self.lm.unknown, np.maximum(score, np.float32(self._rarest)), score)
        worth = self.config.lm_weight * score.astype(np.float64) + self.config.word_bonus
        for i in np.flatnonzero(words >= known) if self.phrases else ():
            phrase, state, total = self.phrases[words[i] - known], states[i : i + 1], 0.0
            for word in phrase.words:
                one, state = self.lm.score(state, np.array([word], dtype=np.int32))
                total += self._unigram(word) if word == self.lm.unknown else float(one[0])
            score[i], worth[i], following[i] = total, self._worth(phrase, total), state[0]
        return score, worth, following

    def _worth(self, phrase: Phrase, log_prob: float) -> float:
        return self.config.lm_weight * log_prob + self.config.word_bonus * len(phrase.words) + phrase.bonus

    def _unigram(self, word: int) -> float:
        """A single unknown word is taken to be as rare as the rarest known one."""
        return self._rarest if word == self.lm.unknown else float(self.lm.unigram[word])

    @cached_property
    def _rarest(self) -> float:
        """The least log-probability of a known word; a model may hold that of unknown ones for impossible."""
        return float(np.delete(self.lm.unigram, self.lm.unknown).min(initial=0.0))

    def with_phrases(self, bonuses: Mapping[str, float]) -> Vocabulary:
        """The same words with these phrases beside them, in place of those there were; a bonus for each."""
        phrases: list[Phrase] = []
        spelled: list[bytes] = []
        numbers: list[int] = []
        for text, bonus in bonuses.items():
            words = text.split()
            if not words:
                raise StreamError(f"hotword {text!r}: no words in it")
            for spelling in islice(product(*(self._spell(word) for word in words)), MOST_SPELLINGS):
                spelled.append(b"".join(spelling))
                numbers.append(len(phrases))
            known = tuple(self.lm.number(word) for word in words)
            phrases.append(Phrase(" ".join(text.split()), known, float(bonus)))
        made = Spellings.of(spelled, numbers) if phrases else None
        vocabulary = replace(self, phrases=tuple(phrases), phrase_spellings=made)
        vocabulary.__dict__["plain_tree"] = self.plain_tree  # made once for all
        return vocabulary

    def _spell(self, word: str) -> list[bytes]:
        known = self.lm.number(word) != self.lm.unknown  # in letters of one size or the other, as it is written there
        try:
            return self.speller.spell(word if known else word.lower(), 2)
        except ValueError as error:
            raise StreamError(f"hotword {word!r}: cannot be spelled: {error}") from error
