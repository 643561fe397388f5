"""What the recogniser hears in a manifest, through the run time that users have, with the decoder's raw words."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jiwer
import numpy as np
import soundfile
from numpy.typing import NDArray

from streamasr.decoding.hypothesis import HypothesisWord
from streamasr.events import Word
from streamasr.recognizer import Recognizer
from streamasr.training.manifest import Utterance

AnyWord = TypeVar("AnyWord", Word, HypothesisWord)


@dataclass(frozen=True)
class Heard:
    """An utterance, what a user gets for it, and the raw words of the decoder, with no endpoint between them."""

    utterance: Utterance
    said: tuple[Word, ...]
    words: tuple[HypothesisWord, ...]  # empty where they were not asked for

    @property
    def text(self) -> str:
        """What a user reads."""
        return " ".join(word.text for word in self.said)

    def matches(self) -> Iterator[tuple[HypothesisWord, int | None]]:
        """The decoder's words, as `match` gives them."""
        return match(self.utterance.text, self.words)


def match(reference: str, words: Sequence[AnyWord]) -> Iterator[tuple[AnyWord, int | None]]:
    """Each word heard, with the place in the reference where the same word stands; None if it is wrong."""
    if not words:
        return
    found = jiwer.process_words(reference, " ".join(word.text for word in words))
    for chunk in found.alignments[0]:
        for i in range(chunk.hyp_start_idx, chunk.hyp_end_idx):
            right = chunk.type == "equal"
            yield words[i], chunk.ref_start_idx + i - chunk.hyp_start_idx if right else None


def hear(recognizer: Recognizer, audio: NDArray[np.float32]) -> tuple[HypothesisWord, ...]:
    """The words of 16 kHz mono samples, as one utterance."""
    decoder = recognizer.decoder
    state = decoder.start()
    for row in recognizer.acoustic.whole(audio)[:, recognizer.head]:
        state = decoder.step(row, state)
    return decoder.hypothesis(state).words


def hear_all(
    recognizer: Recognizer, utterances: Sequence[Utterance], raw: Container[Path] | None = None
) -> Iterator[Heard]:
    """One after the other, as lazily as asked; the decoder's words too for the audio in `raw` (None: for all)."""
    for utterance in utterances:
        audio = read_16k(utterance.audio)
        words = hear(recognizer, audio) if raw is None or utterance.audio in raw else ()
        yield Heard(utterance, recognizer.transcribe(audio).words, words)


def read_16k(path: Path) -> NDArray[np.float32]:
    """Mono samples of a 16 kHz file."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == 16000, f"{path}: {rate} Hz, expected 16000"
    mono: NDArray[np.float32] = audio.mean(axis=1)
    return mono
