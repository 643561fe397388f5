"""`streamasr bench`: what recognition costs on one core of this machine, and how many words come out right."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from streamasr import bench_network
from streamasr.bench_network import CLOCK
from streamasr.events import Event, Final
from streamasr.footprint import cold_start_s, folder_bytes, install_bytes, one_core, processor_name, transcribing_bytes
from streamasr.manifest import read_manifest
from streamasr.recognizer import Recognizer, load
from streamasr.sources import open_file
from streamasr.sources.resample import Resampler
from streamasr.version import __version__

Floats = NDArray[np.float32]
Listen = Callable[[Floats], str]

PIECES_MS = (40, 160, 640)
SYNTHETIC_S = 6.0  # length of a made-up utterance
MEMORY_S = 180.0  # length of the recording whose transcription shows the peak of memory
PEER_HZ = 16000


@dataclass(frozen=True)
class Row:
    """One line of the table; NaN where something cannot be known here."""

    name: str
    ours: float
    peer: float = math.nan


@dataclass
class Tally:
    """What one recogniser has needed and heard so far."""

    cost_s: float = 0.0  # of all the audio
    pieces_s: list[float] = field(default_factory=list)  # of each piece
    texts: list[str] = field(default_factory=list)


@dataclass
class Heard:
    """What all contestants made of the same audio."""

    pieces: dict[int, Tally]  # by their length in ms
    whole: Tally  # utterances in one piece
    peer: Tally | None
    references: list[str] = field(default_factory=list)
    kept: list[Floats] = field(default_factory=list)  # the first MEMORY_S of the audio
    seconds: float = 0.0


def run(model: Path | None, manifest: Path | None, utterances: int, streams: int = 0) -> int:
    """Measure and print a table. Without a manifest the audio is synthetic, and there are no error rates.

    streams: so many are also stepped together.
    """
    with one_core():
        recognizer = load(model)
        recognizer.must_hear_blocks()
        rows, notes = measure(recognizer, manifest, utterances, streams)
    for note in [*_heading(recognizer), *notes]:
        print(note)
    print()
    print(table(rows))
    return 0


def measure(
    recognizer: Recognizer, manifest: Path | None, utterances: int, streams: int = 0
) -> tuple[list[Row], list[str]]:
    """All rows of the table, and what must be known to read them."""
    heard = _hear_all(recognizer, manifest, utterances, pocketsphinx(recognizer) if manifest else None)
    notes = [_describe_audio(manifest, len(heard.references), heard.seconds)]
    if heard.peer:
        notes.append(f"pocketsphinx {metadata.version('pocketsphinx')}: its default model, each utterance in one piece")
    elif manifest:
        notes.append("pocketsphinx: not installed; to hear the same audio with it: pip install 'streamasr[bench]'")
    rows = _error_rates(heard, notes) if manifest else []
    rows += _speed(recognizer, heard)
    rows += [Row(*row) for row in bench_network.graphs(recognizer.bundle, np.concatenate(heard.kept))]
    if streams:
        rows += [Row(*row) for row in bench_network.streams(recognizer.bundle, heard.kept, streams)]
    return rows + _footprint(recognizer, heard), notes


def _hear_all(recognizer: Recognizer, manifest: Path | None, utterances: int, listen: Listen | None) -> Heard:
    """One utterance after the other through every contestant, so that a busy minute of the machine meets all."""
    rate = recognizer.bundle.sample_rate
    heard = Heard({ms: Tally() for ms in PIECES_MS}, Tally(), Tally() if listen else None)
    hear_pieces(recognizer, np.zeros(rate, dtype=np.float32), rate, Tally())  # first calls are slower than all others
    audio = _audio(recognizer, manifest, utterances)
    for samples, text in tqdm(audio, total=utterances, unit="utterance", leave=False, disable=None):
        for ms, tally in heard.pieces.items():
            hear_pieces(recognizer, samples, rate * ms // 1000, tally)
        hear_pieces(recognizer, samples, len(samples), heard.whole)
        if listen and heard.peer:
            begin = CLOCK()
            heard.peer.texts.append(normalise(listen(samples)))
            heard.peer.cost_s += CLOCK() - begin
        heard.references.append(normalise(text))
        if heard.seconds < MEMORY_S:
            heard.kept.append(samples)
        heard.seconds += len(samples) / rate
    return heard


def _speed(recognizer: Recognizer, heard: Heard) -> list[Row]:
    peer = heard.peer.cost_s / heard.seconds if heard.peer else math.nan
    rows = [Row("real-time factor, whole utterances", heard.whole.cost_s / heard.seconds, peer)]
    for ms, tally in heard.pieces.items():
        rows.append(Row(f"real-time factor, pieces of {ms} ms", tally.cost_s / heard.seconds))
    for ms, tally in heard.pieces.items():
        median, high = np.percentile(tally.pieces_s, [50, 99])
        rows.append(Row(f"a piece of {ms} ms, median (ms)", float(median) * 1e3))
        rows.append(Row(f"a piece of {ms} ms, 99 % (ms)", float(high) * 1e3))
    texts = zip(heard.whole.texts, *(tally.texts for tally in heard.pieces.values()), strict=True)
    rows.append(Row("texts that depend on the pieces", sum(len(set(same)) > 1 for same in texts)))
    return [
        *rows,
        Row("algorithmic latency (ms)", recognizer.acoustic.graph.latency / recognizer.bundle.sample_rate * 1e3),
    ]


def _footprint(recognizer: Recognizer, heard: Heard) -> list[Row]:
    rate, model = recognizer.bundle.sample_rate, recognizer.bundle.folder
    audio = np.resize(np.concatenate(heard.kept), int(MEMORY_S * rate))  # repeated where it is too short
    return [
        Row("cold start of the command (ms)", cold_start_s(model, audio[: rate // 2], rate) * 1e3),
        Row(f"peak memory, {MEMORY_S / 60.0:.0f} minutes (MB)", transcribing_bytes(model, audio, rate) / 1e6),
        Row("install size without model (MB)", install_bytes() / 1e6),
        Row("model size (MB)", folder_bytes(model) / 1e6, _peer_model_bytes() / 1e6 if heard.peer else math.nan),
    ]


def table(rows: list[Row]) -> str:
    """The rows as text; a peer's columns only where there is one."""
    peer = any(not math.isnan(row.peer) for row in rows)
    lines = [f"{'':38}{'streamasr':>12}" + (f"{'pocketsphinx':>15}{'ratio':>9}" if peer else "")]
    for row in rows:
        line = f"{row.name:38}{_number(row.ours):>12}"
        if not math.isnan(row.peer):
            ratio = row.ours / row.peer if row.peer else math.nan
            line += f"{_number(row.peer):>15}{_number(ratio):>9}"
        lines.append(line)
    return "\n".join(lines)


def hear_pieces(recognizer: Recognizer, audio: Floats, piece: int, tally: Tally) -> None:
    """One utterance as a stream of pieces of so many samples."""
    stream = recognizer.stream()
    events: list[Event] = []
    for start in range(0, len(audio), piece):
        begin = CLOCK()
        events += stream.accept(audio[start : start + piece])
        tally.pieces_s.append(CLOCK() - begin)
        tally.cost_s += tally.pieces_s[-1]
    begin = CLOCK()
    events += stream.finish()
    tally.cost_s += CLOCK() - begin
    tally.texts.append(normalise(" ".join(event.text for event in events if isinstance(event, Final))))


def _audio(recognizer: Recognizer, manifest: Path | None, count: int) -> Iterator[tuple[Floats, str]]:
    """Samples at the model's rate, and what is said in them."""
    rate = recognizer.bundle.sample_rate
    if manifest is None:
        for seed in range(count):
            yield _synthetic(rate, seed), ""
        return
    tokens = recognizer.bundle.head("letters")[1]
    found = read_manifest(manifest, "".join(tokens[1:]))
    for i in range(min(count, len(found))):
        utterance = found[i * len(found) // min(count, len(found))]  # evenly spaced: manifests are sorted by speaker
        with open_file(utterance.audio) as source:
            resampler = Resampler(source.rate, rate)
            parts = [resampler.push(chunk) for chunk in source.chunks()]
            yield np.concatenate([*parts, resampler.finish()]), utterance.text


def _synthetic(rate: int, seed: int) -> Floats:
    """Noise that swells four times a second, as syllables do."""
    rng = np.random.default_rng(seed)
    count = int(SYNTHETIC_S * rate)
    swell = 0.5 - 0.5 * np.cos(2.0 * np.pi * 4.0 * np.arange(count) / rate)
    return (0.1 * swell * rng.standard_normal(count)).astype(np.float32)


def normalise(text: str) -> str:
    """Lower case, single spaces, and PocketSphinx's second pronunciations, as word(2), without their numbers."""
    return " ".join(re.sub(r"\(\d+\)", "", text).lower().split())


def _error_rates(heard: Heard, notes: list[str]) -> list[Row]:
    try:
        jiwer: Any = import_module("jiwer")
    except ImportError:
        notes.append("error rates: need jiwer, which is not installed; pip install jiwer")
        return []
    spoken = [i for i, reference in enumerate(heard.references) if reference]  # a rate needs words to divide by
    if not spoken:
        return []

    def percent(rate: Callable[[list[str], list[str]], float], tally: Tally | None) -> float:
        if tally is None:
            return math.nan
        return 100.0 * rate([heard.references[i] for i in spoken], [tally.texts[i] for i in spoken])

    return [
        Row("word error rate (%)", percent(jiwer.wer, heard.whole), percent(jiwer.wer, heard.peer)),
        Row("letter error rate (%)", percent(jiwer.cer, heard.whole), percent(jiwer.cer, heard.peer)),
    ]


def pocketsphinx(recognizer: Recognizer) -> Listen | None:
    """A small recogniser of an older kind, where it is installed."""
    try:
        decoder: Any = import_module("pocketsphinx").Decoder(samprate=PEER_HZ, loglevel="FATAL")
    except (ImportError, OSError):
        return None

    def listen(audio: Floats) -> str:
        rate = recognizer.bundle.sample_rate
        mono = audio if rate == PEER_HZ else soxr.resample(audio, rate, PEER_HZ)
        decoder.start_utt()  # the whole utterance at once is what it recognises best
        decoder.process_raw((np.clip(mono, -1.0, 1.0) * 32767.0).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    return listen


def _peer_model_bytes() -> float:
    return folder_bytes(Path(import_module("pocketsphinx").get_model_path()))


def _heading(recognizer: Recognizer) -> list[str]:
    bundle = recognizer.bundle
    return [
        f"streamasr {__version__}, model {bundle.name} {bundle.version}, ONNX Runtime {onnxruntime.__version__}",
        f"one core of {os.cpu_count()}: {processor_name()}; times are of the processor, cold start by the clock",
    ]


def _describe_audio(manifest: Path | None, count: int, seconds: float) -> str:
    if manifest:
        return f"audio: {count} utterances of {manifest}, {seconds:.0f} s"
    return f"audio: synthetic, {seconds:.0f} s of swelling noise; for error rates: --manifest JSONL"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    if value == int(value):
        return str(int(value))
    return f"{value:.1f}" if abs(value) >= 10.0 else f"{value:.3f}"
