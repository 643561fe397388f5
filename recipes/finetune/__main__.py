"""Let a bundle learn from your own recordings: python -m recipes.finetune BUNDLE MANIFEST --out FOLDER

MANIFEST: one JSON object a line with audio (a path from the manifest's folder), text, speaker and
seconds. A part of it is kept back: it says after which epoch the network is best, and what that was
worth. Writes a bundle with everything the old one had, and prints error rates before and after.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from recipes.finetune.report import Speech, measure, results, table
from recipes.finetune.tune import CONFIG, KEEP, PATIENCE, Task, finetune, split, within
from recipes.program import run
from streamasr.bundle import Bundle, Source, read_bundle, write_bundle
from streamasr.manifest import read_manifest
from streamasr.training.config import TrainConfig
from streamasr.training.loop import start_processes

KEPT_BACK = "kept back"


def number(kind: Callable[[str], float], least: float, most: float = 1e9) -> Callable[[str], float]:
    """A type for argparse."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = least - 1.0
        if not least <= value <= most:
            limits = f"{least:g} to {most:g}" if most < 1e9 else f"at least {least:g}"
            raise argparse.ArgumentTypeError(f"{text}: expected {kind.__name__}, {limits}")
        return value

    return parse


def common_arguments(program: str, description: str | None) -> argparse.ArgumentParser:
    """What recipes.adapt asks for as well."""
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("manifest", type=Path, metavar="MANIFEST")
    add("--out", type=Path, required=True, metavar="FOLDER", help="the new bundle")
    add("--minutes", type=number(float, 0.0), help="use at most so much of the manifest")
    add("--hold-out", type=number(int, 2), default=10, metavar="N", help="keep back every Nth line (default: 10)")
    add("--general", type=Path, metavar="MANIFEST", help="other speech, to see what is forgotten")
    add("--source", help="what the bundle calls the recordings (default: the manifest's name)")
    add("--licence", default="not stated", help="of the recordings")
    return parser


def read_arguments(line: Sequence[str]) -> argparse.Namespace:
    parser = common_arguments("python -m recipes.finetune", __doc__)
    add = parser.add_argument
    add("--dev", type=Path, metavar="MANIFEST", help="keep back these instead")
    add("--freeze", nargs="+", default=[], metavar="STAGE", help="does not learn: conv1, conv2, gru1, ...")
    add("--keep", type=number(float, 0.0, 1.0), default=KEEP, help=f"share of the old weights (default: {KEEP})")
    add("--alphabet", metavar="LETTERS", help="other letters; those that stay keep their weights")
    add("--lm", type=Path, help="other words: a language model made by `streamasr lm`")
    add("--config", type=Path, default=CONFIG, help="default: recipes/finetune/config.toml")
    add("--epochs", type=number(float, 0.0), help="at most so many")
    add("--rate", type=number(float, 0.0), help="of learning, at its highest")
    add("--patience", type=number(int, 0), default=PATIENCE, help="epochs without a better one before it stops")
    return parser.parse_args(line)


def read_task(old: Bundle, arguments: argparse.Namespace) -> tuple[Task, Speech]:
    """What to learn, and what to measure on. All manifests are checked here."""
    alphabet = set(old.head("letters")[1][1:])
    wanted = alphabet if arguments.alphabet is None else {" ", *arguments.alphabet}
    utterances = read_manifest(arguments.manifest, wanted)
    if arguments.minutes is not None:
        utterances = within(utterances, arguments.minutes)
    if arguments.dev:
        train, held_out = utterances, read_manifest(arguments.dev, wanted)
    else:
        train, held_out = split(utterances, arguments.hold_out)
    speech = {KEPT_BACK: held_out}
    if arguments.general:
        speech["general"] = read_manifest(arguments.general, alphabet | wanted)
    hours = round(sum(u.seconds for u in train) / 3600.0, 2)
    source = Source(arguments.source or arguments.manifest.stem, arguments.licence, hours)
    task = Task(
        train,
        held_out,
        source,
        freeze=arguments.freeze,
        keep=arguments.keep,
        alphabet=arguments.alphabet,
        lm=arguments.lm,
        patience=arguments.patience,
    )
    return task, speech


def read_config(arguments: argparse.Namespace) -> TrainConfig:
    """The file, with what was said on the command line in its place."""
    config = TrainConfig.read(arguments.config)
    if arguments.epochs is not None:
        config = replace(config, epochs=arguments.epochs)
    if arguments.rate is not None:
        config = replace(config, optimiser=replace(config.optimiser, rate=arguments.rate))
    return config


def conclude(old: Bundle, new: Bundle, speech: Speech) -> None:
    """Measure both, note in the new one what it reached, and print it."""
    before, after = measure(old.folder, speech), measure(new.folder, speech)
    write_bundle(replace(new, measured=results(after)))
    print(f"\n{table(speech, before, after)}\n")
    print("What was kept back also chose the epoch: other recordings may come out a little worse.")
    print(f"{new.folder}: written")


def main(line: Sequence[str] | None = None) -> None:
    arguments = read_arguments(sys.argv[1:] if line is None else line)
    start_processes()
    old, config = read_bundle(arguments.bundle), read_config(arguments)
    task, speech = read_task(old, arguments)
    new = finetune(old, arguments.out, task, config)
    conclude(old, new, speech)
    if gone := sorted(old.graphs.keys() - new.graphs.keys()):
        print(f"It has no graph {', '.join(gone)}; `python -m export.quantize` makes int8 again.")


if __name__ == "__main__":
    run(main, "interrupted")
