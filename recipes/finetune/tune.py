"""From one bundle to another: restore, learn, keep a share of what was known, write."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from export.restore import restore
from recipes.finetune.adapt import adapt, pronunciations
from recipes.finetune.network import freeze, mix, with_alphabet
from recipes.finetune.write import check, write
from streamasr.bundle import Bundle, Source
from streamasr.errors import StreamasrError
from streamasr.manifest import Utterance
from streamasr.training.config import TrainConfig
from streamasr.training.loop import Corpus

CONFIG = Path(__file__).with_name("config.toml")
KEEP = 0.5  # 0.25 learns a quarter more, with words, and forgets about twice as much (RESULTS.md)
PATIENCE = 3


@dataclass(frozen=True)
class Task:
    """What a bundle learns from, and what is to change besides."""

    train: Sequence[Utterance]
    held_out: Sequence[Utterance]
    source: Source  # how the new bundle names the recordings
    freeze: Sequence[str] = ()  # names of stages
    keep: float = KEEP  # share of the old weights in the new ones
    alphabet: str | None = None
    lm: Path | None = None
    patience: int = PATIENCE  # epochs in a row that may be no better; 0: any number


def finetune(old: Bundle, folder: Path, task: Task, config: TrainConfig) -> Bundle:
    """Learn, and write a new bundle into `folder`."""
    check(old, folder, task.alphabet, task.lm)
    torch.manual_seed(config.seed)
    model = restore(old)
    if task.alphabet:
        model = with_alphabet(model, task.alphabet)
    freeze(model, task.freeze)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lexicon = pronunciations(old, [*task.train, *task.held_out])
    with tempfile.TemporaryDirectory() as cache:  # not kept: a recording may be made again under its old name
        adapt(model, Corpus(task.train, task.held_out, [], lexicon, Path(cache)), config, task.patience)
    mix(model, before, task.keep, fresh=task.alphabet is not None)
    return write(model, old, folder, task.source, task.lm)


def split(utterances: Sequence[Utterance], every: int) -> tuple[list[Utterance], list[Utterance]]:
    """To learn from, and to keep back: every so many-th, at least one."""
    if len(utterances) < 2:
        raise StreamasrError("one utterance cannot be split; record more, or name what to keep back with --dev")
    every = min(every, len(utterances))
    return [u for i, u in enumerate(utterances, 1) if i % every], list(utterances[every - 1 :: every])


def within(utterances: Sequence[Utterance], minutes: float) -> list[Utterance]:
    """The first of them, as many as last no longer than that; at least one."""
    chosen, seconds = [utterances[0]], utterances[0].seconds
    for utterance in utterances[1:]:
        seconds += utterance.seconds
        if seconds > 60.0 * minutes:
            break
        chosen.append(utterance)
    return chosen
