"""A bundle's graphs in ORT format, for minimal builds of ONNX Runtime: python -m export.ort BUNDLE OUT

Writes OUT/NAME.ort for each graph, checked to compute what the bundle's graph does, and OUT/operators.config,
the list that ONNX Runtime's build takes as --include_ops_by_config.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

from export.program import run
from export.verify import noise, step_samples
from streamasr.acoustic import AUDIO, LOG_PROBS, Acoustic
from streamasr.bundle import Bundle, read_bundle
from streamasr.errors import StreamasrError

TOLERANCE = 1e-4  # other optimisations sum in another order


def convert(bundle: Bundle, out: Path) -> list[Path]:
    """Write the files; raises StreamasrError where one does not compute what its graph does."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        for graph in bundle.graphs:
            (folder / f"{graph}.onnx").write_bytes(bundle.graph(graph)[1].read_bytes())
        logging.disable(logging.WARNING)  # it says at length what it does
        onnxruntime.set_default_logger_severity(3)
        # "amd64" would bake in what this very processor can do.
        convert_onnx_models_to_ort(folder, folder, [OptimizationStyle.Fixed], target_platform="arm")
        logging.disable(logging.NOTSET)
        written: list[Path] = []
        for graph in bundle.graphs:
            _compare(bundle, graph, folder / f"{graph}.ort")
            written.append(folder / f"{graph}.ort")
        (config,) = folder.glob("*.config")
        written.append(config.rename(folder / "operators.config"))
        return [Path(shutil.copy(path, out)) for path in written]


def _compare(bundle: Bundle, graph: str, path: Path) -> None:
    """One block of noise through both."""
    acoustic = Acoustic(bundle, graph)
    block = step_samples(acoustic.graph)
    audio = noise(block, 4)[:, -block:]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    state = acoustic.zero_state(len(audio))
    expected, _ = acoustic.step(audio, state)
    found = session.run([LOG_PROBS], {AUDIO: audio, **state})[0]
    if not (off := float(np.abs(found - expected).max())) <= TOLERANCE:
        raise StreamasrError(f"{path.name} differs from the bundle's graph by {off:.1e}: not written")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.ort", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    for path in convert(read_bundle(arguments.bundle), arguments.out):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main, "ort")
