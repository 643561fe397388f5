"""A network whose opinion of every frame another one learns: larger, or one that waits longer."""

from __future__ import annotations

import torch
from torch import Tensor

from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel


class Teacher:
    """A trained model, held fixed; StreamasrError if the student has other frames or tokens."""

    def __init__(self, model: AcousticModel, student: AcousticModel) -> None:
        for what, ours, theirs in (
            ("frames of (samples)", student.stride, model.stride),
            ("heads", student.config.heads, model.config.heads),
        ):
            if ours != theirs:
                raise StreamasrError(f"the teacher has {what} {theirs}, the student {ours}")
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def opinion(self, audio: Tensor) -> dict[str, Tensor]:
        """(N, samples), nothing masked -> head -> log-probabilities (N, frames, tokens)."""
        return self.model.split_heads(self.model(audio))
