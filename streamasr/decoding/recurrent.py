"""A recurrent language model: one ONNX graph that reads word by word, its state passed in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from streamasr.bundle import StateSpec
from streamasr.errors import BundleError

WORD, ASKED, LOG_PROBS, NEW = "word", "asked", "log_probs", "new."  # names in the graph; state x leaves as new.x
WORDS = "words"  # in the graph's metadata: the fingerprint of the words whose numbers it reads

TRUNKS = 1024  # beginnings of sentences that are remembered, of all streams; a few KB each

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def fingerprint(words: Sequence[str]) -> str:
    """Names a numbering of words."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def read_states(path: Path) -> tuple[StateSpec, ...]:
    """The state of the graph in a file, as a bundle is told of it. BundleError: it is no such graph."""
    found = {node.name: tuple(node.shape) for node in _session(path).get_inputs()}
    states = tuple(StateSpec(name, shape) for name, shape in found.items() if name not in (WORD, ASKED))
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
        self._trunk = lru_cache(maxsize=TRUNKS)(self._trunk_of)

    def score(self, sentences: Sequence[Sequence[int]]) -> list[Floats]:
        """Word numbers of each sentence -> (words + 1,) log-probabilities of its words and of its end.

        What sentences have in common at their beginnings is read once, and what all of them have, once for a stream.
        """
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*sentences, strict=False))
        common = tuple(column[0] for column in alike)
        for words in range(len(common)):  # the shortest first: each takes one step from the one before
            self._trunk(common[:words])
        state, front = self._trunk(common)
        rows = [[*sentence[len(common) :], self.end] for sentence in sentences]
        scores = [np.array([*front, *row], dtype=np.float32) for row in rows]  # of `row`, to be overwritten
        word = np.array([common[-1] if common else self._start])
        prefix = dict.fromkeys(range(len(rows)), 0)  # the sentences that go on, and which beginning is theirs
        place = 0
        while prefix:
            asked = sorted({rows[i][place] for i in prefix})
            column = {number: k for k, number in enumerate(asked)}
            log_probs, state_after = self._read(word, asked, state)
            longer: dict[tuple[int, int], int] = {}  # (beginning, its next word) -> the longer beginning
            going: dict[int, int] = {}
            for i, before in prefix.items():
                number = rows[i][place]
                scores[i][len(front) + place] = log_probs[before, column[number]]
                if number != self.end:
                    going[i] = longer.setdefault((before, number), len(longer))
            of = np.array([before for before, _ in longer], dtype=np.int64)
            word = np.array([number for _, number in longer], dtype=np.int64)
            state = tuple(value[of] for value in state_after)
            prefix, place = going, place + 1
        return scores

    def _trunk_of(self, words: tuple[int, ...]) -> tuple[tuple[Floats, ...], tuple[float, ...]]:
        """The state before the last of these words is read, and the log-probabilities of all.

        Always word by word, so that what is remembered of it is what would be found anew.
        """
        if not words:
            return tuple(np.zeros((1, *map(int, spec.shape[1:])), dtype=np.float32) for spec in self._states), ()
        state, scores = self._trunk(words[:-1])
        log_probs, state = self._read(np.array([words[-2] if len(words) > 1 else self._start]), [words[-1]], state)
        return state, (*scores, float(log_probs[0, 0]))

    def _read(self, word: Ints, asked: Sequence[int], state: tuple[Floats, ...]) -> tuple[Floats, tuple[Floats, ...]]:
        """(N,) words, state -> (N, asked) log-probabilities of what may follow, the next state."""
        named = {spec.name: value for spec, value in zip(self._states, state, strict=True)}
        log_probs, *new = self._session.run(
            self._outputs, {WORD: word, ASKED: np.array(asked, dtype=np.int64), **named}
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
    declared = {WORD: ("N",), ASKED: ("M",)} | {spec.name: spec.shape for spec in states}
    if found != declared or not states:
        raise BundleError(f"{path}: not the recurrent language model: its inputs are {found}, expected {declared}")
