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
HALF = np.uint64(0xFFFFFFFF00000000)


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
        # One order for both: candidates of one future stand together, and in it those of one history.
        order = np.argsort((future & HALF) | (key >> np.uint64(32)), kind="stable")
        leader, blank, label, rank = self._summed(order, key[order])
        future = future[leader]
        ends = _begins(future, 1).nonzero()[0]
        sizes = ends[1:] - ends[:-1]
        lives = np.ones(len(future), dtype=bool)
        if (many := sizes > histories).any():
            crowd = np.repeat(many, sizes).nonzero()[0]
            group = np.repeat(np.arange(len(sizes)), sizes)[crowd]
            crowd = crowd[np.lexsort((-rank[crowd], group))]
            nth = np.arange(len(crowd)) - np.repeat(np.cumsum(sizes[many]) - sizes[many], sizes[many])
            lives[crowd[nth >= histories]] = False
        kept = lives.nonzero()[0]
        if len(kept) > count:
            kept = kept[np.argpartition(-rank[kept], count)[:count]]
        return self.take(leader[kept], blank=blank[kept], label=label[kept], rank=rank[kept])

    def _summed(self, order: Ints, key: Names) -> tuple[Ints, Floats, Floats, Floats]:
        """Of each key, those in this order: the best one's place, and blank, label and rank with all alignments."""
        first = _begins(key)
        leader = order[first]
        blank, label, rank = self.blank[leader], self.label[leader], self.rank[leader]
        if len(leader) < len(order):  # the few that are not alone
            together = ~first
            together[:-1] |= together[1:]
            place, begins = order[together], first[together]
            starts, group, those = begins.nonzero()[0], begins.cumsum() - 1, together[first].nonzero()[0]
            own = self.rank[place]
            best = np.maximum.reduceat(own, starts)
            at_best = (own == best[group]).nonzero()[0][::-1]
            chosen = np.empty(len(starts), dtype=np.int64)
            chosen[group[at_best]] = place[at_best]  # the first of equals
            alone = np.logaddexp(self.blank[chosen], self.label[chosen])
            leader[those] = chosen
            blank[those] = np.logaddexp.reduceat(self.blank[place], starts)
            label[those] = np.logaddexp.reduceat(self.label[place], starts)
            rank[those] = best + (np.logaddexp(blank[those], label[those]) - alone)
        return leader, blank, label, rank


def _begins(values: Names, beyond: int = 0) -> NDArray[np.bool_]:
    """Which are not as the one before. beyond: so many more at the end that are not, either."""
    first = np.ones(len(values) + beyond, dtype=bool)
    np.not_equal(values[1:], values[:-1], out=first[1 : len(values)])
    return first


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
