"""What each trained member is worth, through ONNX: python -m recipes.family.measure [NAME...] [--write]

Every third utterance of dev, greedy letters and words with the bundled language model, one by one and glued together
into recordings of five minutes. The second pass joins the members gru and bidirectional, the first for partial text,
the second for the last word.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.onnx import make_bundle
from export.restore import restore
from export.second import add_second
from export.words import add_words
from recipes.family.members import FAMILY, Experiment, Member
from recipes.family.speed import read_speeds
from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import read_section, write_section
from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle, read_bundle
from streamasr.errors import StreamasrError
from streamasr.manifest import read_manifest
from streamasr.recognizer import BUNDLED, Recognizer, load
from streamasr.training.checkpoint import count_parameters, epochs, load_checkpoint, load_model
from streamasr.training.evaluation import ErrorCount
from streamasr.training.loop import start_processes
from streamasr.words import word_search

FIRST, SECOND, TWO = "gru", "bidirectional", "two passes"
TIMED_S = 10.0  # of audio, for the real-time factor
LONG_S = 300.0  # of audio that utterances are glued into
NARROW: dict[str, Any] = {
    "hypotheses": 200,
    "histories": 1,
    "width": 11.0,
}  # young networks are unsure, and a search for them is slow

Speech = list[tuple[str, NDArray[np.float32]]]  # what is said, samples at 16 kHz


@dataclass(frozen=True)
class Row:
    """One line of the table; rates from 0 to 1."""

    name: str
    says: str
    parameters: int
    hours_per_hour: float
    latency_ms: float  # infinite: the whole utterance is waited for
    factor: float  # real-time factor of the network
    megabytes: float
    cer: float  # not a number: that head has not learned
    wer: float
    long_wer: float


def glued(speech: Speech) -> Speech:
    """One after the other, in pieces of about LONG_S."""
    long: Speech = []
    texts: list[str] = []
    parts: list[NDArray[np.float32]] = []
    for text, audio in speech:
        texts.append(text)
        parts.append(audio)
        if sum(map(len, parts)) >= LONG_S * 16000:
            long.append((" ".join(texts), np.concatenate(parts)))
            texts, parts = [], []
    return long or [(" ".join(texts), np.concatenate(parts))]


def export(folder: Path) -> Bundle:
    """The last checkpoint as a bundle beside it, with the words of the bundled model."""
    bundle = make_bundle(load_model(epochs(folder)[-1:]), folder / "bundle", folder.name, ())
    search = word_search(read_bundle(BUNDLED))
    files = (BUNDLED / search.lm, BUNDLED / search.lexicon, BUNDLED / search.g2p)
    add_words(bundle.folder, "phones", files, replace(search.beam, **NARROW))
    return read_bundle(bundle.folder)


def errors(greedy: Recognizer, beam: Recognizer, speech: Speech) -> tuple[float, float, float]:
    """Letter error of the greedy recogniser; word error of the other one, and that of glued speech."""
    letters, words, long = ErrorCount(), ErrorCount(), ErrorCount()
    for text, audio in tqdm(speech, leave=False):
        letters.add(list(text), list(" ".join(word.text for word in greedy.transcribe(audio).words)))
        words.add(text.split(), [word.text for word in beam.transcribe(audio).words])
    for text, audio in glued(speech):
        long.add(text.split(), [word.text for word in beam.transcribe(audio).words])
    return letters.rate, words.rate, long.rate


def real_time_factor(acoustic: Acoustic, speech: Speech) -> float:
    """Of the network alone; the median of five runs."""
    audio = np.resize(speech[0][1], int(TIMED_S * 16000))
    times = []
    for _ in range(5):
        begin = time.thread_time()
        acoustic.whole(audio)
        times.append(time.thread_time() - begin)
    return float(np.median(times)) / TIMED_S


def latency_ms(bundle: Bundle) -> float:
    """Algorithmic: how long a frame waits at most."""
    graph = bundle.graphs["fp32"]
    return 1000.0 * graph.latency / bundle.sample_rate if graph.block else float("inf")


def read_speech(shared: Path, every: int) -> Speech:
    """So many-th utterances of dev."""
    utterances = read_manifest(shared / "speech" / "dev.jsonl", LETTERS)[::every]
    return [(utterance.text, read_16k(utterance.audio)) for utterance in utterances]


def measure(member: Member, speed: float, folder: Path, speech: Speech) -> Row:
    """One trained member."""
    saved: dict[str, Any] = load_checkpoint(folder / "last.pt")
    bundle = export(folder)
    path = bundle.folder
    cer, wer, long_wer = errors(load(path, greedy=True), load(path), speech)
    weights = member.config.head_weights
    return Row(
        folder.name,
        member.says,
        count_parameters(saved),
        speed,
        latency_ms(bundle),
        real_time_factor(Acoustic(bundle), speech),
        (path / "fp32.onnx").stat().st_size / 1e6,
        cer if weights["letters"] else float("nan"),
        *((wer, long_wer) if weights["phones"] else (float("nan"), float("nan"))),
    )


def two_passes(rows: dict[str, Row], work: Path, speech: Speech) -> Row:
    """The first member's partial text, the second one's last word."""
    first, second = rows[FIRST], rows[SECOND]
    path = work / FIRST / "bundle"
    add_second(path, load_model(epochs(work / SECOND)[-1:]))
    return Row(
        TWO,
        f"{FIRST} while it is said, {SECOND} when it has ended",
        first.parameters + second.parameters,
        float("nan"),
        first.latency_ms,
        first.factor + second.factor,
        first.megabytes + second.megabytes,
        *errors(load(path, greedy=True, second_pass=True), load(path, second_pass=True), speech),
    )


def bundled(speech: Speech) -> Row:
    """The model that ships, which learned from all the speech and for hours: only its last two columns compare."""
    bundle = read_bundle(BUNDLED)
    return Row(
        bundle.name,
        "the bundled model, trained much longer",
        sum(parameter.numel() for parameter in restore(bundle).body.parameters()),
        float("nan"),
        latency_ms(bundle),
        real_time_factor(Acoustic(bundle, "fp32"), speech),
        (BUNDLED / "fp32.onnx").stat().st_size / 1e6,
        *errors(load(greedy=True), load(), speech),
    )


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown."""
    lines = [
        "| member | what it is | parameters | hours an hour | CER % | WER % | WER % glued "
        "| latency ms | RTF | ms per 160 ms | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speed = _figure(row.hours_per_hour, 0)
        rates = " | ".join(_figure(100 * rate, 1) for rate in (row.cer, row.wer, row.long_wer))
        wait = "the utterance" if np.isinf(row.latency_ms) else f"{row.latency_ms:.0f}"
        if row.name == TWO:
            wait += ", then the utterance"
        lines.append(
            f"| {row.name} | {row.says} | {row.parameters:,} | {speed} | {rates} "
            f"| {wait} | {row.factor:.4f} | {160 * row.factor:.2f} | {row.megabytes:.1f} |"
        )
    return lines


def joined(lines: list[str], before: list[str]) -> list[str]:
    """A table with the rows of `lines` in place of those of the same name; StreamasrError if it is of other speech."""

    def name(line: str) -> str:
        return line.split("|")[1].strip() if line.startswith("|") else ""

    if not any(map(name, before)):
        return lines
    said = [line for line in lines if "utterances of dev" in line]
    if said != [line for line in before if "utterances of dev" in line]:
        raise StreamasrError(f"the table is not of {said[0]}; measure all members, or as many utterances (--every)")
    new = {name(line): line for line in lines if name(line)}
    made = [new.pop(name(line), line) if name(line) else line for line in before]
    last = max(i for i, line in enumerate(made) if name(line))  # the bundled model
    return [*made[:last], *new.values(), *made[last:]]


def _figure(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Error against latency, of the members that differ in nothing else."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    axes = figure.subplots()
    shown = [
        row for row in rows if row.name.startswith(("latency-", "no-look", FIRST, SECOND)) and "-2" not in row.name
    ]
    end = 1.3 * max([row.latency_ms for row in shown if np.isfinite(row.latency_ms)], default=1.0)
    for unit, marker in (("wer", "o"), ("cer", "s")):
        waits = [min(row.latency_ms, end) for row in shown]
        axes.scatter(waits, [100 * getattr(row, unit) for row in shown], marker=marker, label=unit.upper())
    for row in shown:
        axes.annotate(
            row.name, (min(row.latency_ms, end), 100 * row.wer), fontsize=7, xytext=(3, 4), textcoords="offset points"
        )
    axes.set(xlabel="algorithmic latency (ms; at the right edge: the whole utterance)", ylabel="error on dev (%)")
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all; the others keep their rows")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--experiment", type=Path, default=FAMILY, metavar="TOML")
    parser.add_argument("--work", type=Path, help="in place of the experiment's folder")
    parser.add_argument("--every", type=int, default=3, help="so many-th utterance of dev (default 3)")
    parser.add_argument("--write", action="store_true", help="into the experiment's RESULTS.md")
    arguments = parser.parse_args()
    experiment = Experiment.read(arguments.experiment)
    work = arguments.work or experiment.work
    speech = read_speech(arguments.shared, arguments.every)
    members = experiment.choose(arguments.names)
    speeds = read_speeds(experiment.work, (member.name for member in members))
    tasks = [
        (member, speeds[member.name], folder)
        for member in members
        for folder in sorted(path for path in work.glob(f"{member.name}*") if _is_run(path, member.name))
    ]
    rows: dict[str, Row] = {}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(partial(_measure_in_process, arguments.shared, arguments.every), tasks):
            rows[row.name] = row
            print(table([row])[-1], flush=True)
    drawn = {FIRST, SECOND} <= rows.keys()
    if drawn:
        rows[TWO] = two_passes(rows, work, speech)
    rows["bundled"] = bundled(speech)
    minutes = sum(len(audio) for _, audio in speech) / 16000 / 60
    lines = [*table(list(rows.values())), "", f"{len(speech)} utterances of dev, {minutes:.0f} minutes."]
    if drawn and arguments.write:
        draw(list(rows.values()), experiment.results.parent / "latency.png")
        lines += ["", "![error against latency](latency.png)"]
    print("\n".join(lines))
    if arguments.write:
        if arguments.names:
            lines = joined(lines, read_section(experiment.results, experiment.section).splitlines())
        write_section(experiment.results, experiment.section, "\n".join(lines))


def _measure_in_process(shared: Path, every: int, task: tuple[Member, float, Path]) -> Row:
    start_processes()
    return measure(*task, read_speech(shared, every))


def _is_run(path: Path, name: str) -> bool:
    """NAME, or NAME-SEED, with a checkpoint in it."""
    seed = path.name.removeprefix(name).removeprefix("-")
    return (seed == "" or seed.isdecimal()) and (path / "last.pt").exists()


if __name__ == "__main__":
    run(main)
