"""An n-gram language model in one compact file: memory-mapped, scored for many hypotheses at once.

The n-grams form a tree: the children of a context are the words known to follow it, sorted. An
n-gram that is itself a context (something follows it, or it has a back-off weight) has a number;
contexts count from 1, level by level, in the order of their n-grams, and 0 stands for none. A state
holds the numbers of the contexts that the last 1, 2, ... words make. So all orders are looked up in
one bisection, and states are equal where their futures are. For that, what the file says in two bytes
an n-gram becomes a key of eight in memory: to bisect the file itself would take three times as long. Contexts'
numbers and back-offs, too, are laid out in memory: four bytes each for an n-gram below the highest order.

File: MAGIC, the header as JSON, spaces up to HEADER bytes; then the arrays of `Header.layout`.
Probabilities and back-offs are numbers in a codebook of 256, one for each order, or plain float32.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import write_whole
from streamasr.errors import BundleError
from streamasr.strict import StrictError, parse

MAGIC = b"streamasr n-gram\n"
FORMAT = 1
HEADER = 1024  # bytes, so that a model's size is known before it is written
ALIGN = 8
MAX_ORDER = 4
MAX_WORDS = 65_534  # ids are two bytes, and </s> and <s> need one each
MAX_CONTEXTS = (1 << 23) - 1
SHIFTS = np.array([[0], [17], [40]])  # of the contexts of 1, 2 and 3 words in a state
MASKS = np.array([[(1 << 17) - 1], [MAX_CONTEXTS], [MAX_CONTEXTS]])
CODES = 256
BOOKS = CODES * np.arange(1, MAX_ORDER)[:, None]  # where the codebooks of orders 2, 3, ... begin
NOWHERE = 2**62  # behind every array
WORD = 16  # bits of a word in a key

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Header:
    """What the arrays of the file are."""

    format: int
    order: int
    words: int  # <unk> among them, </s> and <s> not
    ngrams: tuple[int, ...]  # of orders 2, 3, ...
    contexts: int
    text_bytes: int
    quantised: bool
    note: str = ""  # where the model came from
    crc32: int = 0  # of everything behind the header

    def layout(self) -> dict[str, tuple[str, int]]:
        """Name -> dtype and length of each array, in the file's order."""
        weight, codes = ("<u1", CODES) if self.quantised else ("<f4", 0)
        return {
            "text": ("<u1", self.text_bytes),  # words but <unk>, sorted, one a line
            "unigram": (weight, self.words + 1),  # probabilities of the words and of </s>
            "inner": ("<u4", self.contexts),  # the n-gram that each context is, sorted; unigrams count first
            "first": ("<u4", self.contexts + 2),  # children of context c: first[c] to first[c + 1]
            "backoff": (weight, self.contexts + 1),
            "child": ("<u2", sum(self.ngrams)),  # the last word of n-grams of orders 2, 3, ...
            "prob": (weight, sum(self.ngrams)),
            "probs": ("<f4", codes * self.order),  # codebooks
            "backoffs": ("<f4", codes * (self.order - 1)),  # number 0 is log 1
        }

    def ends(self) -> NDArray[np.int64]:
        """How many n-grams there are up to each order below the highest, as `inner` counts them."""
        return np.cumsum([self.words + 2, *self.ngrams[:-1]])

    def offsets(self) -> dict[str, int]:
        """Where each array begins in the file; the last entry, "", is its size. All in bytes."""
        place, offsets = HEADER, {}
        for name, (dtype, length) in self.layout().items():
            offsets[name] = place
            place += -(-np.dtype(dtype).itemsize * length // ALIGN) * ALIGN
        return {**offsets, "": place}


@dataclass(frozen=True, eq=False)
class Ngram:
    """A model, open for reading. Logarithms are natural, ids index `words`, 0 is `<unk>`."""

    header: Header
    words: tuple[str, ...]
    alone: Floats  # (words + 1,) log-probability of each word and of </s> without context
    prob: NDArray[Any]  # of n-grams of orders 2, 3, ..., as the file has it: numbers in `probs`, or log-probabilities
    probs: Floats  # codebooks; none where `prob` needs none
    keys: Ints  # of the n-grams of orders 2, 3, ...: context and last word, ascending; and NOWHERE
    contexts: NDArray[np.int32]  # the number of each n-gram below the highest order as a context, 0: it is none; a 0
    backoff: Floats  # (contexts + 1,) log-weight of each context
    start: int  # the state after <s>
    empty: int = 0  # the state without context
    unknown: int = 0

    @classmethod
    def open(cls, path: Path) -> Ngram:
        """Map a file into memory; BundleError says what is wrong with it."""
        header = _read_header(path)
        data = np.memmap(path, dtype=np.uint8, mode="r")
        offsets = header.offsets()
        if len(data) != offsets[""]:
            raise BundleError(f"{path}: {len(data)} bytes, expected {offsets['']}; copy the file again")
        if (found := zlib.crc32(data[HEADER:].data)) != header.crc32:
            raise BundleError(f"{path}: checksum {found:08x}, expected {header.crc32:08x}; copy the file again")
        arrays = {
            name: np.ndarray(length, dtype, data, offsets[name]) for name, (dtype, length) in header.layout().items()
        }
        try:
            words = ("<unk>", *arrays["text"].tobytes().decode("utf-8").split("\n")[: header.words - 1])
        except UnicodeDecodeError as error:
            raise BundleError(f"{path}: its words are not UTF-8; write it again") from error
        if len(words) != header.words:
            raise BundleError(f"{path}: {len(words)} words, expected {header.words}; write it again")
        unigram, prob, backoff = arrays["unigram"], arrays["prob"], arrays["backoff"]
        if header.quantised:
            unigram = arrays["probs"].take(unigram)
        first, inner, ends = arrays["first"].astype(np.int64), arrays["inner"], header.ends()
        children = first[1:] - first[:-1]
        if (children < 0).any() or children.sum() != len(arrays["child"]) or inner.max(initial=0) >= ends[-1]:
            raise BundleError(f"{path}: its contexts do not share its n-grams out; write it again")
        # One more key than n-grams, which is none's, so that whatever is looked up has a place.
        keys = np.full(len(arrays["child"]) + 1, NOWHERE)
        np.bitwise_or(np.repeat(np.arange(len(children)) << WORD, children), arrays["child"], out=keys[:-1])
        if not len(prob):
            prob = np.zeros(1, prob.dtype)
        contexts = np.zeros(ends[-1] + 1, dtype=np.int32)
        contexts[inner] = np.arange(1, len(inner) + 1)
        if header.quantised and len(inner):
            book = np.concatenate([[0], np.searchsorted(ends, inner, side="right")])
            backoff = arrays["backoffs"].take(CODES * book + backoff)
        start = int(contexts[header.words + 1]) if header.order > 1 else 0
        tables = keys, contexts, backoff.astype(np.float32)
        return cls(header, words, unigram.astype(np.float32), prob, arrays["probs"], *tables, start)

    @property
    def checksum(self) -> int:
        """Of the file."""
        return self.header.crc32

    @property
    def unigram(self) -> Floats:
        """(words,) log-probability of each word without context."""
        return self.alone[:-1]

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return self.header.order

    def number(self, word: str) -> int:
        """The id of a word as it is written here, or else in small or in capital letters; 0: not in the vocabulary."""
        for form in dict.fromkeys((word, word.lower(), word.upper())):
            place = bisect_left(self.words, form, lo=1)
            if place < len(self.words) and self.words[place] == form:
                return place
        return self.unknown

    def score(self, states: Ints, words: NDArray[np.int32]) -> tuple[Floats, Ints]:
        """(Q,) states, (Q,) ids of words that follow them -> (Q,) log-probabilities, (Q,) next states."""
        levels = self.order - 1
        score = self.alone.take(words)
        if levels == 0 or len(states) == 0:
            return score, np.zeros_like(states)
        context = (states >> SHIFTS[:levels]) & MASKS[:levels]  # (levels, Q)
        wanted = context << WORD | words
        place = self.keys.searchsorted(wanted)
        found = self.keys.take(place) == wanted
        prob = self.prob.take(place, mode="clip")
        if self.header.quantised:
            prob = self.probs.take(BOOKS[:levels] + prob)
        backoff = self.backoff.take(context, mode="clip")
        for k in range(levels):
            score = np.where(found[k], prob[k], score + backoff[k])
        state = self.contexts.take(words, mode="clip").astype(np.int64)
        for k in range(levels - 1):
            longer = np.where(found[k], place[k] + (self.header.words + 2), NOWHERE)
            state |= self.contexts.take(longer, mode="clip").astype(np.int64) << SHIFTS[k + 1]
        return score, state

    def end(self, states: Ints) -> Floats:
        """(Q,) states -> (Q,) log-probability that the sentence ends there."""
        return self.score(states, np.full(len(states), self.header.words, dtype=np.int32))[0]


def _read_header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            head = file.read(HEADER)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; expected a language model") from error
    if not head.startswith(MAGIC):
        raise BundleError(f"{path}: not a language model of streamasr; make one with streamasr lm")
    if len(head) < HEADER:
        raise BundleError(f"{path}: {len(head)} bytes, expected more than {HEADER}; copy the file again")
    try:
        values = json.loads(head[len(MAGIC) :])
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise BundleError(f"{path}: format {values.get('format')!r}, this version of streamasr reads {FORMAT}")
        header = parse(Header, values, str(path))
    except StrictError as error:
        raise BundleError(str(error)) from error
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path}: its header is damaged; copy the file again") from error
    counts = (header.words, header.contexts + 1, header.text_bytes + 1, *(count + 1 for count in header.ngrams))
    if not 1 <= header.order <= MAX_ORDER or len(header.ngrams) != header.order - 1 or min(counts) < 1:
        raise BundleError(f"{path}: its header holds sizes that cannot be; copy the file again")
    return header


def write_arrays(path: Path, header: Header, arrays: Arrays) -> None:
    """Write what `Ngram.open` reads, whole or not at all."""
    body = bytearray(header.offsets()[""] - HEADER)
    for name, offset in header.offsets().items():
        if name:
            dtype, length = header.layout()[name]
            assert len(arrays[name]) == length, f"{name}: {len(arrays[name])} entries, the header says {length}"
            packed = arrays[name].astype(dtype).tobytes()
            body[offset - HEADER : offset - HEADER + len(packed)] = packed
    head = MAGIC + json.dumps(asdict(replace(header, crc32=zlib.crc32(body)))).encode()
    if len(head) > HEADER:
        raise BundleError(f"{path}: the note of {len(header.note)} letters is too long; shorten it")
    write_whole(path, head.ljust(HEADER) + body)
