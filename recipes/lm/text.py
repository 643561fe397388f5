"""Text as word ids. Ids are those of streamasr.decoding.arpa: <unk> 0, words sorted, then </s> and <s>."""

from __future__ import annotations

import lzma
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.backoff import Numbering

CORPORA = (  # name, file, weight of its words when the vocabulary is chosen
    ("transcripts", "librispeech-train-transcripts.txt.xz", 2),
    ("books", "books.txt.xz", 1),
)
WORD = re.compile(r"[a-z']*[a-z][a-z']*")

Ids = NDArray[np.uint16]


class Vocabulary(Numbering):
    """The words that the model knows."""

    def encode(self, lines: Iterable[str]) -> Ids:
        """Sentences one after the other, each between <s> and </s>."""
        ids = {word: i for i, word in enumerate(self.words)}
        stream = array("H")
        for line in lines:
            if words := line.split():
                stream.append(self.start)
                stream.extend([ids.get(word, 0) for word in words])
                stream.append(self.end)
        return np.array(stream, dtype=np.uint16)


def read_lines(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        yield from file


def choose_vocabulary(shared: Path, count: int) -> Vocabulary:
    """The most frequent words, and <unk>."""
    frequency: Counter[str] = Counter()
    for _, name, weight in CORPORA:
        words: Counter[str] = Counter()
        for line in read_lines(shared / "text" / name):
            words.update(line.split())
        for word, seen in words.items():
            frequency[word] += weight * seen
    known = sorted((word for word in frequency if WORD.fullmatch(word)), key=lambda word: (-frequency[word], word))
    return Vocabulary(("<unk>", *sorted(known[:count])))
