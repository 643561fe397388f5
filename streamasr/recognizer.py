"""The model and its decoder: immutable, shared by all streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamasr.acoustic import Acoustic
from streamasr.bundle import SECOND, Bundle, EndpointRule, read_bundle
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.grammar import Grammar
from streamasr.decoding.greedy import Greedy
from streamasr.decoding.hypothesis import Decoder
from streamasr.decoding.open_search import OpenSearch
from streamasr.decoding.rejection import GrammarSearch
from streamasr.errors import AudioError, BundleError
from streamasr.events import Event, Final, Transcript
from streamasr.sources import AudioSource, open_file
from streamasr.stream import Stream, accept_together
from streamasr.utterances import Engine
from streamasr.words import open_rescorer, open_words

Letters = Callable[[Sequence[str]], Decoder]  # tokens of the head of letters -> what decodes them
BUNDLED = Path(__file__).parent / "models" / "en-mini"


class Recognizer:
    """Makes streams. Safe to share between threads: nothing in it changes."""

    def __init__(
        self,
        bundle: Bundle,
        graph: str | None = None,
        *,
        greedy: bool = False,
        letters: Letters | None = None,
        lm: Path | None = None,
        grammar: Path | None = None,
        second_pass: bool = False,
        open_vocabulary: bool = False,
    ) -> None:
        """As for `load`."""
        if sum((greedy, letters is not None, lm is not None, grammar is not None)) > 1:
            raise BundleError(
                "expected one of greedy, letters, a language model and a grammar, got several; leave the others out"
            )
        letters = Greedy if greedy else letters
        if open_vocabulary and (letters is not None or grammar is not None):
            raise BundleError("an open vocabulary goes with words: leave greedy, letters and the grammar out")
        if lm is not None and bundle.search is None:
            raise BundleError(f"{bundle.folder}: has no words to choose from, only letters; do without {lm}")
        self.bundle = bundle
        self.acoustic = Acoustic(bundle, graph)
        head = bundle.search.head if bundle.search and letters is None else "letters"
        self.head, self.tokens = bundle.head(head)
        self.tuning = bundle.tuning["beam" if bundle.search and letters is None else "greedy"]
        self.decoder: Decoder
        if grammar is not None:
            self.decoder = GrammarSearch(open_words(bundle), Grammar.open(grammar))
        elif bundle.search and letters is None:
            words = open_words(bundle, lm, open_vocabulary)
            search = OpenSearch if open_vocabulary else BeamSearch
            self.decoder = search(words, open_rescorer(bundle, words) if lm is None else None)
        elif open_vocabulary:
            raise BundleError(f"{bundle.folder}: has no words to choose from, only letters; do without open_vocabulary")
        else:
            self.decoder = (letters or Greedy)(self.tokens)
        second = None
        if second_pass:
            if SECOND not in bundle.graphs:
                raise BundleError(f"{bundle.folder}: has no graph '{SECOND}' for a second pass; do without it")
            second = Acoustic(bundle, SECOND)
        self._engine = Engine(bundle, self.acoustic, self.decoder, self.head, self.tuning, second)

    def stream(
        self,
        snapshot: bytes | None = None,
        endpoint: Sequence[EndpointRule] | None = None,
        n_best: int | None = None,
        hotwords: Mapping[str, float] | None = None,
        partials: bool = True,
    ) -> Stream:
        """A new conversation, or with `snapshot` (from Stream.snapshot) the continuation of one.

        endpoint: rules for the end of an utterance, in place of the bundle's, or of the snapshot's. Without a
        rule that holds at last, an utterance, and the memory it takes, grows for ever.
        n_best: so many texts, with their scores, come with each Final as `alternatives`; None: as in the snapshot.
        hotwords: words or phrases that are likely to be said, with what is added to their log-probability (5 is
        much); `stream.hotwords` changes them while the stream runs.
        partials: False saves a little work where nobody reads along: no Partial comes, all else is the same.
        """
        return Stream(self._engine, snapshot, endpoint, n_best, hotwords, partials)

    def accept(
        self, streams: Sequence[Stream], pieces: Sequence[ArrayLike], rate: int | None = None
    ) -> list[list[Event]]:
        """Many of this recogniser's streams at once, cheaper than one by one: each one's events for its piece.

        Equal to Stream.accept of each alone: with int8 to the bit, with fp32 within 1e-4 of log-probability.
        """
        return accept_together(streams, pieces, rate)

    def must_hear_blocks(self) -> None:
        """BundleError where the network hears a recording only as a whole, so nothing while it is being said."""
        if not self.acoustic.graph.block:
            raise BundleError(
                f"{self.bundle.folder}: hears a recording only as a whole, so not live; use `streamasr transcribe`, "
                "or a model that hears block by block"
            )

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
        stream = self.stream(partials=False)
        finals: list[Final] = []
        for chunk in chunks:
            finals += [event for event in stream.accept(chunk, rate) if isinstance(event, Final)]
        finals += [event for event in stream.finish() if isinstance(event, Final)]
        return Transcript(tuple(finals), tuple(warnings))


def load(
    path: str | Path | None = None,
    graph: str | None = None,
    *,
    greedy: bool = False,
    letters: Letters | None = None,
    lm: str | Path | None = None,
    grammar: str | Path | None = None,
    second_pass: bool = False,
    open_vocabulary: bool = False,
) -> Recognizer:
    """The bundled model, or the bundle in the folder `path`.

    graph: which of the bundle's graphs computes, "fp32" or "int8"; None: the one that the bundle prefers.
    lm: a language model made by `streamasr lm`, in place of the bundle's. grammar: a file of all the phrases that
    may be said; other speech comes out as `<other>`. greedy: letter by letter, without words. letters: another decoder
    of the letters in place of greedy, made from their tokens (`streamasr.decoding.ctcdecode.CtcDecode`, or a
    functools.partial of it). second_pass: when an utterance has ended, the bundle's second network reads it again,
    backwards too, and has the last word. open_vocabulary: words that the language model lacks are heard too, and
    written as they sound.
    """
    bundle = read_bundle(BUNDLED if path is None else Path(path))
    files = {name: None if file is None else Path(file) for name, file in {"lm": lm, "grammar": grammar}.items()}
    return Recognizer(
        bundle, graph, greedy=greedy, letters=letters, second_pass=second_pass, open_vocabulary=open_vocabulary, **files
    )
