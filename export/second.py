"""A second network for a bundle, which reads every utterance again: python -m export.second BUNDLE CHECKPOINT...

It reads whole utterances, backwards too (ModelConfig.both without block_ms), and speaks of the same tokens as the
first one. Several checkpoints are averaged. `streamasr transcribe --second-pass` and `load(second_pass=True)` use it.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from export.graph import round_weights, write_graph
from export.program import run
from export.verify import TOLERANCE, difference
from streamasr.bundle import SECOND, Bundle, Graph, file_sha256, read_bundle, write_bundle
from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.checkpoint import load_model


def add_second(folder: Path, model: AcousticModel) -> Bundle:
    """The bundle with the model's graph beside its own, verified. `model` is rounded to fp16."""
    bundle = read_bundle(folder)
    if model.block:
        raise StreamasrError("a second pass reads whole utterances: expected a model with `both` and without block_ms")
    if model.config.features != bundle.features:
        raise StreamasrError(f"{folder}: the second network must hear the same features as the first one")
    if [*model.config.heads.items()] != [(head.name, list(head.tokens)) for head in bundle.heads]:
        raise StreamasrError(f"{folder}: the second network must have the same heads and tokens as the first one")
    first = bundle.graphs[bundle.default]
    if model.stride != first.stride:
        raise StreamasrError(f"{folder}: frames of {model.stride} samples, the first network's have {first.stride}")
    round_weights(model)
    with tempfile.TemporaryDirectory(dir=folder.parent) as trial:  # one that was there before stays, should this fail
        path = Path(trial) / f"{SECOND}.onnx"
        write_graph(model, 0, path)
        graph = Graph(path.name, file_sha256(path), 0, model.stride, model.delay, tuple(model.state_specs()), 0.0)
        made = replace(bundle, folder=Path(trial), graphs={**bundle.graphs, SECOND: graph})
        parity = difference(model, made, graph=SECOND)
        if not parity <= TOLERANCE:
            raise StreamasrError(f"the graph differs from torch by {parity:.1e}, more than {TOLERANCE:.0e}: not added")
        path.replace(folder / path.name)
    bundle = replace(bundle, graphs={**bundle.graphs, SECOND: replace(graph, parity=parity)})
    write_bundle(bundle)
    return bundle


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.second", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    arguments = parser.parse_args()
    bundle = add_second(arguments.bundle, load_model(arguments.checkpoints))
    size = (arguments.bundle / bundle.graphs[SECOND].file).stat().st_size
    print(f"{arguments.bundle}: {SECOND} {size / 1e6:.1f} MB, differs from torch by {bundle.graphs[SECOND].parity:.1e}")


if __name__ == "__main__":
    run(main, "export")
