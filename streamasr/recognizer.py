"""The model and its decoder: immutable, shared by all streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle, EndpointRule, read_bundle
from streamasr.decoding.greedy import Greedy
from streamasr.errors import AudioError
from streamasr.events import Final, Transcript
from streamasr.sources import AudioSource, open_file
from streamasr.stream import Engine, Stream

BUNDLED = Path(__file__).parent / "models" / "en-mini"


class Recognizer:
    """Makes streams. Safe to share between threads: nothing in it changes."""

    def __init__(self, bundle: Bundle, graph: str = "fp32") -> None:
        self.bundle = bundle
        self.acoustic = Acoustic(bundle, graph)
        self.head, tokens = bundle.head("letters")
        self.decoder = Greedy(tokens)
        self._engine = Engine(bundle, self.acoustic, self.decoder, self.head)

    def stream(self, snapshot: bytes | None = None, endpoint: Sequence[EndpointRule] | None = None) -> Stream:
        """A new conversation, or with `snapshot` (from Stream.snapshot) the continuation of one.

        endpoint: rules for the end of an utterance, in place of the bundle's, or of the snapshot's. Without a
        rule that holds at last, an utterance, and the memory it takes, grows for ever.
        """
        return Stream(self._engine, snapshot, endpoint)

    def transcribe(self, audio: str | Path | ArrayLike, rate: int | None = None) -> Transcript:
        """A file, or samples as in Stream.accept with their rate in Hz, from beginning to end."""
        if isinstance(audio, str | Path):
            if rate is not None:
                raise AudioError(f"{audio}: a file knows its own rate; leave `rate` out")
            with open_file(audio) as source:
                return self.transcribe_source(source)
        return self._transcribe([np.asarray(audio)], rate, [])

    def transcribe_source(self, source: AudioSource) -> Transcript:
        """What streamasr.sources opened, from beginning to end."""
        return self._transcribe(source.chunks(), source.rate, source.warnings)

    def _transcribe(self, chunks: Iterable[NDArray[np.generic]], rate: int | None, warnings: list[str]) -> Transcript:
        stream = self.stream()
        finals: list[Final] = []
        for chunk in chunks:
            finals += [event for event in stream.accept(chunk, rate) if isinstance(event, Final)]
        finals += [event for event in stream.finish() if isinstance(event, Final)]
        return Transcript(tuple(finals), tuple(warnings))


def load(path: str | Path | None = None, graph: str = "fp32") -> Recognizer:
    """The bundled model, or the bundle in the folder `path`."""
    return Recognizer(read_bundle(BUNDLED if path is None else Path(path)), graph)
