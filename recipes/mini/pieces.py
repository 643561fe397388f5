"""Word pieces: strings of letters that are written often (byte-pair encoding, Sennrich, Haddow and Birch 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise


def word_pieces(texts: Iterable[str], count: int) -> list[str]:
    """So many pieces of two letters or more, within words, the first ones merged first. Of equally frequent ones, the
    first in the alphabet."""
    words = {tuple(word): n for word, n in Counter(word for text in texts for word in text.split()).items()}
    pieces: list[str] = []
    while len(pieces) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, n in words.items():
            for pair in pairwise(parts):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if "".join(best) not in pieces:
            pieces.append("".join(best))
        words = {_merged(parts, best): n for parts, n in words.items()}
    return pieces


def _merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    made: list[str] = []
    for part in parts:
        if made and (made[-1], part) == pair:
            made[-1] += part
        else:
            made.append(part)
    return tuple(made)
