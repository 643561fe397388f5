"""The model on disk: a folder with bundle.json and the graphs it names.

A bundle knows everything, the code knows no particular model. Reading is strict: an unknown or
missing key, or a file that is not the one that was written, is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from streamasr.errors import BundleError
from streamasr.strict import StrictError, parse

FORMAT = 4
METADATA = "bundle.json"
SECOND = "second"  # name of the graph, if there is one, that reads every utterance again when it has ended


@dataclass(frozen=True)
class StateSpec:
    """One tensor of state: its name and shape, the batch axis written "N". Always float32."""

    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel parameters; lengths in samples."""

    sample_rate: int = 16000
    window: int = 400
    hop: int = 160
    n_fft: int = 512
    mels: int = 80
    floor: float = 1e-6  # added to the mel power of audio in [-1, 1]: well under a quiet room's noise


@dataclass(frozen=True)
class Graph:
    """One ONNX file: samples and state in, log-probabilities and state out; lengths in samples."""

    file: str
    sha256: str
    block: int  # samples of one step; 0: a whole recording
    stride: int  # samples of one frame
    delay: int  # frames by which the output lags; the first `delay` frames of a stream are dropped
    states: tuple[StateSpec, ...]
    parity: float  # largest difference from torch's log-probabilities, seen by the export

    @property
    def flush(self) -> int:
        """Zeros fed by `finish`: enough for the delay and to fill the last block."""
        return self.delay * self.stride + self.block

    @property
    def latency(self) -> int:
        """Samples after the start of a frame that its output may need, the wait for a block included."""
        return self.delay * self.stride + self.block


@dataclass(frozen=True)
class Head:
    """One set of log-probabilities of the graph's output: its tokens, the blank first."""

    name: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """What is added to a word's first and last spike to give its start and end, in samples."""

    start: int = 0
    end: int = 0


class Evidence(NamedTuple):
    """What speaks for a word: log-probabilities of its tokens and of silence, its probability as language."""

    mean_log_prob: float
    min_log_prob: float
    tokens: int
    blank_log_prob: float  # mean over all frames from its first token to its last
    lm_log_prob: float = 0.0  # 0: nobody asked a language model

    @property
    def features(self) -> tuple[float, ...]:
        """What ConfidenceModel weighs, in its order."""
        return 1.0, self.mean_log_prob, self.min_log_prob, float(min(self.tokens, 8)), self.lm_log_prob


@dataclass(frozen=True)
class ConfidenceModel:
    """Logistic regression from the evidence for a word to the probability that it is right."""

    bias: float = 0.0
    mean_log_prob: float = 1.0
    min_log_prob: float = 0.0
    tokens: float = 0.0  # per token, at most 8 counted
    lm_log_prob: float = 0.0

    def __call__(self, evidence: Evidence) -> float:
        """The probability that the word is right."""
        weights = (self.bias, self.mean_log_prob, self.min_log_prob, self.tokens, self.lm_log_prob)
        logit = sum(weight * feature for weight, feature in zip(weights, evidence.features, strict=True))
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))


@dataclass(frozen=True)
class Tuning:
    """What was measured of one decoder over this network."""

    timing: Timing = Timing()
    confidence: ConfidenceModel = ConfidenceModel()
    silence: float = 0.0  # where a word's blank_log_prob is above this, it may be none

    def spoken(self, words: Iterable[Evidence]) -> bool:
        """False for what is taken for noise: in each of these words the network believes too much in the blank.

        Confidence cannot tell, since it says which word it is where somebody speaks.
        """
        return any(evidence.blank_log_prob <= self.silence for evidence in words)


@dataclass(frozen=True)
class BeamConfig:
    """How wide a beam search looks, and how its parts are weighed. Natural logarithms."""

    hypotheses: int = 400
    histories: int = 1  # of the hypotheses that differ only in words that no longer matter, so many are kept
    width: float = 15.0  # hypotheses so far below the best are dropped
    token_width: float = 10.0  # so are tokens so far below the frame's best
    blank_penalty: float = 0.0  # of every blank: that most frames are blank is a prior, not evidence
    token_penalties: tuple[float, ...] = ()  # of the tokens after the blank, so often as they sound; (): none
    blank_skip: float = 0.99  # frames of a blank so probable hold nothing else
    pause: int = 20  # frames without a token that a word may hold
    settle: int = 2  # frames after its last token before a word is shown, unless it is certain
    lm_weight: float = 1.1
    word_bonus: float = 1.0


@dataclass(frozen=True)
class Rescoring:
    """A recurrent language model that orders an utterance's likeliest texts anew, at its end and while it goes on."""

    file: str
    states: tuple[StateSpec, ...]
    hypotheses: int = 20  # so many texts
    share: float = 0.5  # its own in the mixture of its probabilities with the n-gram model's
    lm_weight: float = 1.3  # of the mixture, and the bonus of a word, where they take the beam's place
    word_bonus: float = 1.0
    decide: int = 0  # every so many frames words that ended as long ago become certain; 0: at the end alone
    margin: float = 6.0  # then, texts that are so many nats less likely by the n-gram model have no chance


@dataclass(frozen=True)
class WordSearch:
    """The words that a beam search chooses from: files in the bundle, and the head that they are spelled in."""

    head: str
    lm: str  # n-gram language model; its words are the vocabulary
    lexicon: str  # spellings of these words
    g2p: str  # makes spellings of other words
    sha256: dict[str, str]  # of each of these files
    beam: BeamConfig
    rescoring: Rescoring | None = None  # None: the n-gram model has the last word

    @property
    def files(self) -> tuple[str, ...]:
        """All that it needs."""
        return self.lm, self.lexicon, self.g2p, *((self.rescoring.file,) if self.rescoring else ())


@dataclass(frozen=True)
class EndpointRule:
    """An utterance with words ends when both hold."""

    trailing_s: float  # no new letter for so long
    utterance_s: float = 0.0  # first letter at least so long ago


@dataclass(frozen=True)
class Source:
    """Where training audio came from."""

    name: str
    licence: str
    hours: float


@dataclass(frozen=True)
class Bundle:
    """Everything in bundle.json; `folder` is where it was read."""

    format: int
    name: str
    version: str
    language: str
    features: FeatureConfig
    heads: tuple[Head, ...]  # in the order of the graph's output
    graphs: dict[str, Graph]
    default: str  # the graph that is used unless another is asked for
    network: dict[str, Any]  # configuration from which torch builds the same network
    tuning: dict[str, Tuning]  # decoder, "greedy" or "beam" -> what was measured of it
    search: WordSearch | None  # None: letters only, decoded greedily
    endpoint: tuple[EndpointRule, ...]
    sources: tuple[Source, ...]
    measured: dict[str, float]  # results of the script that measured this bundle
    folder: Path = field(default=Path(), compare=False)

    @property
    def sample_rate(self) -> int:
        return self.features.sample_rate

    @property
    def checksum(self) -> str:
        """Names this bundle: changes when its graphs or tokens change."""
        sums = [graph.sha256 for graph in self.graphs.values()] + [asdict(self.search) if self.search else None]
        text = json.dumps([asdict(head) for head in self.heads] + sums)
        return hashlib.sha256(text.encode()).hexdigest()

    def head(self, name: str) -> tuple[slice, tuple[str, ...]]:
        """Where in the graph's last axis a head lies, and its tokens."""
        start = 0
        for head in self.heads:
            if head.name == name:
                return slice(start, start + len(head.tokens)), head.tokens
            start += len(head.tokens)
        raise BundleError(f"{self.folder}: has no head '{name}', only {', '.join(h.name for h in self.heads)}")

    def graph(self, name: str) -> tuple[Graph, Path]:
        """A graph and its file, whose checksum has been verified."""
        if name not in self.graphs:
            raise BundleError(f"{self.folder}: has no graph '{name}', only {', '.join(self.graphs)}")
        graph = self.graphs[name]
        return graph, self.file(graph.file, graph.sha256)

    def file(self, name: str, sha256: str) -> Path:
        """A file of the bundle, verified."""
        path = self.folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}; copy the whole bundle folder") from error
        if found != sha256:
            raise BundleError(f"{path}: checksum {found[:12]}, expected {sha256[:12]}; copy the file again")
        return path


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle's metadata; the graphs are verified when they are opened."""
    path = folder / METADATA
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; expected the folder of a model") from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error}); copy the file again") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        got = values.get("format") if isinstance(values, dict) else None
        raise BundleError(f"{path}: format {got!r}, this version of streamasr reads format {FORMAT}")
    if "folder" in values:
        raise BundleError(f"{path}: unknown key 'folder'")
    try:
        bundle = parse(Bundle, {**values, "folder": folder}, str(path))
    except StrictError as error:
        raise BundleError(str(error)) from error
    for what, holds in _conditions(bundle).items():
        if not holds:
            raise BundleError(f"{path}: {what} does not hold; export the bundle again")
    return bundle


def _conditions(bundle: Bundle) -> dict[str, bool]:
    """What the run time relies on."""
    features, letters = bundle.features, [head.tokens for head in bundle.heads if head.name == "letters"]
    conditions = {
        "features.sample_rate in 4000..192000": 4000 <= features.sample_rate <= 192000,
        "0 < features.hop < features.window <= features.n_fft": 0 < features.hop < features.window <= features.n_fft,
        "a head 'letters' with a space among its tokens": any(" " in tokens[1:] for tokens in letters),
    }
    if search := bundle.search:
        own = [len(head.tokens) for head in bundle.heads if head.name == search.head]
        conditions["search.head among the heads"] = bool(own)
        conditions["search.beam.token_penalties: one for each token of search.head but the blank, or none"] = len(
            search.beam.token_penalties
        ) in (0, *(tokens - 1 for tokens in own))
        conditions["search.sha256 of search's files"] = set(search.sha256) == set(search.files)
        conditions["search's files in the bundle's own folder"] = all(Path(file).name == file for file in search.files)
        conditions["tuning of the decoder 'beam'"] = "beam" in bundle.tuning
        if rescoring := search.rescoring:
            conditions["search.rescoring: 0 < share < 1, hypotheses > 0, decide >= 0, margin >= 0"] = (
                0.0 < rescoring.share < 1.0
                and rescoring.hypotheses > 0
                and min(rescoring.decide, rescoring.margin) >= 0
            )
    conditions["default among the graphs"] = bundle.default in bundle.graphs
    conditions["tuning of the decoder 'greedy'"] = "greedy" in bundle.tuning
    for name, graph in bundle.graphs.items():
        where = f"graphs.{name}: "
        conditions[where + "stride > 0, a multiple of features.hop"] = (
            graph.stride > 0 and features.hop > 0 and graph.stride % features.hop == 0
        )
        conditions[where + "block >= 0, a multiple of stride"] = (
            graph.block >= 0 and graph.stride > 0 and graph.block % graph.stride == 0
        )
        conditions[where + "delay >= 0"] = graph.delay >= 0
        conditions[where + "file in the bundle's own folder"] = Path(graph.file).name == graph.file
    return conditions


def write_bundle(bundle: Bundle) -> None:
    """Write bundle.json into bundle.folder, whole or not at all."""
    values = asdict(bundle)
    del values["folder"]
    write_whole(bundle.folder / METADATA, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """A file that appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
