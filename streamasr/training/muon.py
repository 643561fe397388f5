"""Muon (Jordan et al. 2024) in 32 bits: torch.optim.Muon computes in bfloat16, slow on CPUs that have none."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

QUINTIC = 3.4445, -4.7750, 2.0315  # Jordan's coefficients: steep at zero, near enough to one elsewhere
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose step has all its singular values near one.

    params: matrices. A step is as large as AdamW's would be (Liu et al. 2025), so one rate serves both. Same state and
    steps as torch.optim.Muon with adjust_lr_fn="match_rms_adamw", but for rounding.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all weights down their gradients."""
        for group in self.param_groups:
            for weights in (p for p in group["params"] if p.grad is not None):
                gradient, state = weights.grad, self.state[weights]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                mean = state["momentum_buffer"].lerp_(gradient, 1.0 - group["momentum"])
                direction = orthogonalise(gradient.lerp(mean, group["momentum"]))
                size = 0.2 * math.sqrt(max(weights.shape))
                weights.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"] * size)


def orthogonalise(matrix: Tensor) -> Tensor:
    """The matrix with its singular values brought to between 0.7 and 1.2, by Newton and Schulz's iteration."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
