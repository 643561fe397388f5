"""What a training run is: one TOML file, read into one dataclass, kept in every checkpoint."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streamasr.errors import ManifestError
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig
from streamasr.strict import StrictError, parse
from streamasr.training.augment import AugmentConfig
from streamasr.training.data import BatchConfig


@dataclass(frozen=True)
class OptimiserConfig:
    """The rate is warmed up linearly and then led to zero along a cosine."""

    rate: float = 1.6e-3
    warm_up_steps: int = 600
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    muon: bool = True  # for the cells' matrices; AdamW for the rest, or for all


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, apart from where the data lies."""

    seed: int = 1
    epochs: float = 20.0
    heard_hours: float = 0.0  # of audio, in place of epochs; 0: epochs count
    head_weights: dict[str, float] = field(default_factory=lambda: {"letters": 1.0, "phones": 0.5})
    synthetic_epochs: int = 0  # only so many at the beginning hear synthetic speech, where there is some; 0: all
    truncate_s: float = 0.0  # back-propagation stops after this much audio; 0: the whole utterance
    consistency: float = 0.0  # weight of CR-CTC, which hears every item twice; 0.2 is usual
    teaching: float = 0.0  # weight of a teacher's opinion, where there is one; the texts count 1
    risk: dict[str, float] = field(default_factory=dict)  # weight of a head's expected errors per target token
    intermediate: float = 0.0  # weight of what the heads make of the middle layer; 0.3 is usual
    checkpoint_minutes: float = 5.0
    kept_checkpoints: int = 5
    dev_utterances: int = 150  # for the curve; final numbers use all
    bfloat16: bool = False  # mixed precision; pays on CPUs with avx512_bf16
    model: dict[str, Any] = field(default_factory=dict)  # ModelConfig without its heads
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> TrainConfig:
        """Unknown keys are errors that name the key and the file."""
        try:
            for name, kind in SECTIONS.items():
                parse(kind, values.get(name, {}), f"{where}, [{name}]")
            config = parse(cls, values, where)
            if "heads" in config.model:
                raise StrictError(f"{where}, [model]: unknown key 'heads': the recipe knows them")
            parse(ModelConfig, {**config.model, "heads": {}}, f"{where}, [model]")
        except StrictError as error:
            raise ManifestError(str(error)) from error
        if not (config.epochs > 0.0 or config.heard_hours > 0.0):
            raise ManifestError(f"{where}: epochs is {config.epochs:g}, expected more than 0, or heard_hours")
        return config

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        try:
            return cls.from_dict(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
        except tomllib.TOMLDecodeError as error:
            raise ManifestError(f"{path}: not TOML: {error}") from error
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error

    def make_model(self, heads: dict[str, list[str]]) -> AcousticModel:
        """The network, untrained. heads: as in ModelConfig. ManifestError: the configuration asks for none there is."""
        for key, asked, there in (("head_weights", self.head_weights, heads), ("risk", self.risk, self.head_weights)):
            if (unknown := asked.keys() - there.keys()) or not self.head_weights:
                got = ", ".join(sorted(unknown)) or "none"
                raise ManifestError(f"{key}: got {got}, expected some of {', '.join(there)}")
        try:
            return AcousticModel(ModelConfig.from_dict({**self.model, "heads": heads}))
        except ValueError as error:
            raise ManifestError(f"model: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


SECTIONS: dict[str, type[Any]] = {"batch": BatchConfig, "augment": AugmentConfig, "optimiser": OptimiserConfig}
