"""Train a model; called again, the same command goes on where it was stopped.

One process:    python -m recipes.mini.train
Two cores:      torchrun --nproc-per-node 2 -m recipes.mini.train
The bundled model's later sittings: --init BUNDLE --config recipes/mini/second.toml (to ninth;
the last two with --synthetic)
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from export.restore import restore
from recipes.mini.data import HEADS, corpus, synthetic
from recipes.program import run
from streamasr.bundle import read_bundle
from streamasr.training.config import TrainConfig
from streamasr.training.loop import Trainer, start_processes

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with speech/, noise/, lexicon/")
    parser.add_argument("--config", type=Path, default=HERE / "first.toml", help="default: first.toml")
    parser.add_argument("--work", type=Path, default=Path("work/mini"), help="folder for checkpoints and the log")
    parser.add_argument("--cache", type=Path, default=Path("work/cache"), help="folder for decoded audio")
    parser.add_argument("--init", type=Path, metavar="BUNDLE", help="a new run begins with this model's weights")
    parser.add_argument("--synthetic", action="store_true", help="learn from the speech of recipes.mini.synthetic, too")
    parser.add_argument("--teacher", type=Path, metavar="BUNDLE", help="a model to learn from (`teaching` in --config)")
    arguments = parser.parse_args()
    start_processes()
    arguments.work.mkdir(parents=True, exist_ok=True)
    config = TrainConfig.read(arguments.config)
    start, teacher = (restore(read_bundle(path)) if path else None for path in (arguments.init, arguments.teacher))
    also = synthetic() if arguments.synthetic else []
    data = corpus(arguments.shared, arguments.cache, also)
    Trainer(config, HEADS, replace(data, synthetic=also), arguments.work, start, teacher).run()


if __name__ == "__main__":
    run(main)
