"""The members: what members.toml says of each, and the speech that all of them learn from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recipes.mini.data import corpus
from streamasr.errors import ManifestError
from streamasr.training.config import TrainConfig
from streamasr.training.loop import Corpus

MEMBERS = Path(__file__).parent / "members.toml"
WORK = Path("work/family")
HOURS = 4.0  # of the training speech, drawn by utterance


@dataclass(frozen=True)
class Member:
    """One row of the table."""

    name: str
    says: str
    config: TrainConfig


def read_members(path: Path = MEMBERS) -> dict[str, Member]:
    """All members, by name."""
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    members = {}
    for name, own in values["member"].items():
        says = own.pop("says")
        config = TrainConfig.from_dict(_over(values["base"], own), f"{path}, [member.{name}]")
        members[name] = Member(name, says, config)
    return members


def choose(members: dict[str, Member], names: list[str]) -> list[Member]:
    """Those that were asked for, or all."""
    if unknown := [name for name in names if name not in members]:
        raise ManifestError(f"no member {', '.join(unknown)}: choose from {', '.join(members)}")
    return [members[name] for name in names or members]


def speech(shared: Path, cache: Path) -> Corpus:
    """The mini recipe's corpus, of its training speech a fixed subset."""
    whole = corpus(shared, cache)
    chosen, seconds = [], 0.0
    for i in np.random.default_rng(0).permutation(len(whole.train)):
        if seconds < HOURS * 3600.0:
            chosen.append(int(i))
            seconds += whole.train[i].seconds
    return replace(whole, train=[whole.train[i] for i in sorted(chosen)])


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` laid over `base`, tables key by key."""
    merged = dict(base)
    for key, value in own.items():
        merged[key] = _over(base.get(key, {}), value) if isinstance(value, dict) else value
    return merged
