"""Drop the n-grams of a back-off model that lose least, until its file is small enough."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.backoff import BITS, Arpa, Level, Weights, describe, find, log_probs, suffix
from streamasr.errors import BundleError

STEP = 0.5  # a pruning round keeps at least so much of the size: losses are estimated for one n-gram at a time
TINY = 1e-12


def prune(arpa: Arpa, max_bytes: int, *, quantise: bool = True, history: tuple[Weights, ...] | None = None) -> Arpa:
    """A model whose file is at most `max_bytes` large; the same one where it is already.

    An n-gram's loss is the relative entropy between the models with and without it, the context's
    back-off weight adapted (Stolcke 1998, "Entropy-based pruning of backoff language models", eq. 4
    to 9), times the probability of its context. `history[k]` gives that for each n-gram of order
    k + 1; without it the model is asked, which Kneser-Ney models answer badly (Chelba et al. 2010).
    """
    nothing = _keep(arpa, [np.zeros(count, dtype=np.bool_) for count in arpa.counts[1:]])[0]
    if describe(nothing, quantise).offsets()[""] > max_bytes:
        raise BundleError(f"{max_bytes} bytes cannot hold the {len(arpa.words)} words alone; allow more")
    while (size := describe(arpa, quantise).offsets()[""]) > max_bytes:
        weights = history if history is not None else _history(arpa)
        losses = _losses(arpa, weights)
        arpa, kept = _shrink(arpa, losses, max(max_bytes, int(STEP * size)), quantise)
        if history is not None:
            history = tuple(values[mask] for values, mask in zip(history, kept, strict=False))
    return arpa


def _history(arpa: Arpa) -> tuple[Weights, ...]:
    """Probability of each n-gram's words in a row, as the model has it; a sentence begins as often as one ends."""
    weights = [np.exp(arpa.levels[0].log_prob)]
    weights[0][arpa.start] = weights[0][arpa.end]
    for lower, level in zip(arpa.levels, arpa.levels[1:], strict=False):
        weights.append(weights[-1][find(lower.keys, level.keys >> BITS)[0]] * np.exp(level.log_prob))
    return tuple(weights)


def _losses(arpa: Arpa, history: tuple[Weights, ...]) -> list[Weights]:
    """What dropping each n-gram of orders 2, 3, ... costs, in nats a word of text."""
    losses = []
    for order in range(2, len(arpa.levels) + 1):
        level, lower = arpa.levels[order - 1], arpa.levels[order - 2]
        context = find(lower.keys, level.keys >> BITS)[0]
        shorter = log_probs(arpa.levels, suffix(level.keys, order), order - 1)
        p, p_shorter = np.exp(level.log_prob), np.exp(shorter)
        unseen, unseen_shorter = _unseen(context, p, p_shorter, len(lower.keys))
        log_alpha = (np.log(unseen) - np.log(unseen_shorter))[context]
        unseen = unseen[context]
        new_log_alpha = np.log(unseen + p) - np.log(unseen_shorter[context] + p_shorter)
        change = p * (shorter + new_log_alpha - level.log_prob) + unseen * (new_log_alpha - log_alpha)
        losses.append(np.maximum(-change, 0.0) * history[order - 2][context])
    return losses


def _unseen(context: NDArray[np.int64], p: Weights, p_shorter: Weights, contexts: int) -> tuple[Weights, Weights]:
    """Probability left, in each context, for words that are not its children: by itself, and by the shorter one."""
    left = 1.0 - np.bincount(context, p, contexts), 1.0 - np.bincount(context, p_shorter, contexts)
    return np.maximum(left[0], TINY), np.maximum(left[1], TINY)


def _shrink(arpa: Arpa, losses: list[Weights], max_bytes: int, quantise: bool) -> tuple[Arpa, list[NDArray[np.bool_]]]:
    """Drop the least losses until the size fits; also which n-grams of each order were kept."""
    losses, best = list(losses), []  # best: the greatest loss among those that follow an n-gram
    for order in range(len(losses), 0, -1):
        context = find(arpa.levels[order - 1].keys, arpa.levels[order].keys >> BITS)[0]
        following = np.full(len(arpa.levels[order - 1].keys), -1.0)
        np.maximum.at(following, context, losses[order - 1])
        best.append(np.sort(following))
        if order > 1:  # a context is worth as much as the best that follows it
            losses[order - 2] = np.maximum(losses[order - 2], following)
    ranked = [np.sort(values) for values in losses]
    thresholds = np.concatenate(ranked)
    thresholds.sort()
    header = describe(arpa, quantise)

    def fits(place: int) -> bool:
        ngrams, contexts = (
            [len(values) - int(np.searchsorted(values, thresholds[place], "right")) for values in kind]
            for kind in (ranked, best)
        )
        return replace(header, ngrams=tuple(ngrams), contexts=sum(contexts)).offsets()[""] <= max_bytes

    place = bisect_left(range(len(thresholds)), True, key=fits)
    arpa, kept = _keep(arpa, [values > thresholds[place] for values in losses])
    return renormalise(arpa), kept


def _keep(arpa: Arpa, masks: list[NDArray[np.bool_]]) -> tuple[Arpa, list[NDArray[np.bool_]]]:
    """The n-grams of orders 2, 3, ... that masks choose; back-off weights only where something follows."""
    kept = [np.ones(len(arpa.levels[0].keys), dtype=np.bool_), *masks]
    levels = [
        Level(level.keys[mask], level.log_prob[mask], level.backoff[mask])
        for level, mask in zip(arpa.levels, kept, strict=True)
    ]
    for k, above in enumerate(levels[1:]):
        continued = np.zeros(len(levels[k].keys), dtype=np.bool_)
        continued[find(levels[k].keys, np.unique(above.keys >> BITS))[0]] = True
        levels[k] = replace(levels[k], backoff=np.where(continued, levels[k].backoff, 0.0))
    return Arpa(arpa.words, tuple(levels)), kept


def renormalise(arpa: Arpa) -> Arpa:
    """The same n-grams, with the back-off weights that make every context's probabilities sum to one."""
    levels = list(arpa.levels)
    for order in range(2, len(levels) + 1):
        level, lower = levels[order - 1], levels[order - 2]
        context = find(lower.keys, level.keys >> BITS)[0]
        shorter = np.exp(log_probs(tuple(levels), suffix(level.keys, order), order - 1))
        unseen, unseen_shorter = _unseen(context, np.exp(level.log_prob), shorter, len(lower.keys))
        continued = np.bincount(context, minlength=len(lower.keys)) > 0
        weight = np.where(continued, np.log(unseen) - np.log(unseen_shorter), 0.0)
        levels[order - 2] = replace(lower, backoff=weight)
    return Arpa(arpa.words, tuple(levels))
