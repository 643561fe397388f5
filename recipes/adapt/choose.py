"""How rate and epochs of LearnConfig were chosen: python -m recipes.adapt.choose RATE... [--write]

On the two speakers of dev who come next after the one that measure.py tests: the first half of each to learn from,
the second half to test. Greedy letters and phones.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from export.restore import restore
from recipes.adapt.labels import recordings
from recipes.adapt.learn import LearnConfig, learn
from recipes.adapt.measure import HEADS, Task, errors
from recipes.adapt.network import Adaptive
from recipes.finetune.measure import EVERY, most_heard
from recipes.finetune.tune import split, within
from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import read_bundle
from streamasr.manifest import read_manifest
from streamasr.training.loop import start_processes

HERE = Path(__file__).parent


def main() -> None:
    parser = measuring(__doc__)
    parser.add_argument("rates", type=float, nargs="+", metavar="RATE")
    arguments = parser.parse_args()
    start_processes()
    old = read_bundle(arguments.bundle)
    dev = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    first, *speakers = most_heard(dev, 3)
    others = [u for u in dev if u.speaker not in (first, *speakers)][:: 2 * EVERY]
    torch.manual_seed(LearnConfig.seed)
    model = Adaptive(restore(old))
    start = copy.deepcopy(model.adapter.state_dict())
    columns = [f"{who}: {head}" for who in (*speakers, "others") for head in HEADS]
    lines = ["| rate | epochs kept | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    with tempfile.TemporaryDirectory() as name:
        general = recordings(model, old, others, Path(name))
        tasks = []
        for speaker in speakers:
            own = [u for u in dev if u.speaker == speaker]
            given = within(own, sum(u.seconds for u in own) / 60.0 / 2.0)
            sets = (*split(given, 10), own[len(given) :])
            train, held_out, rest = (recordings(model, old, some, Path(name)) for some in sets)
            tasks.append(Task(train, held_out, rest, general))
        for rate in (0.0, *arguments.rates):
            kept: list[str] = []
            own_rates: list[float] = []
            other_rates: list[dict[str, float]] = []
            for task in tasks:
                model.adapter.load_state_dict(start)
                config = replace(LearnConfig(), rate=rate, epochs=LearnConfig.epochs if rate else 0)
                losses = learn(model, task.train, task.held_out, config)
                kept.append(str(losses.index(min(losses))))
                own_rates += errors(model, task.own).values()
                other_rates.append(errors(model, task.others))
            mean = [sum(rates[head] for rates in other_rates) / len(other_rates) for head in HEADS]
            cells = [f"{value:.1f}" for value in (*own_rates, *mean)]
            lines.append(f"| {f'{rate:g}' if rate else 'before'} | {', '.join(kept)} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if arguments.write:
        write_section(HERE / "RESULTS.md", "settings", "\n".join(lines))


if __name__ == "__main__":
    run(main, "interrupted")
