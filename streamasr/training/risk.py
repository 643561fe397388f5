"""Expected errors of the best path, which a loss of likelihood does not see."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from torch import Tensor

SAMPLES = 4  # paths drawn an item
SHARPNESS = 3.0  # paths are drawn at this power of their probability: nearly the best, as a greedy decoder would
REACH = 8  # frames: a token answers for errors no farther away than this


def expected_errors(log_probs: Tensor, frames: Tensor, targets: list[Tensor], rng: torch.Generator) -> Tensor:
    """Edits between paths drawn from the network and the targets, summed over items: a value with a gradient.

    log_probs (N, T, V) over tokens, the blank first; frames (N,): how many count; targets: N rows of tokens.
    The gradient is that of sampled minimum risk (Shannon 2017), with less variance: every frame's token is told by the
    errors around it whether it was better or worse than those which the item's other paths had there.
    """
    sharp = (SHARPNESS * log_probs).log_softmax(2)
    items, count, _ = sharp.shape
    with torch.no_grad():
        drawn = torch.multinomial(sharp.exp().flatten(0, 1), SAMPLES, replacement=True, generator=rng)
        paths = drawn.view(items, count, SAMPLES)
        errors = np.zeros((items, count, SAMPLES), np.float32)
        for i, target in enumerate(targets):
            heard = int(frames[i])
            for path in range(SAMPLES):
                errors[i, :heard, path] = errors_in_time(paths[i, :heard, path].numpy(), target.numpy())
        total = torch.from_numpy(np.pad(errors, ((0, 0), (REACH + 1, REACH), (0, 0)))).cumsum(1)
        near = total[:, 2 * REACH + 1 :] - total[:, : -2 * REACH - 1]
        advantage = (near - near.mean(2, keepdim=True)) / (SAMPLES - 1)
        advantage[torch.arange(count) >= frames[:, None]] = 0.0
        value = float(errors.sum()) / SAMPLES
    slope = (sharp.gather(2, paths) * advantage).sum()
    return slope - slope.detach() + value


def errors_in_time(path: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.float32]:
    """(T,): the edits between what a path says and the target, where they happen; a missing token lies between two."""
    first = np.r_[True, path[1:] != path[:-1]] if len(path) else np.zeros(0, bool)
    at = np.flatnonzero(first & (path != 0))
    errors = np.zeros(len(path), np.float32)
    between = np.r_[0, at, max(len(path) - 1, 0)]
    for edit in Levenshtein.editops(_text(path[at]), _text(target)):
        if edit.tag == "insert":  # into what was said, to make it the target
            start, end = between[edit.src_pos], between[edit.src_pos + 1] + 1
            errors[start:end] += np.float32(1.0 / (end - start))
        else:
            errors[at[edit.src_pos]] += 1.0
    return errors


def _text(tokens: NDArray[np.int64]) -> str:
    return "".join(map(chr, tokens))
