"""A checkpoint -> a bundle: python -m export.onnx CHECKPOINT... BUNDLE

Several checkpoints are averaged. The bundle is written only if its graph agrees with torch over
many chunks of carried state. What is measured on the exported model (timing, confidence, results)
starts from defaults; the recipe that trained it fits and fills it in (recipes/mini/bundle.py).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from export.graph import round_weights, write_graph
from export.program import run
from export.verify import TOLERANCE, difference
from streamasr.bundle import (
    FORMAT,
    METADATA,
    Bundle,
    EndpointRule,
    Graph,
    Head,
    Source,
    Tuning,
    file_sha256,
    write_bundle,
)
from streamasr.endpoint import LAST_RESORT
from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.checkpoint import load_model

BLOCK_FRAMES = 2  # 80 ms: half the calls of single frames, for 40 ms of latency
ENDPOINT = (EndpointRule(0.8), EndpointRule(0.4, 15.0), EndpointRule(0.12, 30.0), LAST_RESORT)


def must_be_free(folder: Path) -> None:
    """StreamasrError where something else than a bundle stands in a bundle's place."""
    if folder.exists() and not (folder / METADATA).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise StreamasrError(f"{folder}: exists and is not a bundle: not overwritten; name a new folder")


def make_bundle(model: AcousticModel, folder: Path, name: str, sources: tuple[Source, ...]) -> Bundle:
    """Export into `folder`, which appears only when the graph has been verified. `model` is rounded to fp16."""
    must_be_free(folder)
    round_weights(model)
    config = model.config
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + "."))
    try:
        block = model.block if config.both else BLOCK_FRAMES * model.stride
        write_graph(model, block, work / "fp32.onnx")
        graph = Graph(
            file="fp32.onnx",
            sha256=file_sha256(work / "fp32.onnx"),
            block=block,
            stride=model.stride,
            delay=model.delay,
            states=tuple(model.state_specs()),
            parity=0.0,
        )
        network = {key: value for key, value in config.to_dict().items() if key not in ("heads", "features")}
        bundle = Bundle(
            format=FORMAT,
            name=name,
            version="1",
            language="en",
            features=config.features,
            heads=tuple(Head(head, tuple(tokens)) for head, tokens in config.heads.items()),
            graphs={"fp32": graph},
            default="fp32",
            network=network,
            tuning={"greedy": Tuning()},
            search=None,
            endpoint=ENDPOINT,
            sources=sources,
            measured={},
            folder=work,
        )
        parity = difference(model, bundle)
        if not parity <= TOLERANCE:
            raise StreamasrError(
                f"the graph differs from torch by {parity:.1e}, more than {TOLERANCE:.0e}: not written"
            )
        bundle = replace(bundle, graphs={"fp32": replace(graph, parity=parity)})
        write_bundle(bundle)
        work.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return replace(bundle, folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m export.onnx", description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--name", help="name of the model (default: the folder's name)")
    arguments = parser.parse_args()
    model = load_model(arguments.checkpoints)
    bundle = make_bundle(model, arguments.bundle, arguments.name or arguments.bundle.name, ())
    graph = bundle.graphs["fp32"]
    size = (arguments.bundle / graph.file).stat().st_size
    print(f"{arguments.bundle}: {size / 1e6:.1f} MB, differs from torch by {graph.parity:.1e} at most")


if __name__ == "__main__":
    run(main, "export")
