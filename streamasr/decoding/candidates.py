"""What hypotheses of a beam may become in a frame, and how those of one future become one."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

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
    spelled: Names  # (2, candidates)
    blank: Floats
    label: Floats
    prior: Floats
    rank: Floats  # what it is chosen by

    def take(self, places: Ints) -> Candidates:
        """Some of them."""
        return Candidates(**{f.name: getattr(self, f.name)[..., places] for f in fields(self)})

    def best(self, count: int) -> Candidates:
        """At most so many, those of the highest rank."""
        if len(self.rank) <= count:
            return self
        return self.take(np.argpartition(-self.rank, count)[:count])

    def merged(self, histories: int) -> Candidates:
        """One of each history and future (node, last token, language model), with all its alignments.

        Of those that have a future in common only the best `histories` are left.
        """
        place = (self.node.astype(np.uint64) << np.uint64(6)) | self.last.astype(np.uint64)
        future = (self.lm.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)) ^ (place * np.uint64(0x94D049BB133111EB))
        future ^= future >> np.uint64(31)
        summed, places = self._summed((future ^ self.history ^ of_phones(self.spelled)) * np.uint64(0x9E3779B97F4A7C15))
        future = future[places]
        order = np.lexsort((-summed.rank, future))
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = future[order[1:]] != future[order[:-1]]
        at = np.arange(len(order))
        nth = at - np.maximum.accumulate(np.where(begins, at, 0))
        return summed.take(order[nth < histories])

    def _summed(self, key: Names) -> tuple[Candidates, Ints]:
        """One of each key: the best, with the alignments of all; and where these were."""
        order = np.argsort(key, kind="stable")
        key, rank = key[order], self.rank[order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        if len(starts) == len(key):
            return self, np.arange(len(key))
        group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(key))))
        best = np.maximum.reduceat(rank, starts)
        at_best = np.flatnonzero(rank == best[group])
        leader = np.empty(len(starts), dtype=np.int64)
        leader[group[at_best[::-1]]] = at_best[::-1]  # the first of equals
        blank = np.logaddexp.reduceat(self.blank[order], starts)
        label = np.logaddexp.reduceat(self.label[order], starts)
        chosen = self.take(order[leader])
        gained = np.logaddexp(blank, label) - np.logaddexp(chosen.blank, chosen.label)
        return replace(chosen, blank=blank, label=label, rank=chosen.rank + gained), order[leader]


def of_phones(spelled: Names) -> Names:
    """(2, Q) phones of unknown words -> (Q,) a number for each; 0 where there are none."""
    number: Names = spelled[0] * np.uint64(0xD6E8FEB86659FD93) ^ spelled[1] * np.uint64(0xC2B2AE3D27D4EB4F)
    return number


def longer(history: Names, word: NDArray[np.int32]) -> Names:
    """A number for the longer sequence of words; two sequences share one with a chance of 2^-64."""
    mixed: Names = (history ^ (word.astype(np.uint64) + np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return mixed
