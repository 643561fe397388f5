"""How a step of training changes the weights, and how large it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.config import OptimiserConfig, TrainConfig
from streamasr.training.muon import Muon


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Decayed states would slow the arithmetic down; others of this process may count on the smallest numbers."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def make_optimisers(model: AcousticModel, config: OptimiserConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the cells, if asked for, and AdamW for all else."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, weights in model.named_parameters():
        of_cell = not {"cell", "forwards", "backwards"}.isdisjoint(name.split("."))
        (matrices if config.muon and of_cell and weights.ndim == 2 else others).append(weights)
    adamw = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    if not matrices:
        return [adamw]
    return [Muon(matrices, lr=0.0, weight_decay=config.weight_decay, momentum=0.95), adamw]


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up over steps, cosine to zero over progress 0..1."""
    peak = config.optimiser.rate
    warm = min(1.0, (step + 1) / config.optimiser.warm_up_steps)
    return peak * warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def descend(
    model: AcousticModel, optimisers: list[torch.optim.Optimizer], loss: Tensor, rate: float, config: OptimiserConfig
) -> float:
    """One step down the gradient of `loss`, none at all where it is not finite; its norm before it was clipped."""
    for group in (group for optimiser in optimisers for group in optimiser.param_groups):
        group["lr"] = rate
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    if torch.isfinite(norm):
        for optimiser in optimisers:
            optimiser.step()
    return float(norm)
