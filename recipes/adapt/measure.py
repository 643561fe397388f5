"""What an adapter is worth, and what it forgets: python -m recipes.adapt.measure [--bundle BUNDLE] [--write]

Speaker, ten minutes and test as in recipes/finetune/measure.py. The adapter learns from the texts by RTRL, by
back-propagation through whole recordings and through windows of a second, and from the recogniser's own finals.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from export.restore import restore
from recipes.adapt.gradient import Recording, by_back_propagation, by_rtrl, by_truncated
from recipes.adapt.labels import LEAST, recordings
from recipes.adapt.learn import LearnConfig, Rule, learn
from recipes.adapt.network import Adaptive
from recipes.finetune.measure import ten_minutes
from recipes.finetune.report import Scores, Speech, measure, table
from recipes.finetune.tune import split
from recipes.finetune.write import write
from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import Bundle, Source, read_bundle
from streamasr.manifest import Utterance, read_manifest
from streamasr.nn.rtrl import Gradient
from streamasr.nn.stage import State
from streamasr.training.data import RATE
from streamasr.training.evaluation import ErrorCount, collapse
from streamasr.training.loop import start_processes

HERE = Path(__file__).parent
WINDOWS_S = (1, 2, 4)
HEADS = ("letters", "phones")


@dataclass(frozen=True)
class Task:
    """Recordings to learn from, kept back, of the same speaker, of others."""

    train: list[Recording]
    held_out: list[Recording]
    own: list[Recording]
    others: list[Recording]


def window(model: Adaptive, seconds: int) -> Rule:
    """Truncated back-propagation as a rule to learn by."""
    return lambda adaptive, one: by_truncated(adaptive, one, seconds * RATE // model.model.stride)


def errors(model: Adaptive, spoken: Sequence[Recording]) -> dict[str, float]:
    """Greedy errors of each head in %; recordings with one label each."""
    counts = {head: ErrorCount() for head in HEADS}
    for one in spoken:
        for head, rows in model.model.split_heads(model.log_probs(one.pieces)).items():
            if targets := one.labels[0].targets[head]:
                found = collapse(rows.argmax(dim=1).tolist())
                counts[head].add(list(map(str, targets)), list(map(str, found)))
    return {head: 100.0 * count.rate for head, count in counts.items()}


def row(name: str, model: Adaptive, task: Task, seconds: float | None) -> str:
    """Of a Markdown table."""
    own, others = errors(model, task.own), errors(model, task.others)
    rates = [f"{which[head]:.1f}" for which in (own, others) for head in HEADS]
    return f"| {name} | {' | '.join(rates)} | {'' if seconds is None else f'{seconds:.0f}'} |"


HEADING = [
    "| | letters wrong in % | phones | others: letters | phones | CPU s |",
    "|---|---|---|---|---|---|",
]


def apart(found: Gradient | State, expected: Gradient | State) -> float:
    """Norm of the difference, as a share of the expected one's."""
    difference = torch.cat([(found[name] - value).flatten() for name, value in expected.items()])
    return float(difference.norm() / torch.cat([value.flatten() for value in expected.values()]).norm())


def gradients(model: Adaptive, spoken: Sequence[Recording]) -> str:
    """How far the gradients are from back-propagation through whole recordings, on the average."""
    rules: dict[str, Rule] = {"RTRL": by_rtrl, **{f"windows of {s} s": window(model, s) for s in WINDOWS_S}}
    far = dict.fromkeys(rules, 0.0)
    for one in spoken:
        _, expected = by_back_propagation(model, one)
        for name, rule in rules.items():
            far[name] += apart(rule(model, one)[1], expected) / len(spoken)
    return ", ".join(f"{name} {100 * value:.2g} %" for name, value in far.items())


BEAM = "beam"
TEXTS, BACK, FINALS = "texts, RTRL", "texts, back-propagation", "own finals, RTRL"


class Comparison:
    """One adapter after another, from the same start."""

    def __init__(self, old: Bundle, given: Sequence[Utterance], speech: Speech, folder: Path) -> None:
        torch.manual_seed(LearnConfig.seed)
        self.old, self.given, self.speech, self.folder = old, given, speech, folder
        self.model = Adaptive(restore(old))
        self.start = copy.deepcopy(self.model.adapter.state_dict())
        parts = (*split(given, 10), *speech.values())
        self.task = Task(*(recordings(self.model, old, some, folder) for some in parts))
        self.finals = tuple(recordings(self.model, old, some, folder, LEAST) for some in parts[:2])
        self.rows = [*HEADING, row("before", self.model, self.task, None)]
        self.states: dict[str, State] = {}

    def learn(self, title: str, rule: Rule, train: Sequence[Recording], held_out: Sequence[Recording]) -> None:
        """From the start; adds a row to the table."""
        self.model.adapter.load_state_dict(self.start)
        began = time.process_time()
        learn(self.model, train, held_out, LearnConfig(), rule)
        self.rows.append(row(title, self.model, self.task, time.process_time() - began))
        print(self.rows[-1], flush=True)
        self.states[title] = copy.deepcopy(self.model.adapter.state_dict())

    def exactness(self) -> str:
        """RTRL beside back-propagation."""
        self.model.adapter.load_state_dict(self.states[TEXTS])
        drift = max(float((self.states[TEXTS][key] - value).abs().max()) for key, value in self.states[BACK].items())
        return (
            f"The weights learned by RTRL and by back-propagation differ by {drift:.1e} at most, of up to "
            f"{max(float(value.abs().max()) for value in self.states[BACK].values()):.1f}. Gradients after learning, "
            f"away from those of back-propagation through whole recordings: {gradients(self.model, self.task.train)}."
        )

    def words(self, before: Scores, title: str) -> str:
        """A table of what users hear, words and language model included."""
        self.model.adapter.load_state_dict(self.states[title])
        folder = self.folder / title.replace(", ", "-")
        write(copy.deepcopy(self.model.model), self.old, folder, Source(title, "", 0.0), None)  # rounds the weights
        return f"{title}:\n\n{table(self.speech, before, measure(folder, self.speech, [BEAM]))}"


def compare(old: Bundle, given: Sequence[Utterance], speech: Speech, folder: Path) -> str:
    """All ways of learning."""
    one = Comparison(old, given, speech, folder)
    texts = (one.task.train, one.task.held_out)
    one.learn(TEXTS, by_rtrl, *texts)
    one.learn(BACK, by_back_propagation, *texts)
    one.learn("texts, windows of 1 s", window(one.model, 1), *texts)
    one.learn(FINALS, by_rtrl, *one.finals)
    before = measure(old.folder, speech, [BEAM])
    return "\n\n".join(
        [
            f"{old.name} {old.version} (network {old.graphs['fp32'].sha256[:8]}): "
            f"{sum(u.seconds for u in given) / 60.0:.1f} minutes of {given[0].speaker} to learn from, {len(texts[1])} "
            f"of {len(given)} utterances of it kept back; {len(one.finals[0])} of the {len(texts[0])} others have "
            f"finals that are sure ({LEAST} on the average). Greedy, in torch:",
            "\n".join(one.rows),
            one.exactness(),
            "With words:",
            *(one.words(before, title) for title in (TEXTS, FINALS)),
        ]
    )


def main() -> None:
    parser = measuring(__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="test on every Nth utterance only, to try it")
    arguments = parser.parse_args()
    start_processes()
    old = read_bundle(arguments.bundle)
    dev = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    ten, speech = ten_minutes(dev, arguments.every)
    with tempfile.TemporaryDirectory() as folder:
        text = compare(old, ten, speech, Path(folder))
    if arguments.every > 1:
        text += f"\n\nTested on one in {arguments.every} of these utterances."
    print(text)
    if arguments.write:
        write_section(HERE / "RESULTS.md", "measure", text)


if __name__ == "__main__":
    run(main, "interrupted")
