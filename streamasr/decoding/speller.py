"""How any word is spelled in a head's tokens: as a list has it, else as it is probably spoken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from streamasr.decoding.spellings import Spellings


class Pronouncer(Protocol):
    """Spells words that are in no list."""

    def pronounce(self, word: str, n: int = 1) -> list[list[str]]:
        """The n best spellings of a word; ValueError says why it has none."""


class Speller:
    """`spell` a word, or make the Spellings of many."""

    def __init__(
        self, known: Callable[[str], list[bytes]], tokens: Sequence[str], pronouncer: Pronouncer | None
    ) -> None:
        """known: the listed spellings of a word, [] for other words. pronouncer: None where words spell themselves.

        tokens: of a head, the blank first.
        """
        self.tokens = tuple(tokens)
        self._known, self._pronouncer = known, pronouncer
        self._places = {token: i for i, token in enumerate(tokens)}

    def spell(self, word: str, n: int = 1) -> list[bytes]:
        """All listed spellings, else the n best guesses; ValueError says why there are none."""
        if listed := self._known(word):
            return listed
        ways = self._pronouncer.pronounce(word, n) if self._pronouncer else [list(word)]
        if missing := {token for way in ways for token in way} - self._places.keys():
            raise ValueError(f"no token for {', '.join(sorted(missing))}")
        return [bytes(self._places[token] for token in way) for way in ways]

    def spell_all(self, words: Iterable[str]) -> Spellings:
        """The spellings of a vocabulary; marks like <unk>, and words that cannot be spoken, have none."""
        spelled, numbers = [], []
        for number, word in enumerate(words):
            try:
                ways = [] if word.startswith("<") else self.spell(word)
            except ValueError:
                continue
            spelled += ways
            numbers += [number] * len(ways)
        return Spellings.of(spelled, numbers)
