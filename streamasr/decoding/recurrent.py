"""A recurrent language model: one ONNX graph that reads word by word, its state passed in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from streamasr.bundle import StateSpec
from streamasr.errors import BundleError

WORD, ROWS, ASKED = "word", "rows", "asked"  # names in the graph
LOG_PROBS, NEW = "log_probs", "new."  # state x leaves as new.x
WORDS = "words"  # in the graph's metadata: the fingerprint of the words whose numbers it reads

TRUNKS = 1024  # beginnings of sentences that are remembered, of all streams; a few KB each
MOST = 64  # rows that are asked about at once

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def fingerprint(words: Sequence[str]) -> str:
    """Names a numbering of words."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def read_states(path: Path) -> tuple[StateSpec, ...]:
    """The state of the graph in a file, as a bundle is told of it. BundleError: it is no such graph."""
    found = {node.name: tuple(node.shape) for node in _session(path).get_inputs()}
    states = tuple(StateSpec(name, shape) for name, shape in found.items() if name not in (WORD, ROWS, ASKED))
    _check(path, found, states)
    return states


class Recurrent:
    """A session shared by all streams. Words are numbered as in the n-gram model; then come </s> and <s>."""

    def __init__(self, path: Path, states: Sequence[StateSpec], words: Sequence[str]) -> None:
        """words: those of the n-gram model that it goes with. BundleError: it is not for these, or no such graph."""
        self._session = _session(path)
        self.end, self._start, self._states = len(words), len(words) + 1, tuple(states)
        self._outputs = [LOG_PROBS, *(NEW + spec.name for spec in states)]
        _check(path, {node.name: tuple(node.shape) for node in self._session.get_inputs()}, self._states)
        if self._session.get_modelmeta().custom_metadata_map.get(WORDS) != fingerprint(words):
            raise BundleError(f"{path}: reads other words than the bundle's n-gram model; train it with that one")
        self._fresh = tuple(np.zeros((1, *map(int, spec.shape[1:])), dtype=np.float32) for spec in self._states)
        self._trunk = lru_cache(maxsize=TRUNKS)(self._trunk_of)

    def score(self, sentences: Sequence[Sequence[int]], common: int = 0) -> list[Floats]:
        """Word numbers of each sentence -> log-probabilities of its words and of its end, (words - common + 1,).

        common: so many words at the beginning, the same in all sentences, are not scored; they are read once for a
        stream. Beginnings that some sentences share are read once for all of them.
        """
        begun = tuple(sentences[0][:common]) if sentences else ()
        for words in range(len(begun)):  # the shortest first: each takes one step from the one before
            self._trunk(begun[:words])
        rows = [[*sentence[common:], self.end] for sentence in sentences]
        word, state, at = self._beginnings(rows, np.array([begun[-1] if begun else self._start]), self._trunk(begun))
        asked = sorted({number for row in rows for number in row})
        column = {number: k for k, number in enumerate(asked)}
        # What follows all these is asked in one go: by far the most of the work is with the words' weights.
        pieces = [slice(first, first + MOST) for first in range(0, len(word), MOST)]
        log_probs = np.concatenate([self._read(word[p], tuple(x[p] for x in state), asked)[0] for p in pieces])
        return [log_probs[place, [column[n] for n in row]] for place, row in zip(at, rows, strict=True)]

    def _beginnings(
        self, rows: Sequence[Sequence[int]], word: Ints, state: tuple[Floats, ...]
    ) -> tuple[Ints, tuple[Floats, ...], list[list[int]]]:
        """Every beginning of these sentences once: its last word, the state before that, and where each one's are.

        word, state: (1,) what stands before all sentences, and the state before that.
        """
        at: list[list[int]] = [[] for _ in rows]
        words, states, count = [word], [state], 0
        prefix = dict.fromkeys(range(len(rows)), 0)  # the sentences that go on, and which beginning is theirs
        while prefix:
            longer: dict[tuple[int, int], int] = {}  # (beginning, its next word) -> the longer beginning
            going: dict[int, int] = {}
            for i, before in prefix.items():
                number = rows[i][len(at[i])]
                at[i].append(count + before)
                if number != self.end:
                    going[i] = longer.setdefault((before, number), len(longer))
            count += len(word)
            if longer:
                of = np.array([before for before, _ in longer])
                state = tuple(value[of] for value in self._read(word, state)[1])
                word = np.array([number for _, number in longer])
                words.append(word)
                states.append(state)
            prefix = going
        return np.concatenate(words), tuple(map(np.concatenate, zip(*states, strict=True))), at

    def _trunk_of(self, words: tuple[int, ...]) -> tuple[Floats, ...]:
        """The state before the last of these words is read.

        Always word by word, so that what is remembered of it is what would be found anew.
        """
        if len(words) < 2:
            return self._fresh if not words else self._read(np.array([self._start]), self._fresh)[1]
        return self._read(np.array([words[-2]]), self._trunk(words[:-1]))[1]

    def _read(
        self, word: Ints, state: tuple[Floats, ...], asked: Sequence[int] = ()
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """(N,) words, state -> (N, asked) log-probabilities of what may follow, (0, 0) for none; the next state."""
        named = {spec.name: value for spec, value in zip(self._states, state, strict=True)}
        rows = np.arange(len(word) if asked else 0)
        log_probs, *new = self._session.run(
            self._outputs, {WORD: word, ROWS: rows, ASKED: np.array(asked, dtype=np.int64), **named}
        )
        return log_probs, tuple(new)


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise BundleError(f"{path}: ONNX Runtime cannot load it: {error}") from error


def _check(path: Path, found: Mapping[str, tuple[int | str, ...]], states: tuple[StateSpec, ...]) -> None:
    declared = {WORD: ("N",), ROWS: ("R",), ASKED: ("M",)} | {spec.name: spec.shape for spec in states}
    if found != declared or not states:
        raise BundleError(f"{path}: not the recurrent language model: its inputs are {found}, expected {declared}")
