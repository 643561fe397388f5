"""What a step of training minimises."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training import augment
from streamasr.training.config import TrainConfig
from streamasr.training.data import RATE, Batch


class Objective(nn.Module):
    """The loss as a module, so that DistributedDataParallel can wrap it."""

    def __init__(self, model: AcousticModel, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        hop = model.config.features.hop
        per_frame = model.stride // hop
        self.window = round(config.truncate_s * RATE / hop / per_frame) * per_frame or None

    def forward(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Weighted sum of each head's CTC loss (Graves et al. 2006) per target token."""
        model = self.model
        with torch.no_grad():
            audio = model.pad(batch.audio)
            features, _ = model.front.step(audio, model.front.zero_state(len(audio)))
            hops = batch.lengths // model.config.features.hop
            features = augment.mask(features, hops, self.config.augment, rng)
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            outputs = model.split_heads(model.encode(features, self.window).float())
        frames = (batch.lengths + model.stride - 1) // model.stride
        loss = features.new_zeros(())
        for head, weight in self.config.head_weights.items():
            targets = batch.targets[head]
            rows = [i for i, target in enumerate(targets) if target is not None]
            loss = loss + weight * self._ctc(outputs[head][rows], frames[rows], [targets[i] for i in rows])  # type: ignore[misc]
        return loss

    @staticmethod
    def _ctc(log_probs: Tensor, frames: Tensor, targets: list[Tensor]) -> Tensor:
        if not targets:
            return log_probs.sum() * 0.0
        lengths = torch.tensor([len(target) for target in targets])
        losses = nn.functional.ctc_loss(
            log_probs.transpose(0, 1), torch.cat(targets), frames, lengths, reduction="sum", zero_infinity=True
        )
        return losses / max(int(lengths.sum()), 20 * len(targets))  # noise alone has no tokens to divide by
