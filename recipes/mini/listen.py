"""What the recogniser hears in a manifest, through the run time that users have, with the decoder's raw words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jiwer
import numpy as np
from numpy.typing import NDArray

from export.speech import read_speech
from streamasr.decoding.hypothesis import HypothesisWord, decoded
from streamasr.events import Word
from streamasr.manifest import Utterance
from streamasr.recognizer import Recognizer, load

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
    rows = recognizer.acoustic.whole(audio)[:, recognizer.head]
    return decoder.final(decoded(decoder, rows)).words


@dataclass(frozen=True)
class Task:
    """What one process listens to."""

    greedy: bool
    utterances: tuple[Utterance, ...]
    raw: frozenset[Path]  # audio whose raw words are wanted
    said: bool = True  # what a user gets is wanted
    graph: str | None = None  # None: the bundle's default


def hear_all(folder: Path, tasks: Sequence[Task]) -> list[list[Heard]]:
    """The tasks side by side, two at a time."""
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(_listen, [folder] * len(tasks), tasks))


def _listen(folder: Path, task: Task) -> list[Heard]:
    recognizer = load(folder, task.graph, greedy=task.greedy)
    heard = []
    for utterance in task.utterances:
        audio = read_16k(utterance.audio)
        said = recognizer.transcribe(audio).words if task.said else ()
        words = hear(recognizer, audio) if utterance.audio in task.raw else ()
        heard.append(Heard(utterance, said, words))
    return heard


def read_16k(path: Path) -> NDArray[np.float32]:
    """Mono samples of any recording, at 16 kHz."""
    return read_speech(path, 16000)
