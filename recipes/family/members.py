"""An experiment: members that differ in one thing each, and the speech that all of them learn from."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recipes.mini.data import HEADS, synthetic
from recipes.mini.pieces import word_pieces
from streamasr.errors import ManifestError
from streamasr.training.config import TrainConfig
from streamasr.training.loop import Corpus

SPECIAL = {"teacher": None, "adapts": None, "labels": 0.0, "synthetic": False, "pieces": 0}  # keys of a Member's own
FAMILY = Path(__file__).parent / "members.toml"


@dataclass(frozen=True)
class Member:
    """One row of the table."""

    name: str
    says: str
    hours: float  # of the training speech, drawn by utterance
    minutes: float  # of one core to learn in; 0: as long as its configuration says
    config: TrainConfig
    teacher: str | None  # the member that it learns from beside the texts
    adapts: str | None  # the member that it is a layer over, which alone learns, by RTRL (recipes/adapt)
    labels: float  # of the minutes, those in which it learns PocketSphinx's frame labels before it learns the texts
    synthetic: bool  # whether it learns from recipes.mini.synthetic's speech, too
    pieces: int  # of words, that it may say in place of their letters

    def heads(self, texts: Iterable[str]) -> dict[str, list[str]]:
        """The network's outputs; texts: those that the pieces are common in."""
        return HEADS | {"letters": HEADS["letters"] + word_pieces(texts, self.pieces)}

    def speech(self, whole: Corpus) -> Corpus:
        """What it learns from: of two members, the one with less has nothing that the other one has not."""
        chosen, seconds = [], 0.0
        for i in np.random.default_rng(0).permutation(len(whole.train)):
            if seconds < self.hours * 3600.0:
                chosen.append(int(i))
                seconds += whole.train[i].seconds
        more = synthetic() if self.synthetic else []
        return replace(whole, train=[*(whole.train[i] for i in sorted(chosen)), *more])


@dataclass(frozen=True)
class Experiment:
    """A TOML file: what all members share, and what makes each of them."""

    work: Path  # one folder below it for each member
    results: Path  # the document that the table goes into,
    section: str  # and its place there
    members: dict[str, Member]

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """ManifestError names the key that is wrong."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            members = {}
            for name, own in values["member"].items():
                says, hours = own.pop("says"), own.pop("hours", values["hours"])
                minutes = own.pop("minutes", values["minutes"])
                special = {key: own.pop(key, otherwise) for key, otherwise in SPECIAL.items()}
                config = TrainConfig.from_dict(_over(values["base"], own), f"{path}, [member.{name}]")
                members[name] = Member(name, says, hours, minutes, config, **special)
            results = path.parent / values["results"]
            return cls(Path(values["work"]), results, values["section"], members)
        except tomllib.TOMLDecodeError as error:
            raise ManifestError(f"{path}: not TOML: {error}") from error
        except KeyError as error:
            raise ManifestError(f"{path}: has no {error}; recipes/family/members.toml shows what is needed") from error

    def choose(self, names: list[str]) -> list[Member]:
        """Those that were asked for, or all."""
        if unknown := [name for name in names if name not in self.members]:
            raise ManifestError(f"no member {', '.join(unknown)}: choose from {', '.join(self.members)}")
        return [self.members[name] for name in names or self.members]


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` laid over `base`, tables key by key."""
    merged = dict(base)
    for key, value in own.items():
        merged[key] = _over(base.get(key, {}), value) if isinstance(value, dict) else value
    return merged
