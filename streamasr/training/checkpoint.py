"""Checkpoints: everything a run needs to go on as if it had never stopped, and averages of several."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig


def save_checkpoint(path: Path, values: dict[str, Any]) -> None:
    """Written beside `path` and moved there, so that a reader sees the old one or the new one."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the good name
        partial.replace(path)
    except RuntimeError as error:  # torch's word for a disk that is full
        raise StreamasrError(f"{path}: cannot be written, is the disk full? ({str(error).splitlines()[0]})") from error
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors and plain data only: a checkpoint from a stranger runs no code."""
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # a damaged archive gives an OSError without
            raise
        raise StreamasrError(
            f"{path}: not a checkpoint: expected a file that training wrote, such as last.pt"
        ) from error
    if not isinstance(values, dict) or not {"model", "model_config"} <= values.keys():
        raise StreamasrError(f"{path}: holds no model: expected a checkpoint that training wrote, such as last.pt")
    return values


def epochs(folder: Path) -> list[Path]:
    """The checkpoints of whole epochs that a run has kept, the last one last; none is an empty list."""
    return sorted(folder.glob("epoch-*.pt"), key=lambda path: int(path.stem.split("-")[1]))


def count_parameters(saved: dict[str, Any]) -> int:
    """Of the network in a checkpoint; the features have none that are learned."""
    return sum(value.numel() for name, value in saved["model"].items() if not name.startswith(("front.", "chain.")))


def load_model(paths: Sequence[Path]) -> AcousticModel:
    """The model of a checkpoint, or the average of the weights of several."""
    checkpoints = [load_checkpoint(path) for path in paths]
    configs = []
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        try:
            configs.append(ModelConfig.from_dict(checkpoint["model_config"]))
        except TypeError as error:
            raise StreamasrError(f"{path}: of another kind of model; expected one that hears speech") from error
        if configs[-1] != configs[0]:
            raise StreamasrError(f"{path}: another network than {paths[0]}; average checkpoints of one run")
    model = AcousticModel(configs[0])
    states = [checkpoint["model"] for checkpoint in checkpoints]
    averaged = model.state_dict()  # its metadata tell batch normalisation that nothing is missing
    for name in averaged:
        averaged[name] = torch.stack([state[name] for state in states]).mean(0)
    model.load_state_dict(averaged)
    return model.eval()


def begin(model: AcousticModel, start: AcousticModel) -> None:
    """Give a model the weights of another one, which may look less far ahead: the frames between count nothing yet.

    StreamasrError: they differ in more than that and dropout.
    """
    ours, theirs = ({**one.config.to_dict(), "dropout": None} for one in (model, start))
    ahead, before = ours.pop("lookahead"), theirs.pop("lookahead")
    different = [key for key in ours if ours[key] != theirs[key]]
    if len(ahead) != len(before) or any(own < other for own, other in zip(ahead, before, strict=True)):
        different.append("lookahead")
    if different:
        raise StreamasrError(f"the model to start from has another {', '.join(different)} than the configuration")
    own = model.state_dict()
    for name, value in start.state_dict().items():
        (own[name][: len(value)] if value.dim() else own[name]).copy_(value)
