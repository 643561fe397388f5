"""What hypotheses of a beam may become in a frame, and how those of one future become one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Names = NDArray[np.uint64]

NEVER = -np.inf
HALF = np.uint64(0xFFFFFFFF00000000)


@dataclass(frozen=True)
class Candidates:
    """Those that stay as they are, then those that grow by a token, then those that end a word with it.

    Arrays (candidates,) but where it says so; see BeamState for what is not described here.
    """

    stay: int  # how many
    word: NDArray[np.int32]  # (those that end one,)
    lm_score: NDArray[np.float32]  # of that word
    source: Ints  # the hypothesis it comes from
    node: Ints
    last: Ints
    lm: Ints
    history: Names
    spelled: Names  # (2, candidates); (0, 0) where no word is unknown
    blank: Floats
    label: Floats
    prior: Floats
    rank: Floats  # what it is chosen by

    def survivors(self, histories: int, count: int) -> tuple[Ints, Floats, Floats]:
        """At most `count`, those of the highest rank: one of each history and future.

        A future is a node, last token and state of the language model; of those that have one in common only the
        best `histories` are left. Returned are their places, and blank and label with all alignments.
        """
        place = (self.node << 6 | self.last).view(np.uint64)
        future = (self.lm.view(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)) ^ (place * np.uint64(0x94D049BB133111EB))
        future ^= future >> np.uint64(31)
        key = (future ^ self.history ^ of_phones(self.spelled)) * np.uint64(0x9E3779B97F4A7C15)
        # One order for both: candidates of one future stand together, and in it those of one history. The places
        # are sorted along in the last bits, several times as fast as by an argsort; the bits of the key that they
        # replace would part one pair in a million, which then is not summed.
        bits = np.uint64((1 << len(key).bit_length()) - 1)
        together = (future & HALF) | (key >> np.uint64(32) & ~bits) | np.arange(len(key), dtype=np.uint64)
        together.sort()
        order: Ints = (together & bits).view(np.int64)
        leader, blank, label, rank = self._summed(order, key[order])
        future = future[leader]
        ends = _begins(future, 1).nonzero()[0]
        sizes = ends[1:] - ends[:-1]
        lives = np.ones(len(future), dtype=bool)
        if (many := sizes > histories).any():
            crowd, sizes = np.repeat(many, sizes).nonzero()[0], sizes[many]
            group = np.repeat(np.arange(len(sizes)), sizes)
            crowd = crowd[np.lexsort((-rank[crowd], group))]
            nth = np.arange(len(crowd)) - (np.cumsum(sizes) - sizes)[group]
            lives[crowd[nth >= histories]] = False
        kept = lives.nonzero()[0]
        if len(kept) > count:
            kept = kept[np.argpartition(-rank[kept], count)[:count]]
        return leader[kept], blank[kept], label[kept]

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


def of_phones(spelled: Names) -> Names | np.uint64:
    """(2, Q) phones of unknown words -> (Q,) a number for each; 0 where there are none. (0, Q) -> 0 for all."""
    if not len(spelled):
        return np.uint64(0)
    number: Names = spelled[0] * np.uint64(0xD6E8FEB86659FD93) ^ spelled[1] * np.uint64(0xC2B2AE3D27D4EB4F)
    return number


def longer(history: Names, word: NDArray[np.int32]) -> Names:
    """A number for the longer sequence of words; two sequences share one with a chance of 2^-64."""
    mixed: Names = (history ^ (word.astype(np.uint64) + np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return mixed
