"""The range of what goes into each large product, seen in speech: from it come the scales of int8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.int8 import Scale
from streamasr.nn.acoustic_model import AcousticModel, Heads, RecurrentLayer, Subsample
from streamasr.nn.cells import Gru


def products(model: AcousticModel) -> Iterator[tuple[str, nn.Module]]:
    """Stages that multiply by large matrices, in their order, each with the torch module that sees its input."""
    for name, stage in model.body.stages.items():
        match stage:
            case Subsample():
                yield name, stage.conv
            case RecurrentLayer(cell=Gru() as cell):  # write_int8 refuses other cells by name
                yield name, cell.rnn
            case Heads():
                yield name, next(iter(stage.linear.values()))


def calibrate(model: AcousticModel, speech: Iterable[NDArray[np.float32]]) -> dict[str, Scale]:
    """Scales from the smallest to the largest value seen in `speech`, recordings of samples at the model's rate."""
    seen: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            low, high = seen.get(name, (0.0, 0.0))
            seen[name] = min(low, float(inputs[0].min())), max(high, float(inputs[0].max()))

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in products(model)]
    try:
        with torch.no_grad():
            for audio in speech:
                model(torch.from_numpy(audio)[None])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: Scale.of(low, high) for name, (low, high) in seen.items()}
