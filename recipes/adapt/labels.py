"""What was said: as the speaker was asked to say it, or as the recogniser heard it and was sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipes.adapt.gradient import Label, Recording
from recipes.adapt.network import Adaptive, kept
from recipes.finetune.adapt import pronunciations
from streamasr.bundle import Bundle
from streamasr.manifest import Utterance
from streamasr.recognizer import Recognizer, load
from streamasr.training.data import RATE, AudioCache, encode_text

MARGIN = 3 * RATE // 10  # samples before and after the words of a final: its tokens may come so much off
LEAST = 0.7


@dataclass(frozen=True)
class Span:
    """A text and where it is spoken, in samples."""

    begin: int
    end: int
    text: str


def prompted(utterance: Utterance, pcm: NDArray[np.int16]) -> list[Span]:
    """The text that was to be read, over the whole recording."""
    return [Span(0, len(pcm), utterance.text)]


def confident(recognizer: Recognizer, pcm: NDArray[np.int16], least: float) -> list[Span]:
    """The finals whose words are right with a probability of at least `least` on the average."""
    finals = [final for final in recognizer.transcribe(pcm, RATE).finals if final.words]
    bounds = [(round(final.start_s * RATE), round(final.end_s * RATE)) for final in finals]
    spans = []
    for i, final in enumerate(finals):
        if sum(word.confidence for word in final.words) >= least * len(final.words):
            before = bounds[i - 1][1] if i else 0
            after = bounds[i + 1][0] if i + 1 < len(bounds) else len(pcm)
            begin, end = bounds[i]
            begin, end = max(begin - MARGIN, min(before, begin), 0), min(end + MARGIN, max(after, end), len(pcm))
            spans.append(Span(begin, end, " ".join(word.text for word in final.words)))
    return spans


def label(model: Adaptive, bundle: Bundle, spans: Sequence[Sequence[Span]]) -> list[tuple[Label, ...]]:
    """The same in frames and tokens; words are spelled as the bundle does it. Texts of foreign letters are left out."""
    heads, stride = model.model.config.heads, model.model.stride
    lexicon = pronunciations(bundle, [Utterance(Path(), span.text, "", 0.0) for some in spans for span in some])
    letters = {letter for tokens in heads.values() if " " in tokens for letter in tokens}
    return [
        tuple(
            Label(span.begin // stride, model.frames(span.end), encode_text(span.text, heads, lexicon))
            for span in some
            if not letters or letters.issuperset(span.text)
        )
        for some in spans
    ]


def recordings(
    model: Adaptive,
    bundle: Bundle,
    utterances: Sequence[Utterance],
    cache: Path,
    least: float | None = None,
    again: bool = False,
) -> list[Recording]:
    """What the adapter learns from. least: the texts are not looked at, the recogniser's own finals are taken.

    again: the frozen network runs for every pass, and nothing of it is kept between them.
    """
    audio = AudioCache([utterance.audio for utterance in utterances], cache)
    pcm = [audio.pcm[audio.ends[i] : audio.ends[i + 1]] for i in range(len(audio))]
    if least is None:
        spans = [prompted(utterance, samples) for utterance, samples in zip(utterances, pcm, strict=True)]
    else:
        recognizer = load(bundle.folder, "fp32")
        spans = [confident(recognizer, samples, least) for samples in pcm]
    labels = label(model, bundle, spans)
    return [
        Recording(model.hear(samples) if again else kept(model.hear(samples)), known)
        for samples, known in zip(pcm, labels, strict=True)
        if known and len(samples)
    ]
