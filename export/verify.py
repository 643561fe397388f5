"""Check a bundle's graphs against torch and against each other's law: python -m export.verify BUNDLE [AUDIO...]

Prints what each graph is and needs. Refuses (exit code 1) an fp32 graph that differs from the torch model read back
from the bundle, and any graph whose results depend on which other streams share the batch.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.program import run
from export.speech import read_speech
from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle, Graph, read_bundle
from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel

Samples = NDArray[np.float32]
TOLERANCE = 1e-4  # fp32: against torch, and a member of a batch against itself alone; int8 is equal to the bit
STEPS = 100


def noise(block: int, steps: int) -> Samples:
    """(2, steps * block): its level swings from silence to clipping, so that every part of a network moves."""
    rng = np.random.default_rng(0)
    envelope = np.repeat(10.0 ** rng.uniform(-5.0, 0.0, (2, steps)), block, axis=1)
    return np.clip(rng.standard_normal((2, steps * block)) * envelope, -1.0, 1.0).astype(np.float32)


def step_samples(graph: Graph) -> int:
    """A block; of a graph that takes any number of frames, some."""
    return graph.block or 50 * graph.stride


def difference(model: AcousticModel, bundle: Bundle, audio: Samples | None = None, graph: str = "fp32") -> float:
    """Largest absolute difference of a graph's log-probabilities and states from torch's, state carried.

    audio: (streams, samples), of which whole blocks are heard; None: noise for STEPS blocks.
    """
    acoustic = Acoustic(bundle, graph)
    block = step_samples(acoustic.graph)
    steps = STEPS if acoustic.graph.block else 3
    audio = noise(block, steps) if audio is None else audio
    state, torch_state = acoustic.zero_state(len(audio)), model.zero_state(len(audio))
    worst = 0.0
    with torch.no_grad():
        for start in range(0, audio.shape[1] - block + 1, block):
            piece = audio[:, start : start + block]
            found, state = acoustic.step(piece, state)
            expected, torch_state = model.step(torch.from_numpy(piece), torch_state)
            pairs = [(found, expected), *((state[name], torch_state[name]) for name in state)]
            # np.max keeps a NaN; Python's max would lose it, and a broken network would pass.
            worst = float(np.max([worst, *(np.abs(a - b.numpy()).max(initial=0.0) for a, b in pairs)]))
    return worst


def batch_difference(bundle: Bundle, graph: str, audio: Samples) -> float:
    """Largest difference between the members of a batch (streams, samples) and each of them alone."""
    acoustic = Acoustic(bundle, graph)
    together = acoustic.run(audio)
    return float(np.max([np.abs(together[i] - acoustic.run(audio[i : i + 1])[0]).max() for i in range(len(audio))]))


def describe(bundle: Bundle, graph: str) -> str:
    """Size, opset and operators of a graph's file."""
    _, path = bundle.graph(graph)
    model = onnx.load(path)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    kinds = Counter(node.op_type for node in model.graph.node)
    operators = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, opset {opset}; {operators}"


def verify(bundle: Bundle, recordings: Sequence[Path]) -> list[str]:
    """What is wrong with the bundle's graphs, a line each; prints what was found."""
    from export.restore import restore  # it uses `difference`

    block = step_samples(bundle.graphs["fp32"])
    audio = noise(block, STEPS if bundle.graphs["fp32"].block else 3)
    if recordings:
        heard = [read_speech(path, bundle.sample_rate) for path in recordings]
        audio = np.stack([np.resize(samples, max(len(s) for s in heard)) for samples in heard])
    if audio.shape[1] < block:
        raise StreamasrError(f"got recordings of less than {block} samples, a block; give longer ones")
    problems = []
    off = difference(restore(bundle), bundle, audio=audio)
    print(f"fp32 against torch, {audio.shape[1] // block} blocks of {len(audio)} streams: {off:.1e}")
    if not off <= TOLERANCE:
        problems.append(f"fp32 differs from torch by {off:.1e}, more than {TOLERANCE:.0e}")
    streams = np.concatenate([audio, np.roll(audio, block // 3, axis=1), -audio])
    for name in bundle.graphs:
        print(describe(bundle, name))
        allowed = 0.0 if name == "int8" else TOLERANCE
        off = batch_difference(bundle, name, streams)
        print(f"{name}, a batch of {len(streams)} against its members alone: {off:.1e}")
        if not off <= allowed:
            problems.append(f"{name} depends on what shares its batch: {off:.1e}, more than {allowed:.0e}")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("audio", type=Path, nargs="*", metavar="AUDIO", help="recordings to hear (default: noise)")
    arguments = parser.parse_args()
    if problems := verify(read_bundle(arguments.bundle), arguments.audio):
        sys.exit("\n".join(f"verify: {problem}" for problem in problems))


if __name__ == "__main__":
    run(main, "verify")
