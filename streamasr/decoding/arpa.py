"""n-gram models as others write them (ARPA), read strictly, and packed for the run time."""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.backoff import BITS, Arpa, Keys, Level, Weights, describe, find, inner
from streamasr.decoding.ngram import CODES, MAX_CONTEXTS, MAX_ORDER, MAX_WORDS, write_arrays
from streamasr.decoding.prune import prune
from streamasr.errors import BundleError

LN10 = math.log(10.0)
NEVER = -100.0 * LN10  # probability of <unk> where a model does not give it, as KenLM has it


def read_arpa(path: Path) -> Arpa:
    """Read an ARPA file, plain, .gz or .xz; BundleError names the line that is not as it should be."""
    try:
        with _open(path) as file:
            return _Reader(path, enumerate(file, 1)).read()
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: not UTF-8; expected an ARPA language model") from error
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise BundleError(f"{path}: cannot be unpacked ({error}); copy the file again") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


class _Reader:
    """Goes through the lines once."""

    def __init__(self, path: Path, lines: Iterator[tuple[int, str]]) -> None:
        self.path = path
        self.lines = lines
        self.number = 0
        self.ids: dict[str, int] = {}  # in the file's order, until all are known
        self.places = np.zeros(0, dtype=np.int64)  # lines of the n-grams that were read last

    def fail(self, what: str, number: int | None = None) -> BundleError:
        return BundleError(f"{self.path}, line {self.number if number is None else number}: {what}")

    def next(self) -> str:
        """The next line that is not empty; "" at the end of the file."""
        for number, line in self.lines:
            if text := line.strip():
                self.number = number
                return text
        return ""

    def read(self) -> Arpa:
        while (line := self.next()) != "\\data\\":
            if not line:
                raise BundleError(f"{self.path}: has no line \\data\\; expected an ARPA language model")
        counts: list[int] = []
        while (line := self.next()).startswith("ngram "):
            number, _, announced = line[6:].replace(" ", "").partition("=")
            if number != str(len(counts) + 1) or not announced.isdecimal() or len(announced) > 9:
                raise self.fail(f"expected 'ngram {len(counts) + 1}=COUNT', got {line!r:.60}")
            counts.append(int(announced))
        if not 1 <= len(counts) <= MAX_ORDER:
            raise self.fail(f"n-grams up to order {len(counts)}, expected 1 to {MAX_ORDER}")
        words: tuple[str, ...] = ()
        levels: list[Level] = []
        for order, count in enumerate(counts, 1):
            if line != f"\\{order}-grams:":
                raise self.fail(f"expected \\{order}-grams:, got {line!r:.60}")
            keys, log_prob, backoff, line = self.section(order, count, order == len(counts))
            if order == 1:
                words, keys, log_prob, backoff = self.vocabulary(log_prob, backoff)
                levels.append(Level(keys, log_prob, backoff))
            else:
                levels.append(self.level(levels[-1], keys, log_prob, backoff))
        if line != "\\end\\":
            raise self.fail(f"expected \\end\\, got {line!r:.60}" if line else "the file ends before \\end\\")
        return Arpa(words, tuple(levels))

    def section(self, order: int, count: int, highest: bool) -> tuple[Keys, Weights, Weights, str]:
        """The n-grams of one order in the file's order, and the line after them."""
        keys = np.zeros(count, dtype=np.uint64)
        log_prob, backoff = np.zeros(count), np.zeros(count)
        ids, self.places = self.ids, np.zeros(count, dtype=np.int64)
        place, line = 0, ""
        for number, line in self.lines:
            self.number = number
            fields = line.split()
            if not fields:
                continue
            if fields[0][0] == "\\":
                break
            if place == count:
                raise self.fail(f"more than the {count} {order}-grams that \\data\\ announces")
            try:
                prob = float(fields[0])
                weight = float(fields[order + 1]) if len(fields) == order + 2 and not highest else 0.0
            except ValueError:
                prob = math.nan
            if not (len(fields) == order + 1 or (len(fields) == order + 2 and not highest)) or not (
                prob <= 0.0 and math.isfinite(weight)
            ):
                expected = "" if highest else " and maybe a back-off"
                raise self.fail(f"expected log10 probability, {order} words{expected}, got {line.strip()!r:.60}")
            spoken = ["<unk>" if word == "<UNK>" else word for word in fields[1 : order + 1]]
            if order == 1:
                if ids.setdefault(spoken[0], place) != place:
                    raise self.fail(f"the word '{fields[1]}' for the second time")
            else:
                key = 0
                for word in spoken:
                    if word not in ids:
                        raise self.fail(f"'{word}' is not among the 1-grams")
                    key = key << 16 | ids[word]
                keys[place] = key
            log_prob[place], backoff[place], self.places[place] = prob, weight, number
            place += 1
        else:
            line = ""
        if place != count:
            raise self.fail(f"{place} {order}-grams, \\data\\ announces {count}")
        return keys, LN10 * log_prob, LN10 * backoff, line.strip()

    def vocabulary(self, log_prob: Weights, backoff: Weights) -> tuple[tuple[str, ...], Keys, Weights, Weights]:
        """Number the words anew: the unigrams in the order of their ids."""
        for mark in ("<s>", "</s>"):
            if mark not in self.ids:
                raise self.fail(f"the 1-grams lack {mark}; estimate the model with sentence marks")
        words = ("<unk>", *sorted(self.ids.keys() - {"<unk>", "<s>", "</s>"}))
        if len(words) > MAX_WORDS:
            raise self.fail(f"{len(words)} words, expected at most {MAX_WORDS}; estimate with a smaller vocabulary")
        places = [self.ids.get(word, len(log_prob)) for word in (*words, "</s>", "<s>")]
        self.ids = {word: i for i, word in enumerate((*words, "</s>", "<s>"))}
        log_prob = np.append(np.maximum(log_prob, NEVER), NEVER)[places]
        return words, np.arange(len(places), dtype=np.uint64), log_prob, np.append(backoff, 0.0)[places]

    def level(self, lower: Level, keys: Keys, log_prob: Weights, backoff: Weights) -> Level:
        """Sort, and look for what must not be: doubles, and n-grams whose context is unknown."""
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        double = np.flatnonzero(keys[1:] == keys[:-1])
        orphan = np.flatnonzero(~find(lower.keys, keys >> BITS)[1])
        for bad, what in ((double + 1, "for the second time"), (orphan, "without the shorter n-gram that begins it")):
            if len(bad):
                raise self.fail(f"an n-gram {what}", int(self.places[order[bad]].min()))
        return Level(keys, np.maximum(log_prob[order], NEVER), backoff[order])


def write_ngram(arpa: Arpa, path: Path, max_bytes: int | None = None, *, quantise: bool = True, note: str = "") -> Arpa:
    """Write the file of `Ngram`, pruned where it would be larger than `max_bytes`; returns what was kept."""
    if max_bytes is not None:
        arpa = prune(arpa, max_bytes, quantise=quantise)
    header = describe(arpa, quantise, note)
    if header.contexts > MAX_CONTEXTS:
        raise BundleError(f"{path}: {header.contexts} contexts, at most {MAX_CONTEXTS} can be packed; prune the model")
    places = inner(arpa)
    shifts = np.cumsum([0, *arpa.counts[:-1]])
    child = [level.keys & np.uint64(0xFFFF) for level in arpa.levels[1:]]
    first, known = [np.zeros(1, dtype=np.int64)], 0
    for level, above, place in zip(arpa.levels, arpa.levels[1:], places, strict=False):
        first.append(known + np.searchsorted(above.keys >> BITS, level.keys[place]))
        known += len(above.keys)
    arrays = {
        "text": np.frombuffer("".join(f"{word}\n" for word in arpa.words[1:]).encode(), dtype=np.uint8),
        "inner": np.concatenate([np.zeros(0), *(p + s for p, s in zip(places, shifts, strict=False))]),
        "first": np.concatenate([*first, [known]]),
        "child": np.concatenate([np.zeros(0), *child]),
    }
    probs = [arpa.levels[0].log_prob[:-1], *(level.log_prob for level in arpa.levels[1:])]
    backoffs = [level.backoff[place] for level, place in zip(arpa.levels, places, strict=False)]
    books = []
    if quantise:
        coded = [_quantise(values) for values in probs], [_quantise(values, zero=True) for values in backoffs]
        books = [np.concatenate([np.zeros(0), *(book for _, book in kind)]) for kind in coded]
        probs, backoffs = ([codes.astype(np.float64) for codes, _ in kind] for kind in coded)
    arrays |= {
        "unigram": probs[0],
        "prob": np.concatenate([np.zeros(0), *probs[1:]]),
        "backoff": np.concatenate([np.zeros(1), *backoffs]),
        "probs": books[0] if quantise else np.zeros(0),
        "backoffs": books[1] if quantise else np.zeros(0),
    }
    write_arrays(path, header, arrays)
    return arpa


def _quantise(values: Weights, zero: bool = False) -> tuple[NDArray[np.int64], Weights]:
    """Numbers in a codebook of 256, and the codebook, sorted; with `zero`, number 0 is 0.0 and left to no context.

    Even steps from the least to the greatest value: equally filled bins are too wide at the ends, where
    the frequent n-grams are, and cost 2 % in perplexity where these cost nothing.
    """
    size = CODES - 1 if zero else CODES
    book = np.unique(values)
    if len(book) > size:
        inside = book[book > NEVER / 2]  # <unk> may be impossible: that would stretch the steps
        book = np.append(np.linspace(inside[0], inside[-1], size - 1), book[0]) if len(inside) else book[:size]
        book = np.unique(book)
    codes = np.searchsorted((book[1:] + book[:-1]) / 2, values) if len(book) else np.zeros(0, dtype=np.int64)
    book = np.concatenate([[0.0], book]) if zero else book
    return codes + int(zero), np.pad(book, (0, CODES - len(book)))
