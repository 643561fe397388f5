"""What hypotheses of a beam may become in a frame, and how those of one future become one."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Names = NDArray[np.uint64]

NEVER = -np.inf


@dataclass(frozen=True)
class Candidates:
    """Arrays (candidates,); see BeamState for what is not described here."""

    source: Ints  # the hypothesis it comes from
    grew: NDArray[np.bool_]  # by a token
    word: NDArray[np.int32]  # that it ended with it; -1: none
    lm_score: NDArray[np.float32]  # of that word
    node: Ints
    last: Ints
    lm: Ints
    history: Names
    blank: Floats
    label: Floats
    prior: Floats
    rank: Floats  # what it is chosen by

    def take(self, places: Ints) -> Candidates:
        """Some of them."""
        return Candidates(**{f.name: getattr(self, f.name)[places] for f in fields(self)})

    def best(self, count: int) -> Candidates:
        """At most so many, those of the highest rank."""
        if len(self.rank) <= count:
            return self
        return self.take(np.argpartition(-self.rank, count)[:count])

    def merged(self) -> Candidates:
        """One of each future (node, last token, language model): the best, with all alignments of its words."""
        place = (self.node.astype(np.uint64) << np.uint64(6)) | self.last.astype(np.uint64)
        key = (self.lm.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)) ^ (place * np.uint64(0x94D049BB133111EB))
        key ^= key >> np.uint64(31)
        order = np.argsort(key, kind="stable")
        key, rank = key[order], self.rank[order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        if len(starts) == len(key):
            return self
        group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(key))))
        best = np.maximum.reduceat(rank, starts)
        at_best = np.flatnonzero(rank == best[group])
        leader = np.empty(len(starts), dtype=np.int64)
        leader[group[at_best[::-1]]] = at_best[::-1]  # the first of equals
        history = self.history[order]
        other = history != history[leader[group]]
        blank = np.logaddexp.reduceat(np.where(other, NEVER, self.blank[order]), starts)
        label = np.logaddexp.reduceat(np.where(other, NEVER, self.label[order]), starts)
        chosen = self.take(order[leader])
        gained = np.logaddexp(blank, label) - np.logaddexp(chosen.blank, chosen.label)
        values = {f.name: getattr(chosen, f.name) for f in fields(chosen)}
        return Candidates(**{**values, "blank": blank, "label": label, "rank": chosen.rank + gained})


def longer(history: Names, word: NDArray[np.int32]) -> Names:
    """A number for the longer sequence of words; two sequences share one with a chance of 2^-64."""
    mixed: Names = (history ^ (word.astype(np.uint64) + np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return mixed
