"""What a step of training minimises."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamasr.errors import ManifestError
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
        if config.truncate_s and not model.block:
            raise ManifestError(
                "truncate_s: layers that read a whole utterance backwards cannot learn from a part of it"
            )
        unit = (model.block or model.stride) // model.config.features.hop
        self.window = round(config.truncate_s * RATE / model.config.features.hop / unit) * unit or None

    def forward(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Weighted sum of each head's CTC loss (Graves et al. 2006) per target token.

        With `consistency`, every item is heard twice, masked and dropped out differently, and the difference
        between the two opinions is part of the loss (CR-CTC, Yao et al. 2025).
        """
        model, consistency = self.model, self.config.consistency
        with torch.no_grad():
            audio = model.pad(batch.audio)
            features, _ = model.front.step(audio, model.front.zero_state(len(audio)))
            views = 2 if consistency else 1
            features, lengths = features.repeat(views, 1, 1), batch.lengths.repeat(views)
            features = augment.mask(features, lengths // model.config.features.hop, self.config.augment, rng)
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            outputs = model.split_heads(model.encode(features, self.window).float())
        frames = (lengths + model.stride - 1) // model.stride
        loss = features.new_zeros(())
        for head, weight in self.config.head_weights.items():
            targets = batch.targets[head] * views
            rows = [i for i, target in enumerate(targets) if target is not None]
            known = [target for target in targets if target is not None]
            loss = loss + weight * self._ctc(outputs[head][rows], frames[rows], known)
            if consistency:
                loss = loss + weight * consistency * self._disagreement(outputs[head][rows], frames[rows], known)
        return loss

    @staticmethod
    def _ctc(log_probs: Tensor, frames: Tensor, targets: list[Tensor]) -> Tensor:
        if not targets:
            return log_probs.sum() * 0.0
        lengths = torch.tensor([len(target) for target in targets])
        losses = nn.functional.ctc_loss(
            log_probs.transpose(0, 1), torch.cat(targets), frames, lengths, reduction="sum", zero_infinity=True
        )
        return losses / _tokens(targets)

    @staticmethod
    def _disagreement(log_probs: Tensor, frames: Tensor, targets: list[Tensor]) -> Tensor:
        """Kullback-Leibler divergence of each view from the other one, which is held fixed, per target token."""
        if not targets:
            return log_probs.sum() * 0.0
        other = log_probs.detach().roll(len(log_probs) // 2, dims=0)
        divergence = (other.exp() * (other - log_probs)).sum(2)
        heard = torch.arange(log_probs.shape[1]) < frames[:, None]
        return (divergence * heard).sum() / _tokens(targets)


def _tokens(targets: list[Tensor]) -> int:
    """Noise alone has no tokens to divide by: an item counts as 20 at least, on the average."""
    return max(sum(len(target) for target in targets), 20 * len(targets))
