"""The checkpoints of a run -> the bundled model: python -m recipes.mini.bundle [--average N]

Averages the weights of the last N epochs, exports, and fits word times and confidence on dev.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from export.onnx import make_bundle
from recipes.mini.card import write_card
from recipes.mini.data import speech_sources
from streamasr.recognizer import BUNDLED
from streamasr.training.checkpoint import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("work/mini"), help="folder of the run")
    parser.add_argument("--average", type=int, default=1, metavar="N", help="epochs to average")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    arguments = parser.parse_args()
    checkpoints = sorted(arguments.work.glob("epoch-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    model = load_model(checkpoints[-arguments.average :])
    bundle = make_bundle(model, arguments.out, arguments.out.name, speech_sources(arguments.shared))
    print(
        f"{arguments.out}: {', '.join(path.name for path in checkpoints[-arguments.average :])}, "
        f"differs from torch by {bundle.graphs['fp32'].parity:.1e} at most"
    )
    subprocess.run(
        [sys.executable, "-m", "recipes.mini.tune", str(arguments.out), "--shared", str(arguments.shared)], check=True
    )
    write_card(arguments.out)


if __name__ == "__main__":
    main()
