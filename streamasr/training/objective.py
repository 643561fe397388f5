"""What a step of training minimises."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamasr.errors import ManifestError
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training import augment
from streamasr.training.config import TrainConfig
from streamasr.training.data import RATE, Batch
from streamasr.training.risk import expected_errors
from streamasr.training.teacher import Teacher


class Objective(nn.Module):
    """The loss as a module, so that DistributedDataParallel can wrap it."""

    def __init__(self, model: AcousticModel, config: TrainConfig, teacher: AcousticModel | None = None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.teacher = None if teacher is None else Teacher(teacher, model)
        if (teacher is None) == bool(config.teaching):
            there = "no" if teacher is None else "a"
            raise ManifestError(f"teaching is {config.teaching:g} and there is {there} teacher")
        if config.truncate_s and not model.block:
            raise ManifestError(
                "truncate_s: layers that read a whole utterance backwards cannot learn from a part of it"
            )
        unit = (model.block or model.stride) // model.config.features.hop
        self.window = round(config.truncate_s * RATE / model.config.features.hop / unit) * unit or None
        if config.intermediate and (self.window or set(model.config.join) - {1} or len(model.config.lookahead) < 2):
            raise ManifestError(
                "intermediate: needs two layers that read forwards, frames of one length and no truncate_s"
            )

    def forward(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Weighted sum of each head's CTC loss (Graves et al. 2006) per target token.

        With `consistency`, every item is heard twice, disguised, masked and dropped out differently, and the difference
        between the two opinions is part of the loss (CR-CTC, Yao et al. 2025); with `risk`, the errors of what a greedy
        decoder would read in a head; with `teaching`, the difference from what a teacher makes of the same audio,
        nothing masked (Hinton et al. 2015).
        """
        model, consistency, teaching = self.model, self.config.consistency, self.config.teaching
        with torch.no_grad():
            audio = model.pad(batch.audio)
            logmel, normalise = model.front.stages["logmel"], model.front.stages["normalise"]
            features, _ = logmel.step(audio, logmel.zero_state(len(audio)))  # type: ignore[operator]
            views = 2 if consistency else 1
            features, lengths = features.repeat(views, 1, 1), batch.lengths.repeat(views)
            features = augment.disguise(features, model.config.features.sample_rate / 2.0, self.config.augment, rng)
            features, _ = normalise.step(features, {})  # type: ignore[operator]
            features = augment.mask(features, lengths // model.config.features.hop, self.config.augment, rng)
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            encoded, middle = self._encode(features)
        count = model.frames(batch.audio.shape[1])
        outputs, early = (model.split_heads(y[:, :count].float()) for y in (encoded, middle))
        frames = (lengths + model.stride - 1) // model.stride
        if self.teacher:
            taught = {head: y.repeat(views, 1, 1) for head, y in self.teacher.opinion(batch.audio).items()}
        loss = features.new_zeros(())
        for head, weight in self.config.head_weights.items():
            targets = batch.targets[head] * views
            rows = [i for i, target in enumerate(targets) if target is not None]
            known = [target for target in targets if target is not None]
            own = outputs[head][rows]
            loss = loss + weight * self._ctc(own, frames[rows], known)
            if known and (risk := self.config.risk.get(head)):
                loss = loss + risk * expected_errors(own, frames[rows], known, rng) / _tokens(known)
            if self.config.intermediate:
                loss = loss + weight * self.config.intermediate * self._ctc(early[head][rows], frames[rows], known)
            if consistency:
                other = own.detach().roll(len(own) // 2, dims=0)
                loss = loss + weight * consistency * self._disagreement(own, other, frames[rows], known)
            if teaching:
                loss = loss + weight * teaching * self._disagreement(own, taught[head][rows], frames[rows], known)
        return loss

    def _encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the whole network, and what its heads make of the middle layer (Lee and Watanabe 2021).

        Without `intermediate`, the second are the first ones again.
        """
        model = self.model
        if not self.config.intermediate:
            return (y := model.encode(features, self.window)), y
        recurrent = [name for name in model.body.stages if name.startswith(model.config.cell)]
        lower, upper = model.body.split(recurrent[len(recurrent) // 2 - 1])
        x, _ = lower.step(features, lower.zero_state(len(features)))
        middle, _ = model.body.stages["heads"].step(x, {})  # type: ignore[operator]
        y, _ = upper.step(x, upper.zero_state(len(features)))
        return y[:, model.delay :], middle[:, lower.delay :]

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
    def _disagreement(log_probs: Tensor, other: Tensor, frames: Tensor, targets: list[Tensor]) -> Tensor:
        """Kullback-Leibler divergence from the `other` opinion, which is held fixed, per target token."""
        if not targets:
            return log_probs.sum() * 0.0
        divergence = (other.exp() * (other - log_probs)).sum(2)
        heard = torch.arange(log_probs.shape[1]) < frames[:, None]
        return (divergence * heard).sum() / _tokens(targets)


def _tokens(targets: list[Tensor]) -> int:
    """Noise alone has no tokens to divide by: an item counts as 20 at least, on the average."""
    return max(sum(len(target) for target in targets), 20 * len(targets))
