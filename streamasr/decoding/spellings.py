"""How words are spelled in a head's tokens: letters or phones, several ways for one word if need be."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import write_whole
from streamasr.errors import BundleError

MAX_TOKENS = 64  # a node of the prefix tree keeps its children as one bit each of a 64-bit number


@dataclass(frozen=True)
class Spellings:
    """Row i of `table` (spellings, longest), padded with zeros, spells the word number words[i]. Rows are in order."""

    table: NDArray[np.uint8]
    words: NDArray[np.int32]

    @classmethod
    def of(cls, spellings: Sequence[bytes], words: Sequence[int]) -> Spellings:
        """spellings[i]: tokens 1 to 63 (0 is the blank), at least one, of the word words[i]."""
        if not all(spelled and min(spelled) > 0 and max(spelled) < MAX_TOKENS for spelled in spellings):
            raise ValueError(f"expected spellings of tokens 1 to {MAX_TOKENS - 1}, none empty")
        order = sorted(range(len(spellings)), key=lambda i: (spellings[i], words[i]))
        depth = max(map(len, spellings), default=1)
        table = np.array([spellings[i] for i in order], dtype=f"S{depth}").view(np.uint8).reshape(-1, depth)
        return cls(table, np.array([words[i] for i in order], dtype=np.int32))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each spelling."""
        counts: NDArray[np.int64] = np.count_nonzero(self.table, axis=1)
        return counts

    def of_word(self, number: int) -> list[bytes]:
        """All spellings of one word."""
        return [bytes(row[row != 0]) for row in self.table[self.words == number]]

    def save(self, path: Path, model: int | None = None) -> None:
        """One byte a token and a zero after each spelling, two bytes a word; whole or not at all.

        model: checksum of the language model whose words these are.
        """
        ended = np.pad(self.table, ((0, 0), (0, 1)))
        inside = np.arange(ended.shape[1]) <= self.lengths[:, None]
        arrays = {"spelled": ended[inside], "words": self.words.astype(np.uint16)}
        content = io.BytesIO()
        np.savez(content, **arrays, **({} if model is None else {"model": np.array(model)}))  # type: ignore[arg-type]
        write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, model: int | None = None) -> Spellings:
        """Read what save wrote; BundleError where it was for another model."""
        try:
            with np.load(path, allow_pickle=False) as file:
                spelled, words = file["spelled"], file["words"].astype(np.int32)
                own = int(file["model"]) if "model" in file else None
            lengths = np.diff(np.flatnonzero(spelled == 0), prepend=-1) - 1
            table = np.zeros((len(lengths), int(lengths.max())), dtype=np.uint8)
            table[np.arange(table.shape[1]) < lengths[:, None]] = spelled[spelled != 0]
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror or error}; copy the file again") from error
        except (ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path}: not a list of spellings ({error}); copy the file again") from error
        if len(words) != len(table):
            raise BundleError(f"{path}: {len(table)} spellings of {len(words)} words; copy the file again")
        if None not in (model, own) and own != model:
            raise BundleError(f"{path}: spells another language model's words; make both with `streamasr lm`")
        return cls(table, words)
