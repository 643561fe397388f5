"""How fast each member learns on this machine: python -m recipes.family.speed

Hours of audio in an hour of one core, by the fastest of several steps, all members in turn, so that other work on the
machine counts for little. recipes.family.train makes hours of audio of an experiment's minutes by these numbers: what
else runs while a member is trained must not decide how much it learns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import trange

from recipes.adapt.gradient import Label, Recording, by_rtrl
from recipes.adapt.network import Adaptive
from recipes.family.members import FAMILY, Experiment, Member
from recipes.mini.data import HEADS, LETTERS
from recipes.program import run
from streamasr.errors import StreamasrError
from streamasr.manifest import read_manifest
from streamasr.training.data import RATE, Batch
from streamasr.training.loop import start_processes
from streamasr.training.objective import Objective
from streamasr.training.optimiser import descend, flushed_denormals, make_optimisers

FILE = "speed.json"  # in the experiment's folder
ROUNDS = 6
ITEM_S = 8.0  # of audio
TOKENS = 100  # said in it


def one_step(member: Member, others: dict[str, Member], texts: list[str]) -> tuple[Callable[[], object], float]:
    """What a step of its training does, and how many seconds of audio that is."""
    target = torch.randint(1, 20, (TOKENS,))
    if member.adapts:
        adaptive = Adaptive(others[member.adapts].config.make_model(HEADS))
        pcm = np.random.default_rng(0).integers(-3000, 3000, int(ITEM_S * RATE)).astype(np.int16)
        label = Label(0, adaptive.frames(len(pcm)), {head: target.tolist() for head in HEADS})
        return lambda: by_rtrl(adaptive, Recording(adaptive.hear(pcm), (label,))), ITEM_S
    count = max(1, int(member.config.batch.batch_s / ITEM_S))
    audio = 0.1 * torch.randn(count, int(ITEM_S * RATE))
    batch = Batch(audio, torch.full((count,), audio.shape[1]), {head: [target] * count for head in HEADS})
    teacher = others[member.teacher].config.make_model(HEADS) if member.teacher else None
    objective = Objective(member.config.make_model(member.heads(texts)), member.config, teacher).train()
    optimisers = make_optimisers(objective.model, member.config.optimiser)

    def step() -> None:
        loss = objective(batch, torch.default_generator)
        descend(objective.model, optimisers, loss, 1e-5, member.config.optimiser)

    return step, ITEM_S * count


def read_speeds(folder: Path, members: Iterable[str]) -> dict[str, float]:
    """Member -> hours of audio an hour, of these at least."""
    try:
        speeds: dict[str, float] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StreamasrError(f"{folder / FILE}: not there; run recipes.family.speed first") from error
    if missing := set(members) - speeds.keys():
        raise StreamasrError(f"{folder / FILE}: lacks {', '.join(sorted(missing))}; run recipes.family.speed again")
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=FAMILY, metavar="TOML")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    arguments = parser.parse_args()
    start_processes()
    experiment = Experiment.read(arguments.experiment)
    texts = [utterance.text for utterance in read_manifest(arguments.shared / "speech" / "train.jsonl", LETTERS)]
    steps = {name: one_step(member, experiment.members, texts) for name, member in experiment.members.items()}
    best = dict.fromkeys(steps, float("inf"))
    with flushed_denormals():
        for _ in trange(ROUNDS + 1):  # the first makes room in memory
            for name, (step, _) in steps.items():
                began = time.process_time()
                step()
                best[name] = min(best[name], time.process_time() - began)
    speeds = {name: round(seconds / best[name], 1) for name, (_, seconds) in steps.items()}
    experiment.work.mkdir(parents=True, exist_ok=True)
    (experiment.work / FILE).write_text(json.dumps(speeds, indent=1) + "\n", encoding="utf-8")
    print("\n".join(f"{name}: {speed:.0f} hours of audio an hour" for name, speed in speeds.items()))


if __name__ == "__main__":
    run(main)
