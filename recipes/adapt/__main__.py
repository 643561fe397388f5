"""Let one layer over a bundle learn its speaker: python -m recipes.adapt BUNDLE MANIFEST --out FOLDER

MANIFEST: one JSON object a line with audio (a path from the manifest's folder), text, speaker and
seconds. The network stays as it is; a diagonal layer below its heads learns, by real-time recurrent
learning, so that memory does not grow with a recording's length. Writes a bundle that has it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from export.restore import restore
from recipes.adapt.labels import LEAST, recordings
from recipes.adapt.learn import LearnConfig, learn
from recipes.adapt.network import Adaptive
from recipes.finetune.__main__ import KEPT_BACK, common_arguments, conclude, number
from recipes.finetune.tune import split, within
from recipes.finetune.write import check, write
from recipes.program import run
from streamasr.bundle import Source, read_bundle
from streamasr.errors import StreamasrError
from streamasr.manifest import read_manifest
from streamasr.training.loop import start_processes

LEARN = LearnConfig()


def read_arguments(line: Sequence[str]) -> argparse.Namespace:
    parser = common_arguments("python -m recipes.adapt", __doc__)
    add = parser.add_argument
    add("--finals", action="store_true", help="learn from what the recogniser hears, where it is sure, not from texts")
    add("--least", type=number(float, 0.0, 1.0), default=LEAST, help=f"how sure, with --finals (default: {LEAST})")
    add("--rate", type=number(float, 0.0), default=LEARN.rate, help=f"of learning (default: {LEARN.rate})")
    add("--epochs", type=number(int, 0), default=LEARN.epochs, help=f"at most so many (default: {LEARN.epochs})")
    add("--again", action="store_true", help="run the network for every pass: slow, and nothing of it is kept")
    add("--cache", type=Path, help="folder of decoded recordings, kept (default: one that is thrown away)")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    arguments = read_arguments(sys.argv[1:] if line is None else line)
    start_processes()
    old = read_bundle(arguments.bundle)
    check(old, arguments.out, None, None)
    alphabet = set(old.head("letters")[1][1:])
    utterances = read_manifest(arguments.manifest, alphabet)
    if arguments.minutes is not None:
        utterances = within(utterances, arguments.minutes)
    train, held_out = split(utterances, arguments.hold_out)
    speech = {KEPT_BACK: held_out}
    if arguments.general:
        speech["general"] = read_manifest(arguments.general, alphabet)
    torch.manual_seed(LEARN.seed)
    model = Adaptive(restore(old))
    least = arguments.least if arguments.finals else None
    with tempfile.TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder)
        own, judge = (recordings(model, old, some, cache, least, arguments.again) for some in (train, held_out))
        if not own or not judge:
            raise StreamasrError(f"no final is surer than {least}: give a lower --least, or texts without --finals")
        learn(model, own, judge, replace(LEARN, rate=arguments.rate, epochs=arguments.epochs))
    hours = round(sum(u.seconds for u in train) / 3600.0, 2)
    source = Source(arguments.source or arguments.manifest.stem, arguments.licence, hours)
    conclude(old, write(model.model, old, arguments.out, source, None), speech)


if __name__ == "__main__":
    run(main, "interrupted")
