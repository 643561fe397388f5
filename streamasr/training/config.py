"""What a training run is: one TOML file, read into one dataclass, kept in every checkpoint."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from streamasr.errors import ManifestError
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig
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
    truncate_s: float = 0.0  # back-propagation stops after this much audio; 0: the whole utterance
    consistency: float = 0.0  # weight of CR-CTC, which hears every item twice; 0.2 is usual
    teaching: float = 0.0  # weight of a teacher's opinion, where there is one; the texts count 1
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
        parts = {"batch": BatchConfig, "augment": AugmentConfig, "optimiser": OptimiserConfig}
        known = {name: _make(kind, values.get(name, {}), f"{where}, [{name}]") for name, kind in parts.items()}
        network = {f.name for f in fields(ModelConfig)} - {"heads"}
        unknown = set(values.get("model", {})) - network
        if unknown:
            raise ManifestError(
                f"{where}, [model]: unknown key {', '.join(sorted(unknown))}; see {ModelConfig.__module__}"
            )
        made: TrainConfig = _make(cls, {**values, **known}, where)
        return made

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        try:
            return cls.from_dict(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
        except tomllib.TOMLDecodeError as error:
            raise ManifestError(f"{path}: not TOML: {error}") from error
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error

    def make_model(self, heads: dict[str, list[str]]) -> AcousticModel:
        """The network, untrained. heads: as in ModelConfig."""
        return AcousticModel(ModelConfig.from_dict({"heads": heads, **self.model}))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _make(kind: Any, values: dict[str, Any], where: str) -> Any:
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise ManifestError(f"{where}: unknown key {', '.join(sorted(unknown))}; see {kind.__module__}")
    return kind(
        **{name: tuple(v) if isinstance(v, list) and kind is AugmentConfig else v for name, v in values.items()}
    )
