"""Kneser-Ney n-grams from word ids, by sorting: 28 million words take a minute and 4 GB, in numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recipes.lm.text import Ids, Vocabulary
from streamasr.decoding.arpa import NEVER
from streamasr.decoding.backoff import BITS, Arpa, Keys, Level, Weights, find, log_probs, suffix
from streamasr.decoding.prune import prune, renormalise


@dataclass(frozen=True)
class Estimate:
    """A model, and how often the words of each n-gram but the longest were seen in a row, of all words."""

    arpa: Arpa
    history: tuple[Weights, ...]


def grams(stream: Ids, order: int, start: int, initial: bool) -> Keys:
    """All n-grams of a stream as keys; `initial`: only those that begin with <s>, else at whatever place."""
    size = len(stream) - order + 1
    keys, valid = np.zeros(size, dtype=np.uint64), np.ones(size, dtype=np.bool_)
    for k in range(order):
        ids = stream[k : k + size]
        keys = (keys << BITS) | ids
        valid &= (ids != start) if k else (ids == start) | (not initial)
    return np.asarray(keys[valid])


def kneser_ney(stream: Ids, vocabulary: Vocabulary, order: int = 3) -> Estimate:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1998), written with back-off weights.

    N-grams with <unk> are counted, so that its share is known, and then left out.
    """
    counts = [np.unique(grams(stream, order, vocabulary.start, False), return_counts=True)]
    while len(counts) < order:
        n = order - len(counts)
        # A shorter n-gram counts as often as different words stand before it, but for <s>, where nothing does.
        keys, count = np.unique(suffix(counts[0][0], n + 1), return_counts=True)
        if n > 1:
            first, often = np.unique(grams(stream, n, vocabulary.start, True), return_counts=True)
            keys, count = np.concatenate([keys, first]), np.concatenate([count, often])
            ranked = np.argsort(keys)
            keys, count = keys[ranked], count[ranked]
        counts.insert(0, (keys, count))
    size = len(vocabulary.words) + 2
    unigrams = np.zeros(size, dtype=np.int64)
    unigrams[counts[0][0].astype(np.int64)] = counts[0][1]
    ids = np.arange(size, dtype=np.uint64)
    prob, share = _discounted(np.zeros(size, dtype=np.int64), unigrams, 1)
    log_prob = np.log(prob + share[0] / (size - 1))
    log_prob[vocabulary.start] = NEVER
    levels = [Level(ids, log_prob, np.zeros(size))]
    history = [np.bincount(stream, minlength=size) / len(stream)]
    for n in range(2, order + 1):
        keys, count = counts[n - 1]
        lower = levels[-1]
        context = find(lower.keys, keys >> BITS)[0]
        prob, share = _discounted(context, count, len(lower.keys))
        log_prob = np.log(prob + share[context] * np.exp(log_probs(tuple(levels), suffix(keys, n), n - 1)))
        levels[-1] = replace(lower, backoff=np.log(np.where(share > 0.0, share, 1.0)))
        levels.append(Level(keys, log_prob, np.zeros(len(keys))))
        if n < order:
            seen, often = np.unique(grams(stream, n, vocabulary.start, False), return_counts=True)
            history.append(often[find(seen, keys)[0]] / len(stream))
    return _without_unknown(Estimate(Arpa(vocabulary.words, tuple(levels)), tuple(history)))


def _discounted(context: NDArray[np.int64], count: NDArray[np.int64], contexts: int) -> tuple[Weights, Weights]:
    """Discounted relative frequencies of n-grams, and what each context has left for the lower order."""
    of_count = np.bincount(np.minimum(count, 5), minlength=5).astype(np.float64)  # of_count[c]: n-grams seen c times
    once, twice, thrice, four = np.maximum(of_count[1:5], 1.0)
    y = once / (once + 2.0 * twice)
    discount = np.array([0.0, 1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four / thrice])
    taken = np.clip(discount, 0.0, [0.0, 0.9, 1.8, 2.7])[np.minimum(count, 3)]
    total = np.bincount(context, count, contexts)
    share = np.bincount(context, taken, contexts) / np.maximum(total, 1.0)
    return (count - taken) / np.maximum(total[context], 1.0), share


def _without_unknown(estimate: Estimate) -> Estimate:
    """Only unigrams keep <unk>: nobody says it, so nothing is learnt from what stands beside it."""
    levels, history = list(estimate.arpa.levels), list(estimate.history)
    for n, level in enumerate(levels[1:], 2):
        known = np.ones(len(level.keys), dtype=np.bool_)
        for k in range(n):
            known &= (level.keys >> np.uint64(16 * k)) & np.uint64(0xFFFF) != 0
        levels[n - 1] = Level(level.keys[known], level.log_prob[known], level.backoff[known])
        if n <= len(history):
            history[n - 1] = history[n - 1][known]
    return Estimate(renormalise(Arpa(estimate.arpa.words, tuple(levels))), tuple(history))


def mix(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Linear interpolation as one model: exact for every n-gram that one of them knows."""
    parts = [estimate.arpa for estimate in estimates]
    levels, history = [], []
    for n in range(1, len(parts[0].levels) + 1):
        keys = np.unique(np.concatenate([part.levels[n - 1].keys for part in parts]))
        prob = sum(w * np.exp(log_probs(p.levels, keys, n)) for w, p in zip(weights, parts, strict=True))
        levels.append(Level(keys, np.log(np.maximum(prob, np.exp(NEVER))), np.zeros(len(keys))))
        if n < len(parts[0].levels):
            seen = np.zeros(len(keys))
            for w, estimate in zip(weights, estimates, strict=True):
                seen[find(keys, estimate.arpa.levels[n - 1].keys)[0]] += w * estimate.history[n - 1]
            history.append(seen)
    return Estimate(renormalise(Arpa(parts[0].words, tuple(levels))), tuple(history))


def pruned(estimate: Estimate, max_bytes: int) -> Estimate:
    """As streamasr.decoding.prune has it, with the true counts of contexts."""
    arpa = prune(estimate.arpa, max_bytes, history=estimate.history)
    history = [
        seen[find(old.keys, new.keys)[0]]
        for seen, old, new in zip(estimate.history, estimate.arpa.levels, arpa.levels, strict=False)
    ]
    return Estimate(arpa, tuple(history))


def word_log_probs(arpa: Arpa, stream: Ids) -> Weights:
    """Log-probability of every known word and sentence end of a stream, one after the other."""
    ids = stream.astype(np.uint64)
    order = len(arpa.levels)
    result = np.zeros(len(ids))
    keys = ids.copy()
    context = np.zeros(len(ids), dtype=np.int64)  # words before, up to order - 1, within the sentence
    inside = ids != arpa.start
    reach = inside
    for k in range(1, order):
        context += reach
        earlier = np.roll(ids, k)
        keys |= np.where(reach, earlier << np.uint64(16 * k), np.uint64(0))
        reach = reach & (earlier != arpa.start)
    for n in range(1, order + 1):
        chosen = inside & (context == n - 1)
        result[chosen] = log_probs(arpa.levels, keys[chosen], n)
    return np.asarray(result[inside & (ids != 0)])
