"""How a word that no lexicon knows is probably spoken: an n-gram over pairs of letter and phones.

A joint-sequence model (Bisani and Ney 2008, "Joint-sequence models for grapheme-to-phoneme
conversion"): every letter of a word goes with 0, 1 or 2 phones, such a pair is a unit, and an
n-gram with back-off says which unit follows which. `recipes/g2p` estimates it. Costs are whole
numbers, so every machine finds the same phones.
"""

from __future__ import annotations

import json
import math
import unicodedata
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamasr.errors import BundleError

ALPHABET = "'abcdefghijklmnopqrstuvwxyz"
MAGIC = b"streamasr g2p 1\n"
BEAM = 12  # hypotheses kept after each letter; on dev 8 have 0.7 points more word errors, 48 have 0.1 fewer
MOST_SILENT = 3  # letters in a row, as in "though"
APOSTROPHES = {"’": "'", "‘": "'", "ʼ": "'"}
# Letters that Unicode does not take apart into a base and a mark.
FOLDS = str.maketrans(
    {**APOSTROPHES, "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)

Hypothesis = tuple[int, tuple[int, ...], tuple[int, ...]]  # cost, nodes of its contexts, phones (or letters)


@dataclass(frozen=True)
class Unit:
    """A letter and the phones that it stands for, as places in ALPHABET and in the model's phones."""

    letter: int
    phones: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class G2p:
    """The n-gram as a tree of units: node 0 is the empty context, children lie together and are sorted by unit.

    Nodes are numbered level by level. Unit 0 is the edge of a word, before its first letter and
    after its last; the others are sorted by letter. Arrays are (nodes,).
    """

    phones: tuple[str, ...]
    units: tuple[Unit, ...]  # without unit 0
    step: float  # nats of one unit of cost
    unit: NDArray[np.uint16]
    children: NDArray[np.uint16]  # how many
    cost: NDArray[np.uint8]  # -log p(unit | context)
    backoff: NDArray[np.int8]  # -log of what p of the shorter context is multiplied with

    @classmethod
    def open(cls, path: Path) -> G2p:
        """Read a model; BundleError where the file is not one."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}; copy the whole bundle folder") from error
        if not content.startswith(MAGIC):
            raise BundleError(f"{path}: not a grapheme-to-phoneme model of this version; copy the file again")
        body = content[len(MAGIC) + 4 :]
        if zlib.crc32(body) != int.from_bytes(content[len(MAGIC) : len(MAGIC) + 4], "little"):
            raise BundleError(f"{path}: damaged, its checksum does not fit; copy the file again")
        header, packed = body.split(b"\n", 1)
        values = json.loads(header)
        nodes = int(values["nodes"])
        planes = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(6, nodes)  # (bytes of a node, nodes)
        return cls(
            phones=tuple(values["phones"]),
            units=tuple(Unit(letter, tuple(phones)) for letter, phones in values["units"]),
            step=values["step"],
            unit=_join(planes[0], planes[1]),
            children=_join(planes[2], planes[3]),
            cost=planes[4],
            backoff=planes[5].view(np.int8),
        )

    def save(self, path: Path) -> None:
        """Write what `open` reads: the same bytes for the same model."""
        header = {
            "phones": self.phones,
            "units": [(unit.letter, unit.phones) for unit in self.units],
            "step": self.step,
            "nodes": len(self.unit),
        }
        low, high = np.uint16(255), np.uint16(8)
        planes = np.stack(  # bytes of one kind together: that packs best
            [
                *((self.unit & low).astype(np.uint8), (self.unit >> high).astype(np.uint8)),
                *((self.children & low).astype(np.uint8), (self.children >> high).astype(np.uint8)),
                *(self.cost, self.backoff.view(np.uint8)),
            ]
        )
        body = json.dumps(header).encode() + b"\n" + zlib.compress(planes.tobytes(), 9)
        path.write_bytes(MAGIC + zlib.crc32(body).to_bytes(4, "little") + body)

    def pronounce(self, word: str, n: int = 1) -> list[list[str]]:
        """The best n different pronunciations (fewer of a short word), best first; ValueError for what has none."""
        return [phones for phones, _ in self.scored(word, n)]

    def scored(self, word: str, n: int = 1) -> list[tuple[list[str], float]]:
        """As `pronounce`, each with the log-probability (nats) of word and phones together."""
        letters = fold(word)
        missing = sorted({letter for letter in letters if not self._of_letter[ALPHABET.index(letter)]})
        if missing:
            raise ValueError(f"'{word}': the model has never seen the letter '{missing[0]}'")
        found = self._search([ALPHABET.index(letter) for letter in letters], max(BEAM, 2 * n))
        best = [(phones, log_prob) for phones, log_prob in self._summed(found) if phones]  # nobody says nothing
        if not best:  # not in English, where every letter but the apostrophe can sound
            raise ValueError(f"'{word}': every letter is silent, expected one that can be heard")
        return [([self.phones[p] for p in phones], log_prob) for phones, log_prob in best[:n]]

    def _summed(self, found: list[Hypothesis]) -> list[tuple[tuple[int, ...], float]]:
        """Log-probabilities of the different ones, over all ways to share letters and phones out; the best first."""
        least = min((cost for cost, _, _ in found), default=0)
        totals: dict[tuple[int, ...], float] = {}  # relative to the best
        for cost, _, said in found:
            totals[said] = totals.get(said, 0.0) + math.exp(self.step * (least - cost))
        best = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        return [(said, math.log(total) - self.step * least) for said, total in best]

    def _search(self, letters: list[int], beam: int) -> list[Hypothesis]:
        """Hypotheses of the whole word."""
        hypotheses: list[Hypothesis] = [(0, self._start, ())]
        for letter in letters:
            first, last = self._of_letter[letter].start, self._of_letter[letter].stop
            grown = [
                (cost, contexts, hypothesis[2] + self.units[unit - 1].phones)
                for hypothesis in hypotheses
                for unit, cost, contexts in self._grow(hypothesis, first, last)
            ]
            hypotheses = sorted(grown)[:beam]
        return self._ended(hypotheses)

    def _ended(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        """What they are if the word ends."""
        return [(cost, nodes, h[2]) for h in hypotheses for _, cost, nodes in self._grow(h, 0, 1)]

    def write(self, phones: Sequence[str], n: int = 1) -> list[str]:
        """The n best ways to write a word that is spoken so, best first; fewer of a short word, or of a strange one."""
        heard = tuple(self.phones.index(phone) for phone in phones)
        pools: list[list[Hypothesis]] = [[(0, self._start, ())], *([] for _ in heard)]  # by how many phones are written
        for place in range(len(pools)):
            newest = pools[place] = sorted(pools[place])[:BEAM]
            for _ in range(MOST_SILENT):
                worst = pools[place][-1][0] if len(pools[place]) == BEAM else math.inf
                newest = sorted(new for new in self._written(newest, ()) if new[0] < worst)[:BEAM]
                pools[place] = sorted(pools[place] + newest)[:BEAM]
            for count in range(1, min(2, len(heard) - place) + 1):
                pools[place + count] += self._written(pools[place], heard[place : place + count])
        best = self._summed(self._ended(pools[-1]))[:n]
        return ["".join(ALPHABET[letter] for letter in letters) for letters, _ in best]

    def _written(self, hypotheses: list[Hypothesis], phones: tuple[int, ...]) -> list[Hypothesis]:
        """Hypotheses of letters and each letter that stands for these phones."""
        among = self._of_phones.get(phones, frozenset())
        return [
            (cost, contexts, hypothesis[2] + (self.units[unit - 1].letter,))
            for hypothesis in hypotheses
            for unit, cost, contexts in self._grow(hypothesis, 1, len(self.units) + 1, among)
        ]

    def _grow(
        self, hypothesis: Hypothesis, first: int, last: int, among: Container[int] | None = None
    ) -> list[tuple[int, int, tuple[int, ...]]]:
        """Unit, cost and contexts of each of the units first..last-1, or those `among` these, after a hypothesis.

        The longest context that knows a unit sets its cost.
        """
        unit, offsets, costs, backoffs = self._views
        spent, contexts, _ = hypothesis
        found: dict[int, tuple[int, list[int]]] = {}
        for node in contexts:  # longest first
            end = offsets[node + 1]
            child = bisect_left(unit, first, offsets[node], end)
            while child < end and unit[child] < last:
                if among is None or unit[child] in among:
                    following = found.get(unit[child])
                    if following is None:
                        following = found[unit[child]] = spent + costs[child], []
                    if offsets[child] < offsets[child + 1]:  # else nothing is known of what follows it
                        following[1].append(child)
                child += 1
            spent += backoffs[node]
        return [(place, cost, (*nodes, 0)) for place, (cost, nodes) in found.items()]

    @cached_property
    def _views(self) -> tuple[array[int], array[int], array[int], array[int]]:
        """Unit, first child (nodes + 1,), cost, back-off: in arrays that give Python's own numbers fast."""
        offsets = np.concatenate(([1], 1 + np.cumsum(self.children, dtype=np.int32))).astype(np.int32)
        columns = (("H", self.unit), ("i", offsets), ("B", self.cost), ("b", self.backoff))
        unit, first, cost, backoff = (array(kind, column.tobytes()) for kind, column in columns)
        return unit, first, cost, backoff

    @cached_property
    def _of_letter(self) -> list[range]:
        """The units of each letter of ALPHABET."""
        letters = [-1] + [unit.letter for unit in self.units]
        return [range(bisect_left(letters, i), bisect_left(letters, i + 1)) for i in range(len(ALPHABET))]

    @cached_property
    def _of_phones(self) -> dict[tuple[int, ...], frozenset[int]]:
        """The units of each sequence of phones."""
        found: dict[tuple[int, ...], list[int]] = {}
        for number, unit in enumerate(self.units, 1):
            found.setdefault(unit.phones, []).append(number)
        return {phones: frozenset(numbers) for phones, numbers in found.items()}

    @cached_property
    def _start(self) -> tuple[int, ...]:
        """Contexts before the first letter: the edge of a word, and nothing."""
        return (1, 0)  # the edge is unit 0, so the first child of the root


def fold(word: str) -> str:
    """A word in letters of ALPHABET; ValueError names what has no place there."""
    decomposed = unicodedata.normalize("NFKD", word.casefold().translate(FOLDS))
    letters = "".join(letter for letter in decomposed if not unicodedata.combining(letter)).translate(FOLDS)
    for letter in letters:
        if letter not in ALPHABET:
            raise ValueError(f"'{word}': cannot pronounce {letter!r}, expected letters a to z and apostrophes")
    if not letters.strip("'"):
        raise ValueError(f"'{word}': has no letter, expected at least one of a to z")
    return letters


def _join(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Numbers of two bytes."""
    return low.astype(np.uint16) | (high.astype(np.uint16) << np.uint16(8))
