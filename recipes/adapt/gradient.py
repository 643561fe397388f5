"""The gradient of the adapter for one recording: by RTRL in two passes, or by back-propagation to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recipes.adapt.network import Adaptive, Pieces
from streamasr.nn.rtrl import DiagonalRtrl, Gradient
from streamasr.nn.stage import State

CELL = "cell."  # the adapter's parameters are those of its cell


@dataclass(frozen=True)
class Label:
    """What is said in the frames [begin, end): head -> its tokens, None where it cannot spell them."""

    begin: int
    end: int
    targets: Mapping[str, Sequence[int] | None]


@dataclass(frozen=True)
class Recording:
    """What is heard, and what is known of it; frames under no label teach nothing."""

    pieces: Pieces
    labels: tuple[Label, ...]


def ctc(model: Adaptive, log_probs: Tensor, labels: Sequence[Label]) -> Tensor:
    """CTC loss (Graves et al. 2006) of all heads, each per token, for (T, all heads' tokens)."""
    total = log_probs.new_zeros(())
    for head, rows in model.model.split_heads(log_probs).items():
        parts, tokens = [], 0
        for label in labels:
            targets, frames = label.targets[head], label.end - label.begin
            if targets:
                spoken, expected = rows[label.begin : label.end, None], torch.tensor([targets])
                lengths = torch.tensor([frames]), torch.tensor([len(targets)])
                parts.append(nn.functional.ctc_loss(spoken, expected, *lengths, reduction="sum", zero_infinity=True))
                tokens += len(targets)
        if parts:
            total = total + torch.stack(parts).sum() / tokens
    return total


def errors(model: Adaptive, log_probs: Tensor, labels: Sequence[Label]) -> tuple[float, Tensor]:
    """The loss, and how it moves with each log-probability of each frame: (T, all heads' tokens)."""
    rows = log_probs.detach().requires_grad_()
    with torch.enable_grad():
        loss = ctc(model, rows, labels)
    if loss.grad_fn is None:
        return 0.0, torch.zeros_like(log_probs)
    (gradient,) = torch.autograd.grad(loss, rows)
    return float(loss.detach()), gradient


def by_rtrl(model: Adaptive, recording: Recording) -> tuple[float, Gradient]:
    """Twice through the recording; between the passes only log-probabilities and errors are kept, (T, tokens) each."""
    loss, wrong = errors(model, model.log_probs(recording.pieces), recording.labels)
    return loss, second_pass(model, recording.pieces, wrong)


def second_pass(model: Adaptive, pieces: Pieces, wrong: Tensor) -> Gradient:
    """The adapter again, with its traces, and the errors of the frames: (T, all heads' tokens)."""
    rtrl = DiagonalRtrl(model.adapter.cell)
    state, total, begin = rtrl.zero_state(1), _zeros(model), 0
    for x in pieces():
        end = begin + x.shape[1]

        def error(y: Tensor, x: Tensor = x, rows: Tensor = wrong[None, begin:end]) -> Tensor:
            """From the log-probabilities back through the frozen heads, each frame by itself."""
            with torch.enable_grad():
                below = (x + y).requires_grad_()
                above, _ = model.heads.step(below, {})
            return torch.autograd.grad(above, below, rows)[0]

        _, part, state = rtrl.step(model.adapter.scaled(x), error, state)
        for name, value in part.items():
            total[CELL + name] += value
        begin = end
    return total


def by_back_propagation(model: Adaptive, recording: Recording) -> tuple[float, Gradient]:
    """Once through the recording, and back: the graph of all its frames is kept."""
    with torch.enable_grad():
        rows, _ = model.outputs(torch.cat(list(recording.pieces()), dim=1), model.adapter.zero_state(1))
        loss = ctc(model, rows[0], recording.labels)
    if loss.grad_fn is None:
        return 0.0, _zeros(model)
    return float(loss.detach()), _gradient(model, loss, None)


def by_truncated(model: Adaptive, recording: Recording, window: int) -> tuple[float, Gradient]:
    """The same two passes, but in the second one errors go back to the beginning of a window of so many frames."""
    loss, wrong = errors(model, model.log_probs(recording.pieces), recording.labels)
    return loss, truncated_pass(model, recording.pieces, wrong, window)


def truncated_pass(model: Adaptive, pieces: Pieces, wrong: Tensor, window: int) -> Gradient:
    """by_truncated's second pass."""
    total, state, begin = _zeros(model), model.adapter.zero_state(1), 0
    waiting: list[Tensor] = []

    def learn() -> State:
        nonlocal begin
        x = torch.cat(waiting, dim=1)
        with torch.enable_grad():
            rows, after = model.outputs(x, state)
        for name, value in _gradient(model, rows, wrong[None, begin : begin + x.shape[1]]).items():
            total[name] += value
        begin += x.shape[1]
        waiting.clear()
        return {name: value.detach() for name, value in after.items()}

    for piece in pieces():
        for x in piece.unbind(1):
            waiting.append(x[:, None])
            if len(waiting) == window:
                state = learn()
    if waiting:
        state = learn()
    return total


def _zeros(model: Adaptive) -> Gradient:
    return {name: torch.zeros_like(weights) for name, weights in model.adapter.named_parameters()}


def _gradient(model: Adaptive, outputs: Tensor, wrong: Tensor | None) -> Gradient:
    names, weights = zip(*model.adapter.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(outputs, weights, wrong), strict=True))
