"""What hypotheses of a beam may become in a frame, and how those of one future become one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

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
    spelled: Names  # (2 or 0, candidates)
    blank: Floats
    label: Floats
    prior: Floats
    rank: Floats  # what it is chosen by

    def take(self, places: Ints, **others: Any) -> Candidates:
        """Some of them. others: fields that become what is given here."""
        return Candidates(
            **others, **{name: getattr(self, name).take(places, axis=-1) for name in NAMES - others.keys()}
        )

    def survivors(self, histories: int, count: int) -> Candidates:
        """At most `count`, those of the highest rank: one of each history and future, with all its alignments.

        A future is a node, last token and state of the language model; of those that have one in common only the
        best `histories` are left.
        """
        place = (self.node.astype(np.uint64) << np.uint64(6)) | self.last.astype(np.uint64)
        future = (self.lm.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)) ^ (place * np.uint64(0x94D049BB133111EB))
        future ^= future >> np.uint64(31)
        key = (future ^ self.history ^ of_phones(self.spelled)) * np.uint64(0x9E3779B97F4A7C15)
        leader, blank, label, rank = self._summed(key)
        future = future[leader]
        order = np.lexsort((-rank, future))
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = future[order[1:]] != future[order[:-1]]
        at = np.arange(len(order))
        nth = at - np.maximum.accumulate(np.where(begins, at, 0))
        kept = order[nth < histories]
        if len(kept) > count:
            kept = kept[np.argpartition(-rank[kept], count)[:count]]
        return self.take(leader[kept], blank=blank[kept], label=label[kept], rank=rank[kept])

    def _summed(self, key: Names) -> tuple[Ints, Floats, Floats, Floats]:
        """Of each key: the place of the best, and blank, label and rank with the alignments of all."""
        order = np.argsort(key, kind="stable")
        key, rank = key[order], self.rank[order]
        begins = np.ones(len(key), dtype=bool)
        begins[1:] = key[1:] != key[:-1]
        starts = np.flatnonzero(begins)
        if len(starts) == len(key):
            return np.arange(len(key)), self.blank, self.label, self.rank
        group = np.cumsum(begins) - 1
        best = np.maximum.reduceat(rank, starts)
        at_best = np.flatnonzero(rank == best[group])
        first = np.empty(len(starts), dtype=np.int64)
        first[group[at_best[::-1]]] = at_best[::-1]  # the first of equals
        blank = np.logaddexp.reduceat(self.blank[order], starts)
        label = np.logaddexp.reduceat(self.label[order], starts)
        leader = order[first]
        gained = np.logaddexp(blank, label) - np.logaddexp(self.blank[leader], self.label[leader])
        return leader, blank, label, best + gained


NAMES = {field.name for field in fields(Candidates)}


def of_phones(spelled: Names) -> Names:
    """(2, Q) phones of unknown words -> (Q,) a number for each; 0 where there are none. (0, Q) -> 0 for all."""
    if not len(spelled):
        return np.zeros(1, dtype=np.uint64)
    number: Names = spelled[0] * np.uint64(0xD6E8FEB86659FD93) ^ spelled[1] * np.uint64(0xC2B2AE3D27D4EB4F)
    return number


def longer(history: Names, word: NDArray[np.int32]) -> Names:
    """A number for the longer sequence of words; two sequences share one with a chance of 2^-64."""
    mixed: Names = (history ^ (word.astype(np.uint64) + np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return mixed
