"""Epochs over a speaker's recordings, a step after each; what is kept back says which epoch was best."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from recipes.adapt.gradient import Recording, by_rtrl, ctc
from recipes.adapt.network import Adaptive
from recipes.finetune.adapt import flushed_denormals
from streamasr.nn.rtrl import Gradient

Rule = Callable[[Adaptive, Recording], tuple[float, Gradient]]


@dataclass(frozen=True)
class LearnConfig:
    """How the adapter learns (RESULTS.md says how rate and epochs were chosen)."""

    rate: float = 1e-4  # of Adam (Kingma and Ba 2015)
    epochs: int = 15
    batch: int = 1  # recordings that a step is made of
    patience: int = 3  # epochs in a row that may be no better; 0: any number
    clip_norm: float = 1.0
    seed: int = 1


def loss_on(model: Adaptive, recordings: Sequence[Recording]) -> float:
    """Mean of the recordings' losses."""
    losses = [float(ctc(model, model.log_probs(r.pieces), r.labels)) for r in recordings]
    return sum(losses) / max(len(losses), 1)


def take_step(
    model: Adaptive,
    recordings: Iterable[Recording],
    optimiser: torch.optim.Optimizer,
    clip_norm: float,
    weight: float = 1.0,
    rule: Rule = by_rtrl,
) -> float:
    """One step down the sum of the recordings' gradients, each times `weight`; the sum of their losses, so weighed."""
    adapter, total = model.adapter, 0.0
    adapter.zero_grad(set_to_none=False)
    for recording in recordings:
        loss, gradient = rule(model, recording)
        total += weight * loss
        for name, weights in adapter.named_parameters():
            part = weight * gradient[name]
            weights.grad = part if weights.grad is None else weights.grad.add_(part)
    if torch.isfinite(torch.nn.utils.clip_grad_norm_(adapter.parameters(), clip_norm)):
        optimiser.step()
    return total


@flushed_denormals()
def learn(
    model: Adaptive,
    train: Sequence[Recording],
    held_out: Sequence[Recording],
    config: LearnConfig,
    rule: Rule = by_rtrl,
) -> list[float]:
    """The adapter keeps its best weights. Returns the loss on held_out before the first epoch and after each."""
    adapter, order = model.adapter, random.Random(config.seed)
    optimiser = torch.optim.Adam(adapter.parameters(), config.rate, betas=(0.9, 0.98))
    losses = [loss_on(model, held_out)]
    best = copy.deepcopy(adapter.state_dict())
    print(f"before: loss {losses[0]:.3f} on what was kept back", flush=True)
    for epoch in range(1, config.epochs + 1):
        mixed = order.sample(list(train), len(train))
        for start in range(0, len(mixed), config.batch):
            take_step(model, mixed[start : start + config.batch], optimiser, config.clip_norm, rule=rule)
        losses.append(loss_on(model, held_out))
        better = losses[-1] < min(losses[:-1])
        print(f"epoch {epoch}: loss {losses[-1]:.3f}{', the best' if better else ''}", flush=True)
        if better:
            best = copy.deepcopy(adapter.state_dict())
        elif min(losses) not in losses[-config.patience :]:
            break
    adapter.load_state_dict(best)
    adapter.zero_grad(set_to_none=True)
    return losses
