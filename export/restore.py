"""A bundle -> the torch model it was exported from, to train on or to export in another form."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from export.graph import write_graph
from export.verify import TOLERANCE, difference
from streamasr.bundle import Bundle
from streamasr.errors import BundleError
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig


def restore(bundle: Bundle) -> AcousticModel:
    """The model in eval mode, its weights as the graph stores them.

    The exporter renames, transposes and joins parameters as it likes. So a second model of the same
    shape, whose parameters count 1, 2, 3, ..., goes through it too: its graph shows at every place
    which parameter stands there. Raises BundleError if the result does not compute what the bundle does.
    """
    config = {"heads": {h.name: list(h.tokens) for h in bundle.heads}, "features": vars(bundle.features)}
    model = AcousticModel(ModelConfig.from_dict({**config, **bundle.network})).eval()
    # `chain` is `front` and `body` once more, the same tensors.
    parts = [values for name, values in model.state_dict().items() if not name.startswith("chain.")]
    count = sum(part.numel() for part in parts)
    if count >= 2**24:
        raise BundleError(f"{bundle.folder}: got {count:,} parameters; expected less than 2^24, which fp32 can count")
    described, path = bundle.graph("fp32")
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        _spread(parts, np.arange(1, count + 1, dtype=np.float32))
        write_graph(model, described.block, Path(folder) / "places.onnx")
        places, values = _weights(Path(folder) / "places.onnx"), _weights(path)
    if [(where, p.shape) for where, p in places] != [(where, v.shape) for where, v in values]:
        raise BundleError(f"{path}: stores its weights otherwise than this version would; export it again")
    found = np.full(count + 1, np.nan, dtype=np.float32)
    for (_, place), (_, value) in zip(places, values, strict=True):
        found[np.rint(place).astype(np.int64)] = value
    with torch.no_grad():
        _spread(parts, found[1:])
    if not (off := difference(model, bundle)) <= TOLERANCE:
        raise BundleError(f"{path}: read back, it differs from itself by {off:.1e}; export it again")
    return model


def _spread(parts: list[torch.Tensor], values: NDArray[np.float32]) -> None:
    start = 0
    for part in parts:
        part.copy_(torch.from_numpy(values[start : start + part.numel()]).view(part.shape))
        start += part.numel()


def _weights(path: Path) -> list[tuple[tuple[int, int], NDArray[np.float32]]]:
    """(node, input) -> the stored tensor there, in the graph's order: one tensor may stand at several places."""
    graph = onnx.load(path).graph
    stored = {t.name.removesuffix(".half"): numpy_helper.to_array(t).astype(np.float32) for t in graph.initializer}
    own = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in stored:  # equal parameters, stored once
            stored[node.output[0]] = stored[node.input[0]]
        elif not (node.op_type == "Cast" and node.input[0].endswith(".half")):
            own.append(node)
    return [
        ((number, place), stored[name])
        for number, node in enumerate(own)
        for place, name in enumerate(node.input)
        if name in stored
    ]
