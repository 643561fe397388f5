"""The sibling beside the bundled model: python -m recipes.tiny.measure [--hear] [--write]

Errors on dev and test, as they stand in the bundles; with --hear the sibling's are measured anew (those of the bundled
model by recipes.mini.evaluate). What the network asks of a processor, what all of it takes of memory and time on one
core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from export.restore import restore
from recipes.boards.expect import BOARDS, count, expected
from recipes.mini import evaluate
from recipes.mini.card import write_card
from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from recipes.tiny.bundle import BUNDLE, HERE
from streamasr.bundle import read_bundle, write_bundle
from streamasr.footprint import folder_bytes, transcribing_bytes
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import BUNDLED, load

TIMED_S = 60  # of speech, for time and memory
DECODERS = ("beam", "greedy")


def costs(folder: Path, speech: tuple[Utterance, ...]) -> list[tuple[str, str]]:
    """Everything else that the table tells of a model."""
    bundle = read_bundle(folder)
    audio = np.concatenate([read_16k(utterance.audio) for utterance in speech[:: len(speech) // 20]])
    audio = np.resize(audio, TIMED_S * bundle.sample_rate)
    need, board = count(bundle), BOARDS[0]
    rows = [
        ("parameters", f"{sum(weights.numel() for weights in restore(bundle).body.parameters()):,}"),
        ("int8 network, MB", f"{(folder / bundle.graphs['int8'].file).stat().st_size / 1e6:.2f}"),
        ("all files, MB", f"{folder_bytes(folder) / 1e6:.1f}"),
        ("million multiply-adds a second of audio", f"{(need.integer + need.floating) / 1e6:.0f}"),
        (f"real-time factor of the network on a {board.name}, computed", f"{expected(need, board):.3f}"),
    ]
    for name in DECODERS:
        recognizer = load(folder, greedy=name == "greedy")
        began = time.process_time()
        recognizer.transcribe(audio)
        factor = (time.process_time() - began) / TIMED_S
        memory = transcribing_bytes(folder, audio, bundle.sample_rate, *["--greedy"][: name == "greedy"]) / 1e6
        rows += [(f"{name}: real-time factor here", f"{factor:.4f}"), (f"{name}: memory, MB", f"{memory:.0f}")]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--hear", action="store_true", help="all of dev and test by the sibling")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md, the sibling's card and bundle")
    arguments = parser.parse_args()
    speech = {
        split: tuple(read_manifest(arguments.shared / "speech" / f"{split}.jsonl", LETTERS))
        for split in ("dev", "test")
    }
    measured = {folder: read_bundle(folder).measured for folder in (BUNDLE, BUNDLED)}
    if arguments.hear:
        measured[BUNDLE] = evaluate.figures(evaluate.hear_splits(BUNDLE, DECODERS, speech))
        if arguments.write:
            write_bundle(replace(read_bundle(BUNDLE), measured=measured[BUNDLE]))
            write_card(BUNDLE, HERE.name)
    columns: dict[str, list[tuple[str, str]]] = {}
    for folder, errors in measured.items():
        rows = [
            (
                f"{split}, {name}: WER, CER %",
                ", ".join(f"{100 * errors[f'{name}_{split}_{of}']:.1f}" for of in ("wer", "cer")),
            )
            for name in DECODERS
            for split in speech
        ]
        columns[folder.name] = rows + costs(folder, speech["dev"])
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for cells in zip(*columns.values(), strict=True):
        lines.append(f"| {cells[0][0]} | {' | '.join(value for _, value in cells)} |")
    print("\n".join(lines))
    if arguments.write:
        write_section(HERE / "RESULTS.md", "measure", "\n".join(lines))


if __name__ == "__main__":
    run(main)
