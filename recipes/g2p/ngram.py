"""An n-gram over units: interpolated Kneser-Ney with three discounts an order, pruned, as a tree for the run time.

Kneser-Ney in the modified form of Chen and Goodman (1999). Token 0 is the edge of a word. An n-gram
that pruning keeps has its suffix and its prefix kept too: what the run time relies on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """All n-grams of one length, sorted by parent, then token; arrays (n-grams,)."""

    parent: Integers  # place of the n-gram without its last token, one level up
    suffix: Integers  # place of the n-gram without its first token, one level up
    token: Integers
    seen: Integers  # how often its last token followed in the text
    anchored: NDArray[np.bool_]  # begins at the edge of a word: nothing can stand before it


@dataclass(frozen=True)
class Weights:
    """Probabilities of a level's n-grams; arrays (n-grams,)."""

    log_prob: Floats  # of the last token, given those before
    log_backoff: Floats  # as a context: what the probability without its first token is multiplied with


def count(words: list[list[int]], order: int, vocabulary: int) -> list[Level]:
    """The n-grams of lengths 1..order in words that are tokens from 1."""
    tokens = np.array([token for word in words for token in (0, *word, 0)])
    depth = np.concatenate([np.arange(len(word) + 2) for word in words])  # how many tokens of its word stand before it
    place = tokens.copy()  # of the n-gram that ends at a token
    levels = [
        Level(
            parent=np.zeros(vocabulary, dtype=np.int64),
            suffix=np.zeros(vocabulary, dtype=np.int64),
            token=np.arange(vocabulary),
            seen=np.bincount(tokens[depth > 0], minlength=vocabulary),
            anchored=np.zeros(vocabulary, dtype=np.bool_),
        )
    ]
    for n in range(2, order + 1):
        ends = np.flatnonzero(depth >= n - 1)
        keys, first, of_end, seen = np.unique(
            place[ends - 1] * vocabulary + tokens[ends], return_index=True, return_inverse=True, return_counts=True
        )
        levels.append(
            Level(
                parent=keys // vocabulary,
                suffix=place[ends[first]],
                token=keys % vocabulary,
                seen=seen,
                anchored=depth[ends[first]] == n - 1,
            )
        )
        longer = np.zeros_like(place)
        longer[ends] = of_end
        place = longer
    return levels


def kneser_ney(levels: list[Level]) -> list[Weights]:
    """Interpolated probabilities of all n-grams, and the weight of each as a context."""
    weights: list[Weights] = []
    backoff = np.zeros(1)  # of the empty context
    parent_prob = np.zeros(0)
    for n, level in enumerate(levels):
        counts = level.seen
        if n + 1 < len(levels):  # how many tokens stand before it, rather than how often
            before = np.bincount(levels[n + 1].suffix, minlength=len(level.token))
            counts = np.where(level.anchored, level.seen, before)
        discount = discounts(counts)[np.minimum(counts, 3)]
        contexts = len(weights[-1].log_prob) if weights else 1
        total = np.maximum(np.bincount(level.parent, counts, minlength=contexts), 1e-300)
        held_back = np.bincount(level.parent, discount, minlength=contexts) / total
        shorter = parent_prob[level.suffix] if weights else np.full(len(counts), 1.0 / len(counts))
        prob = (counts - discount) / total[level.parent] + held_back[level.parent] * shorter
        if weights:
            backoff = np.log(np.where(held_back > 0.0, held_back, 1.0))
            weights[-1] = Weights(weights[-1].log_prob, backoff)
        weights.append(Weights(np.log(np.maximum(prob, 1e-300)), np.zeros(len(counts))))
        parent_prob = prob
    return weights


def discounts(counts: Integers) -> Floats:
    """What is taken off a count of 0, 1, 2, and 3 or more: equation 26 of Chen and Goodman (1999)."""
    n1, n2, n3, n4 = (max(int((counts == n).sum()), 1) for n in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    clipped: Floats = np.clip(
        found, [0.0, 0.1, 0.1, 0.1], [0.0, 0.95, 1.9, 2.8]
    )  # a toy's counts give nonsense otherwise
    return clipped


def prune(levels: list[Level], weights: list[Weights], threshold: float) -> list[NDArray[np.bool_]]:
    """Which n-grams stay: those whose loss would cost the text more than `threshold` nats, and what these stand on."""
    keep = [np.ones(len(level.token), dtype=np.bool_) for level in levels]
    needed = np.zeros(len(levels[-1].token), dtype=np.bool_)
    for n in reversed(range(1, len(levels))):
        level, above = levels[n], weights[n - 1]
        without = above.log_backoff[level.parent] + above.log_prob[level.suffix]
        keep[n] = needed | (level.seen * (weights[n].log_prob - without) > threshold)
        needed = np.zeros(len(levels[n - 1].token), dtype=np.bool_)
        needed[level.parent[keep[n]]] = True
        needed[level.suffix[keep[n]]] = True
    return keep


def shrink(
    levels: list[Level], weights: list[Weights], keep: list[NDArray[np.bool_]]
) -> tuple[list[Level], list[Weights]]:
    """Only what is kept, the weights of contexts set so that probabilities sum to one again."""
    small: list[Level] = []
    light: list[Weights] = []
    renumber = np.zeros(1, dtype=np.int64)  # places one level up, old -> new
    for level, weight, kept in zip(levels, weights, keep, strict=True):
        one = Level(
            parent=renumber[level.parent[kept]],
            suffix=renumber[level.suffix[kept]],
            token=level.token[kept],
            seen=level.seen[kept],
            anchored=level.anchored[kept],
        )
        prob = np.exp(weight.log_prob[kept])
        if small:
            contexts = len(small[-1].token)
            left = 1.0 - np.bincount(one.parent, prob, minlength=contexts)
            shorter = 1.0 - np.bincount(one.parent, np.exp(light[-1].log_prob)[one.suffix], minlength=contexts)
            backoff = np.log(np.maximum(left, 1e-4) / np.maximum(shorter, 1e-4))
            light[-1] = Weights(
                light[-1].log_prob, np.where(np.bincount(one.parent, minlength=contexts) > 0, backoff, 0.0)
            )
        small.append(one)
        light.append(Weights(weight.log_prob[kept], np.zeros(len(prob))))
        renumber = np.cumsum(kept) - 1
    return small, light
