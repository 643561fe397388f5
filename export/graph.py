"""A torch model -> an ONNX graph whose state is its inputs and outputs, weights stored as fp16."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from streamasr.acoustic import AUDIO, LOG_PROBS, NEW, SAMPLES
from streamasr.nn.acoustic_model import AcousticModel

OPSET = 17
SMALL = 1024  # tensors of fewer values stay fp32: norms and biases, where fp16 would save nothing


class _Step(nn.Module):
    """step with the state as positional tensors, which is what the exporter traces."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.model = model
        self.names = [spec.name for spec in model.state_specs()]

    def forward(self, audio: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, new = self.model.step(audio, dict(zip(self.names, state, strict=True)))
        return (y, *(new[name] for name in self.names))


def round_weights(model: AcousticModel) -> None:
    """Round every large weight to fp16 in place, so that torch computes with what the graph will store."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() >= SMALL:
                parameter.copy_(parameter.half().float())


def write_graph(model: AcousticModel, block: int, path: Path) -> None:
    """Trace one step over `block` samples (0: any number of frames) and write it; the batch axis stays free."""
    step = _Step(model).eval()
    names = step.names
    audio = torch.zeros(2, block or 25 * model.stride)
    state = tuple(model.zero_state(2)[name] for name in names)
    axes = {name: {0: "N"} for name in [AUDIO, LOG_PROBS, *names, *(NEW + name for name in names)]}
    if not block:
        axes |= {AUDIO: {0: "N", 1: SAMPLES}, LOG_PROBS: {0: "N", 1: "frames"}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated; the other one loses the GRU's form
        torch.onnx.export(
            step,
            (audio, *state),
            str(path),
            input_names=[AUDIO, *names],
            output_names=[LOG_PROBS, *(NEW + name for name in names)],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(path)
    for node in graph.graph.node:
        if node.op_type == "GRU":  # torch's form of the equations; the other form silently gives other numbers
            attributes = {a.name: a.i for a in node.attribute}
            assert attributes.get("linear_before_reset") == 1, "the exporter lost linear_before_reset"
    _store_half(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _store_half(graph: onnx.GraphProto) -> None:
    """Keep large initialisers as fp16 behind a Cast where that loses nothing; ONNX Runtime folds the casts at load."""
    for position, tensor in enumerate(list(graph.initializer)):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue  # the DFT and the mel filters: constants that must stay exact
        name = tensor.name
        graph.initializer[position].CopyFrom(numpy_helper.from_array(half, name + ".half"))
        cast = onnx.helper.make_node("Cast", [name + ".half"], [name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, cast)
