"""What the network asks of a board, and how long boards should take for it: python -m recipes.boards.expect [--write]

Counted from the graph: multiply-adds, and bytes of weights read, per second of audio. The times are computed from
these and from published numbers of each processor, not measured: the larger of arithmetic at half of its peak
on one core and reading the weights at half of the memory's peak (they fit no small board's cache).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper, shape_inference

from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import Bundle, read_bundle
from streamasr.recognizer import BUNDLED

PAGE = Path(__file__).parents[2] / "docs" / "boards.md"
USED = 0.5  # of a peak


@dataclass(frozen=True)
class Board:
    """Published: clock, 32-bit multiply-adds per cycle (WikiChip, "FLOPS"), width and rate of its memory."""

    name: str
    core: str
    ghz: float
    per_cycle: int  # 8-bit products are widened before they are added: counted like 32-bit ones
    memory_gb_s: float


BOARDS = (
    Board("Raspberry Pi Zero 2 W", "Cortex-A53", 1.0, 4, 3.6),
    Board("Raspberry Pi 3 B+", "Cortex-A53", 1.4, 4, 3.6),
    Board("Raspberry Pi 4", "Cortex-A72", 1.5, 4, 12.8),
    Board("Raspberry Pi 5", "Cortex-A76", 2.4, 8, 17.1),
)


@dataclass(frozen=True)
class Need:
    """Per second of audio."""

    integer: float  # multiply-adds of 8-bit numbers
    floating: float  # of floating point numbers, for log-mel
    weights: float  # bytes


def count(bundle: Bundle) -> Need:
    """From the nodes of the int8 graph, all of whose products are MatMuls: one stream, block by block."""
    described, path = bundle.graph("int8")
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = {value.name: _elements(value) for value in [*inferred.value_info, *inferred.output]}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in inferred.initializer}
    done = {"integer": 0, "floating": 0}
    read = 0
    for node in inferred.node:
        if node.op_type in ("MatMul", "MatMulInteger"):
            weight = stored[node.input[1]]
            kind = "integer" if node.op_type == "MatMulInteger" else "floating"
            done[kind] += sizes[node.output[0]] * weight.shape[-2]
            read += weight.nbytes
    blocks = bundle.sample_rate / described.block
    return Need(done["integer"] * blocks, done["floating"] * blocks, read * blocks)


def _elements(value: onnx.ValueInfoProto) -> int:
    size = 1
    for dim in value.type.tensor_type.shape.dim:
        size *= dim.dim_value
    return size


def expected(need: Need, board: Board) -> float:
    """Real-time factor of the network alone, on one core."""
    arithmetic = (need.integer + need.floating) / (board.ghz * 1e9 * board.per_cycle * USED)
    return max(arithmetic, need.weights / (board.memory_gb_s * 1e9 * USED))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED)
    parser.add_argument("--write", action="store_true", help="into docs/boards.md")
    arguments = parser.parse_args()
    need = count(read_bundle(arguments.bundle))
    lines = [
        f"Counted from int8.onnx, per second of audio: {need.integer / 1e6:.0f} million multiply-adds of 8-bit "
        f"numbers, {need.floating / 1e6:.0f} million in floating point; {need.weights / 1e6:.0f} MB of weights.",
        "",
        "| board | core | clock GHz | real-time factor of the network, computed |",
        "|---|---|---|---|",
        *(f"| {b.name} | {b.core} | {b.ghz} | {expected(need, b):.3f} |" for b in BOARDS),
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section(PAGE, "expected", "\n".join(lines))


if __name__ == "__main__":
    run(main)
