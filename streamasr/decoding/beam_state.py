"""What a beam search knows after some frames: arrays over its hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding import links
from streamasr.decoding.candidates import NEVER, Floats, Ints
from streamasr.decoding.links import Link
from streamasr.decoding.prefixtree import ROOT

BLANK = 0


@dataclass(frozen=True)
class BeamState:
    """The beam after some frames: arrays over hypotheses, never changed in place."""

    frame: int  # seen since the stream began
    letter_frame: int  # the last frame whose best token was no blank
    node: Ints
    last: Ints  # token; BLANK: none yet
    lm: Ints
    history: NDArray[np.uint64]  # names the sequence of words
    # (2, hypotheses): phones of the unknown word that is open, see unknown.py; 0: none is. (0, ...): none can be.
    spelled: NDArray[np.uint64]
    blank: Floats  # log-probability of alignments that end in the blank, and of those that end in `last`
    label: Floats
    prior: Floats  # weighted language model, word bonus
    word_start: Ints  # frames of the first and last token of the word that is open
    word_end: Ints
    evidence: Floats  # (4, hypotheses): sum, minimum, number of that word's token log-probabilities; sum of the blank's
    links: NDArray[np.object_]  # words so far: Link or None

    @cached_property
    def total(self) -> Floats:
        """Log-probability of all alignments."""
        both: Floats = np.logaddexp(self.blank, self.label)
        return both

    @classmethod
    def fresh(cls, frame: int, letter_frame: int, lm: int, spelled: int) -> BeamState:
        """One hypothesis of no words, in a state of the language model. spelled: rows of that array."""
        zero, none = np.zeros(1, dtype=np.int64), np.zeros(1)
        return cls(
            frame=frame,
            letter_frame=letter_frame,
            node=zero + ROOT,
            last=zero + BLANK,
            lm=zero + lm,
            history=np.ones(1, dtype=np.uint64),
            spelled=np.zeros((spelled, 1), dtype=np.uint64),
            blank=none,
            label=none + NEVER,
            prior=none,
            word_start=zero,
            word_end=zero,
            evidence=np.zeros((4, 1)),
            links=_objects([None]),
        )

    def chosen(self, kept: Ints) -> BeamState:
        """Some of the hypotheses, by their places."""
        arrays = {f.name: getattr(self, f.name).take(kept, axis=-1) for f in fields(self) if f.name not in SCALARS}
        return replace(self, **arrays)

    def pack(self) -> Any:
        """As plain values, for a snapshot."""
        arrays = {f.name: getattr(self, f.name).tolist() for f in fields(self) if f.name not in PLAIN}
        if not self.spelled.any():
            arrays["spelled"] = []
        return [self.frame, self.letter_frame, arrays, links.pack(self.links.tolist())]

    @classmethod
    def unpack(cls, values: Any, spelled: int) -> BeamState:
        """The inverse of pack. spelled: rows of that array."""
        frame, letter_frame, arrays, linked = values
        made = {
            f.name: np.array(arrays[f.name], dtype=KINDS.get(str(f.type), np.int64))
            for f in fields(cls)
            if f.name not in PLAIN
        }
        if not len(made["spelled"]):
            made["spelled"] = np.zeros((spelled, len(made["node"])), dtype=np.uint64)
        return cls(frame=frame, letter_frame=letter_frame, links=_objects(links.unpack(linked)), **made)


SCALARS = ("frame", "letter_frame")
PLAIN = (*SCALARS, "links")  # of BeamState's fields, those that are no arrays of numbers
KINDS: dict[str, Any] = {"Floats": np.float64, "NDArray[np.uint64]": np.uint64}


def _objects(members: Sequence[Link | None]) -> NDArray[np.object_]:
    array = np.empty(len(members), dtype=object)
    array[:] = members
    return array
