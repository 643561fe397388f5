"""An int8 graph beside the fp32 one: python -m export.quantize BUNDLE --calibration MANIFEST

Scales are measured on some utterances of the manifest (JSON lines: audio, text, speaker, seconds), then both
graphs hear the others, word for word as users do. The int8 graph is refused if it costs more than half a
point of word error, and becomes the bundle's default if it costs no more than a tenth of one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jiwer
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.calibrate import calibrate, products
from export.int8 import Scale, write_int8
from export.program import run
from export.restore import restore
from export.speech import read_speech
from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle, file_sha256, read_bundle, write_bundle
from streamasr.errors import StreamasrError
from streamasr.manifest import Utterance, read_manifest, spread
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.recognizer import Recognizer

Samples = NDArray[np.float32]
CALIBRATION = 48  # utterances
COMPARED = 40  # utterances for the table of stages
REFUSED, DEFAULT = 0.005, 0.001  # word error above fp32's


@dataclass(frozen=True)
class Cost:
    """How far one graph is from fp32 on the same speech."""

    changed: float  # share of frames where some head's best token is another
    mean: float  # absolute difference of log-probabilities above -10, where a decoder looks
    largest: float


def cost(bundle: Bundle, graph: Acoustic, expected: Sequence[NDArray[np.float32]], speech: Sequence[Samples]) -> Cost:
    """Compare a graph with what fp32 gave for the same recordings."""
    changed = frames = 0
    total, count, largest = 0.0, 0, 0.0
    for rows, audio in zip(expected, speech, strict=True):
        found = graph.whole(audio)
        other = np.zeros(len(rows), dtype=bool)
        for head in bundle.heads:
            where, _ = bundle.head(head.name)
            other |= found[:, where].argmax(axis=1) != rows[:, where].argmax(axis=1)
        off = np.abs(found - rows)[rows > -10.0]
        changed, frames = changed + int(other.sum()), frames + len(rows)
        total, count, largest = total + float(off.sum()), count + off.size, max(largest, float(off.max(initial=0.0)))
    return Cost(changed / frames, total / count, largest)


def stage_costs(
    model: AcousticModel, bundle: Bundle, scales: dict[str, Scale], speech: Sequence[Samples]
) -> dict[str, Cost]:
    """What each stage costs if it alone is computed in integers, and what all of them cost."""
    fp32 = Acoustic(bundle, "fp32")
    expected = [fp32.whole(audio) for audio in speech]
    trials = {name: {name: scales[name]} for name in scales} | {"all": scales}
    return {
        name: cost(bundle, opened(model, bundle, trial), expected, speech)
        for name, trial in tqdm(trials.items(), desc="stages", disable=None)
    }


def opened(model: AcousticModel, bundle: Bundle, scales: dict[str, Scale]) -> Acoustic:
    """The graph for some stages' scales, from a file that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        made = add_graph(model, replace(bundle, folder=Path(folder)), scales, 0.0)
        return Acoustic(made, "int8")


def add_graph(model: AcousticModel, bundle: Bundle, scales: dict[str, Scale], parity: float) -> Bundle:
    """Write int8.onnx into the bundle's folder; the bundle that knows of it."""
    fp32 = bundle.graphs["fp32"]
    path = bundle.folder / "int8.onnx"
    write_int8(model, scales, fp32.block, path)
    graph = replace(fp32, file=path.name, sha256=file_sha256(path), parity=parity)
    return replace(bundle, graphs={**bundle.graphs, "int8": graph})


def word_error(bundle: Bundle, graph: str, utterances: Sequence[Utterance]) -> float:
    """As users hear it, with the bundle's own decoder."""
    recognizer = Recognizer(bundle, graph)
    said = [
        " ".join(word.text for word in recognizer.transcribe(utterance.audio).words)
        for utterance in tqdm(utterances, desc=f"{graph} listens", disable=None)
    ]
    return float(jiwer.wer([u.text for u in utterances], said))


def quantize(
    folder: Path, manifest: Path, keep: Sequence[str] = (), most: int | None = None
) -> tuple[Bundle, list[str]]:
    """Add the int8 graph to the bundle in `folder`, or raise StreamasrError; also what was measured, as Markdown.

    keep: names of stages that stay in fp32. most: so many utterances decide about the word error; None: all
    but those that calibrate.
    """
    bundle = read_bundle(folder)
    alphabet = bundle.head("letters")[1][1:]
    utterances = read_manifest(manifest, alphabet)
    if len(utterances) < 2:
        raise StreamasrError(f"{manifest}: holds {len(utterances)} utterances, expected some to calibrate and to test")
    step = max(2, len(utterances) // CALIBRATION)
    rest = [u for i, u in enumerate(utterances) if i % step]
    model = restore(bundle)
    if unknown := set(keep) - {name for name, _ in products(model)}:
        raise StreamasrError(
            f"no stage {', '.join(sorted(unknown))}; there are {', '.join(n for n, _ in products(model))}"
        )
    scales = calibrate(model, (read_speech(u.audio, bundle.sample_rate) for u in utterances[::step]))
    scales = {name: scale for name, scale in scales.items() if name not in keep}
    compared = [read_speech(u.audio, bundle.sample_rate) for u in spread(rest, COMPARED)]
    costs = stage_costs(model, bundle, scales, compared)
    report = ["| stage in int8 | frames with another best token % | mean difference | largest |", "|---|---|---|---|"]
    for name, found in costs.items():
        report.append(f"| {name} | {100 * found.changed:.2f} | {found.mean:.4f} | {found.largest:.2f} |")
    fp32_only = replace(bundle, graphs={"fp32": bundle.graphs["fp32"]}, default="fp32")
    heard = spread(rest, most) if most else rest
    before = word_error(fp32_only, "fp32", heard)
    with tempfile.TemporaryDirectory(dir=folder.parent) as trial:
        for path in folder.iterdir():
            if path.is_file() and path.name != "int8.onnx":
                (Path(trial) / path.name).hardlink_to(path)
        made = add_graph(model, replace(fp32_only, folder=Path(trial)), scales, costs["all"].largest)
        after = word_error(made, "int8", heard)
        report += ["", f"Word error on {len(heard)} utterances: fp32 {100 * before:.2f} %, int8 {100 * after:.2f} %."]
        if after - before > REFUSED:
            raise StreamasrError(
                f"int8 costs {100 * (after - before):.2f} points of word error, more than {100 * REFUSED:.1f}: "
                "not written; leave the worst stages wide with --keep"
            )
        (made.folder / "int8.onnx").replace(folder / "int8.onnx")
    default = "int8" if after - before <= DEFAULT else "fp32"
    graphs = {**bundle.graphs, "int8": made.graphs["int8"]}
    made = replace(made, folder=folder, graphs=graphs, default=default)
    write_bundle(made)
    return made, report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.quantize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--calibration", type=Path, required=True, metavar="MANIFEST")
    parser.add_argument("--keep", nargs="+", default=[], metavar="STAGE", help="stages that stay in fp32")
    parser.add_argument("--utterances", type=int, metavar="N", help="decide about the word error by N (default: all)")
    arguments = parser.parse_args()
    bundle, report = quantize(arguments.bundle, arguments.calibration, arguments.keep, arguments.utterances)
    size = (bundle.folder / bundle.graphs["int8"].file).stat().st_size
    print("\n".join(report))
    print(f"{bundle.folder}: int8.onnx, {size / 1e6:.1f} MB; the default is {bundle.default}")


if __name__ == "__main__":
    run(main, "quantize")
