"""The beam search of the package `ctcdecode` (Parlance) over letters, where that package can be imported.

Its release is of 2020 and brings torch along, so nothing here imports it before it is asked for. What its search knows
after some frames can be neither copied nor saved. So an utterance's frames are kept, and all of them are searched again
whenever somebody asks: exact for any cutting of the audio, but slow where nobody pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.greedy import BLANK, Spelled
from streamasr.decoding.hypothesis import Hypothesis, HypothesisWord, Spoken
from streamasr.errors import BundleError

RUN_UP = 25  # frames that are kept before an utterance's first letter
NOTHING = -20.0  # log-probability of all other tokens where a space is certain

Text = tuple[tuple[int, int], ...]  # tokens, each with its frame


@dataclass(frozen=True)
class Heard:
    """The frames of the utterance so far."""

    frame: int = 0  # seen since the stream began
    last: int = BLANK  # best token of the last frame
    letter_frame: int = 0  # the last frame whose best token was a letter
    first: int = -1  # the first such frame of the utterance; -1: none yet
    rows: tuple[NDArray[np.float32], ...] = ()  # log-probabilities (tokens,), up to `frame`


class CtcDecode:
    """A Decoder over one head of letters."""

    def __init__(
        self,
        tokens: Sequence[str],
        lm: str | Path | None = None,
        alpha: float = 0.5,
        beta: float = 1.0,
        beam: int = 100,
    ) -> None:
        """lm: an n-gram model of order 2 or more as KenLM reads it (ARPA or binary), its words in letters of the head.

        Then only its words are found. alpha: weight of its log-probabilities. beta: added for every word. beam:
        hypotheses.
        """
        try:
            package, self._torch = import_module("ctcdecode"), import_module("torch")
        except ImportError as error:
            raise BundleError(f"ctcdecode cannot be imported ({error}): build it, or use the beam search") from error
        if lm is not None and not Path(lm).is_file():
            raise BundleError(f"{lm}: no such file; expected an n-gram model of words, ARPA or KenLM's")
        self._tokens, self._space = tuple(tokens), tokens.index(" ")
        self._end = np.full((0 if lm is None else 1, len(tokens)), NOTHING, dtype=np.float32)
        self._end[:, self._space] = 0.0  # what no space follows, it takes for the beginning of some word
        options = (alpha, beta, len(tokens), 1.0, beam, 1, BLANK, True)  # nothing cut off, logarithms
        try:
            self._beam = package.CTCBeamDecoder(list(tokens), lm and str(lm), *options)
        except RuntimeError as error:
            raise BundleError(f"{lm}: ctcdecode cannot read it: {str(error).splitlines()[-1]}") from error

    def start(self) -> Heard:
        return Heard()

    def step(self, log_probs: NDArray[np.float32], state: Heard) -> Heard:
        best = int(log_probs.argmax())
        letter = best not in (BLANK, self._space)
        if letter and best == state.last and state.first < 0:  # of the utterance before, and still sounds
            return replace(state, frame=state.frame + 1, rows=())
        rows = (*(state.rows if state.first >= 0 else state.rows[-RUN_UP:]), log_probs)
        following = replace(state, frame=state.frame + 1, last=best, rows=rows)
        if not letter:
            return following
        return replace(following, letter_frame=state.frame, first=state.frame if state.first < 0 else state.first)

    def spoken(self, state: Heard) -> Spoken | None:
        return Spoken(state.first, state.frame - 1 - state.letter_frame) if state.first >= 0 else None

    def hypothesis(self, state: Heard) -> Hypothesis:
        words = []
        for space, group in groupby(self._found(state)[0], lambda letter: letter[0] == self._space):
            if not space:
                words.append(self._word(tuple(group), state))
        return Hypothesis(tuple(words), 0)  # any of it may change

    def final(self, state: Heard) -> Hypothesis:
        found = self.hypothesis(state)
        return replace(found, stable=len(found.words))

    def n_best(self, state: Heard, n: int) -> list[tuple[str, float]]:
        """Of letters alone. With a language model one text only: the package does not tell what it orders others by."""
        most = min(n, 1) if len(self._end) else n
        texts: dict[str, float] = {}
        for letters in self._found(state):
            if len(texts) == most:
                break
            tokens = [token for token, _ in letters]
            text = " ".join("".join(self._tokens[token] for token in tokens).split())
            # It gives out texts that cannot be, too.
            if text not in texts and (log_prob := self._log_prob(tokens, state)) > -np.inf:
                texts[text] = log_prob
        best = next(iter(texts.values()), 0.0)
        capped = [(text, min(log_prob, best)) for text, log_prob in texts.items()]  # it sums over fewer alignments
        return sorted(capped, key=lambda item: -item[1])  # stable: its first stays the first

    def next_utterance(self, state: Heard) -> Heard:
        return replace(state, first=-1, rows=())

    def pack(self, state: Heard) -> Any:
        return [state.frame, state.last, state.letter_frame, state.first, [row.tolist() for row in state.rows]]

    def unpack(self, values: Any) -> Heard:
        frame, last, letter_frame, first, rows = values
        return Heard(frame, last, letter_frame, first, tuple(np.array(row, dtype=np.float32) for row in rows))

    def _log_prob(self, tokens: list[int], state: Heard) -> float:
        """The sum over all alignments."""
        if not state.rows:
            return 0.0
        torch, rows = self._torch, np.array(state.rows)
        sizes = (torch.tensor([len(rows)]), torch.tensor([len(tokens)]))
        target = torch.tensor([tokens], dtype=torch.long)
        loss = torch.nn.functional.ctc_loss(torch.from_numpy(rows[:, None]), target, *sizes, BLANK, "sum")
        return -float(loss)

    def _found(self, state: Heard) -> list[Text]:
        """Texts, the best first. Asked more than once of a state, so kept beside it."""
        asked = state.__dict__.get("found")
        if asked is None or asked[0] is not self:
            asked = self, self._search(state.rows, state.frame - len(state.rows))
            state.__dict__["found"] = asked
        found: list[Text] = asked[1]
        return found

    def _search(self, rows: Sequence[NDArray[np.float32]], ahead: int) -> list[Text]:
        """rows: log-probabilities (tokens,), after so many frames."""
        if not rows:
            return [()]
        audio = self._torch.from_numpy(np.array([[*rows, *self._end]]))
        tokens, _, frames, lengths = (x[0].numpy() for x in self._beam.decode(audio))
        found = []
        for own, times, length in zip(tokens, frames, lengths, strict=True):
            if len(self._end) and length and own[length - 1] == self._space:
                length -= 1
            # A letter's frame is where it was likeliest, which may be behind the next one's.
            ordered = np.minimum.accumulate(times[:length][::-1])[::-1].clip(max=len(rows) - 1) + ahead
            found.append(tuple(zip(own[:length].tolist(), ordered.tolist(), strict=True)))
        return found

    def _word(self, letters: Text, state: Heard) -> HypothesisWord:
        ahead = state.frame - len(state.rows)
        first, last = letters[0][1], letters[-1][1]
        text = "".join(self._tokens[token] for token, _ in letters)
        own = tuple(float(state.rows[frame - ahead][token]) for token, frame in letters)
        blank = sum(float(row[BLANK]) for row in state.rows[first - ahead : last - ahead + 1])
        return Spelled(text, first, last, own, blank).said
