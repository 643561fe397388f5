"""Words of no list: any phones in any order, beside the tree of words, written as they sound when they are shown.

A filler for unknown words (Bazzi and Glass 2000, "Modeling out-of-vocabulary words for robust speech recognition").
How probable phones are after one another is learnt from the lexicon's words: a trigram, smoothed after Witten and Bell.
A hypothesis holds the phones of its open word as two numbers of 60 bits, the last ten phones in the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.spellings import MAX_TOKENS, Spellings

BITS = 6  # of a phone: MAX_TOKENS are fewer than 2^6
TEN = 10 * BITS
FEWEST, MOST = 3, 20  # phones of an unknown word
# Log-probability on top of what the models say. Each of the first phones gets its share: given all at once, it would
# fill the beam with words that have hardly begun, and given for all phones, it would make one word of many.
REWARD, REWARDED = 6.0, 6
MARK = "<>"  # around the phones of a word that is not written yet

Names = NDArray[np.uint64]
Floats = NDArray[np.float64]


class Unknown:
    """What a beam search needs to hear unknown words, and what they are called."""

    def __init__(
        self,
        tokens: Sequence[str],
        spellings: Spellings,
        write: Callable[[tuple[str, ...]], Sequence[str]],
        weight: float,
        reward: float = REWARD,
    ) -> None:
        """spellings: of known words. write: phones -> ways to write them. weight: of the phones' log-probabilities.

        reward: log-probability on top, which a word of REWARDED phones gets whole.
        """
        self.tokens = tuple(tokens)
        self._write = lru_cache(1000)(write)  # asked again with every frame
        self._reward = reward / REWARDED
        self._worth = weight * trigram(spellings).ravel()

    def grow(self, spelled: Names, token: NDArray[np.integer], inside: NDArray[np.bool_]) -> tuple[Names, Floats]:
        """(2, Q) phones, (Q,) one more, whether it is an unknown word's -> (2, Q) longer phones, (Q,) what it costs."""
        reward = np.where(spelled[0] < 1 << BITS * (REWARDED - 1), self._reward, 0.0)
        worth = np.where(inside, self._worth[_context(spelled) + token] + reward, 0.0)
        worth[spelled[1] >> np.uint64(TEN - BITS) > 0] = -np.inf  # there is no place for more
        return np.where(inside, _longer(spelled, token.astype(np.uint64)), spelled), worth

    def end(self, spelled: Names) -> Floats:
        """(2, Q) phones -> (Q,) what it costs that the word ends with them; 0 where there are none."""
        worth = np.where(spelled[0] > 0, self._worth[_context(spelled)], 0.0)
        return np.where((spelled[0] > 0) & (spelled[0] < 1 << BITS * (FEWEST - 1)), -np.inf, worth)

    def name(self, spelled: Names, last: int) -> str:
        """What stands for the word until it is shown, of the phones before its last one, and that: "<K.AA.T>"."""
        low, high = _longer(spelled[:, None], np.array([last], dtype=np.uint64))[:, 0].tolist()
        places = [(high << TEN | low) >> BITS * i & MAX_TOKENS - 1 for i in reversed(range(MOST))]
        return MARK[0] + ".".join(self.tokens[place] for place in places if place) + MARK[1]

    def write(self, text: str) -> str:
        """Words, each unknown one of them in letters instead of phones."""
        return " ".join(self._letters(word) if word.startswith(MARK[0]) else word for word in text.split(" "))

    def _letters(self, name: str) -> str:
        phones = tuple(name.strip(MARK).split("."))
        return next(iter(self._write(phones)), "".join(phones).lower())


def trigram(spellings: Spellings) -> Floats:
    """(two phones before, the phone): log-probabilities. Phone 0: the edge of a word; so is what precedes its first."""
    edged = np.pad(spellings.table.astype(np.int64), ((0, 0), (2, 1)))
    inside = np.arange(edged.shape[1] - 2) <= spellings.lengths[:, None]
    size = 1 << BITS
    codes = (edged[:, :-2] * size + edged[:, 1:-1]) * size + edged[:, 2:]
    counts = np.bincount(codes[inside], minlength=size**3).reshape(size, size, size).astype(np.float64)
    known = counts.sum((0, 1)) > 0
    probability = np.where(known, 1 / known.sum(), 0.0)
    for level in (counts.sum((0, 1)), counts.sum(0), counts):
        kinds = np.maximum(np.count_nonzero(level, axis=-1)[..., None], 1)  # 1: what was never seen says nothing
        probability = (level + kinds * probability) / (level.sum(-1, keepdims=True) + kinds)
    with np.errstate(divide="ignore"):
        return np.log(probability).reshape(size * size, size)


def _context(spelled: Names) -> NDArray[np.int64]:
    context: NDArray[np.int64] = (spelled[0] & np.uint64((1 << 2 * BITS) - 1)).astype(np.int64) << BITS
    return context


def _longer(spelled: Names, token: Names) -> Names:
    low = (spelled[0] << np.uint64(BITS) | token) & np.uint64((1 << TEN) - 1)
    return np.stack([low, spelled[1] << np.uint64(BITS) | spelled[0] >> np.uint64(TEN - BITS)])
