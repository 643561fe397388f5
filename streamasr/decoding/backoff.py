"""A back-off n-gram model in memory, while it is made: all n-grams, sorted, in full precision.

Ids are those of the packed file: 0 is `<unk>`, the words follow sorted, then come `</s>` and `<s>`.
An n-gram is one uint64 with 16 bits a word, the last word lowest; so `key >> 16` is its context, and
sorted keys keep the children of a context together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.ngram import FORMAT, Header

BITS = np.uint64(16)

Keys = NDArray[np.uint64]
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """All n-grams of one order, sorted by key. Natural logarithms."""

    keys: Keys
    log_prob: Weights
    backoff: Weights  # zeros at the highest order


@dataclass(frozen=True)
class Numbering:
    """The ids of words: `<unk>` is 0, the others follow sorted, then come `</s>` and `<s>`."""

    words: tuple[str, ...]

    @property
    def end(self) -> int:
        """The id of </s>."""
        return len(self.words)

    @property
    def start(self) -> int:
        """The id of <s>."""
        return len(self.words) + 1


@dataclass(frozen=True)
class Arpa(Numbering):
    """A back-off model. `levels[0]` holds every word, `</s>` and `<s>`, so there key = place."""

    levels: tuple[Level, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """n-grams of each order."""
        return tuple(len(level.keys) for level in self.levels)


def find(keys: Keys, wanted: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places of keys in sorted keys, and whether they are there; places are valid indices either way."""
    if len(keys) == 0:
        return np.zeros(wanted.shape, dtype=np.int64), np.zeros(wanted.shape, dtype=np.bool_)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted


def log_probs(levels: tuple[Level, ...], keys: Keys, order: int) -> Weights:
    """log p(last word | the words before) of n-grams of an order, known or not."""
    if order == 1:
        return levels[0].log_prob[keys.astype(np.int64)]
    if order > len(levels):
        return log_probs(levels, suffix(keys, order), order - 1)
    place, found = find(levels[order - 1].keys, keys)
    result = np.where(found, levels[order - 1].log_prob[place] if len(levels[order - 1].keys) else 0.0, 0.0)
    missing = np.flatnonzero(~found)
    if len(missing):
        context, known = find(levels[order - 2].keys, keys[missing] >> BITS)
        backoff = np.where(known, levels[order - 2].backoff[context], 0.0) if len(levels[order - 2].keys) else 0.0
        result[missing] = backoff + log_probs(levels, suffix(keys[missing], order), order - 1)
    return result


def suffix(keys: Keys, order: int) -> Keys:
    """n-grams without their first word."""
    return keys & np.uint64((1 << 16 * (order - 1)) - 1)


def describe(arpa: Arpa, quantise: bool = True, note: str = "") -> Header:
    """The header of the file that a model makes, and so its exact size: `describe(...).offsets()[""]`."""
    contexts = sum(len(places) for places in inner(arpa))
    text_bytes = sum(len(word.encode()) + 1 for word in arpa.words[1:])
    return Header(FORMAT, len(arpa.levels), len(arpa.words), arpa.counts[1:], contexts, text_bytes, quantise, note)


def inner(arpa: Arpa) -> list[NDArray[np.int64]]:
    """Of each level but the last, the places of n-grams that are contexts: continued, or with a back-off weight."""
    places = []
    for level, above in zip(arpa.levels, arpa.levels[1:], strict=False):
        continued = find(level.keys, np.unique(above.keys >> BITS))[0]
        mask = level.backoff != 0.0
        mask[continued] = True
        places.append(np.flatnonzero(mask))
    return places
