"""What fine-tuning is worth, and what it forgets: python -m recipes.finetune.measure [--bundle BUNDLE] [--write]

Ten minutes of the speaker of dev who has the most, tested on the rest of that speaker; and the even
lines of commands.jsonl, tested on the odd ones. Both with the defaults of `python -m recipes.finetune`.
What is forgotten is measured on the other speakers of dev.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from recipes.finetune.report import Scores, Speech, measure, table
from recipes.finetune.tune import CONFIG, Task, finetune, split, within
from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import Bundle, Source, read_bundle
from streamasr.manifest import Utterance, read_manifest
from streamasr.training.config import TrainConfig
from streamasr.training.loop import start_processes

HERE = Path(__file__).parent
MINUTES = 10.0
EVERY = 8  # of the other speakers of dev


def most_heard(utterances: Sequence[Utterance], speakers: int) -> list[str]:
    """The speakers with the most audio, the most first."""
    milliseconds: Counter[str] = Counter()
    for utterance in utterances:
        milliseconds[utterance.speaker] += round(1000 * utterance.seconds)
    return [speaker for speaker, _ in milliseconds.most_common(speakers)]


def ten_minutes(dev: Sequence[Utterance], every: int) -> tuple[list[Utterance], dict[str, list[Utterance]]]:
    """Of the speaker who has the most; and what to test on, of which every so many-th: the rest, and the others."""
    (speaker,) = most_heard(dev, 1)
    own = [u for u in dev if u.speaker == speaker]
    ten = within(own, MINUTES)
    others = [u for u in dev if u.speaker != speaker][:: EVERY * every]
    return ten, {f"{speaker}, the rest": own[len(ten) :: every], "other speakers of dev": others}


def run_task(title: str, old: Bundle, given: Sequence[Utterance], speech: Speech, before: Scores) -> str:
    """Fine-tune on what is given, then measure on what is not."""
    train, held_out = split(given, 10)
    minutes = sum(u.seconds for u in given) / 60.0
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bundle"
        finetune(old, out, Task(train, held_out, Source(title, "", 0.0)), TrainConfig.read(CONFIG))
        spent = time.process_time() - began
        after = measure(out, speech)
    heading = (
        f"{title}: {minutes:.1f} minutes to learn from, {len(held_out)} of {len(given)} utterances of it kept back"
    )
    return f"{heading}; {spent / 60.0:.1f} CPU minutes.\n\n{table(speech, before, after)}"


def main() -> None:
    parser = measuring(__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="test on every Nth utterance only, to try it")
    arguments = parser.parse_args()
    start_processes()
    old = read_bundle(arguments.bundle)
    dev, commands = (read_manifest(arguments.shared / "speech" / f"{n}.jsonl", LETTERS) for n in ("dev", "commands"))
    ten, speech = ten_minutes(dev, arguments.every)
    _, general = speech
    orders = {"commands, odd lines": commands[1 :: 2 * arguments.every], general: speech[general]}
    before = measure(arguments.bundle, speech | orders)
    parts = [
        run_task(ten[0].speaker, old, ten, speech, before),
        run_task("Coffee orders", old, commands[::2], orders, before),
    ]
    text = "\n\n".join([f"{old.name} {old.version} (network {old.graphs['fp32'].sha256[:8]}).", *parts])
    if arguments.every > 1:
        text += f"\n\nTested on one in {arguments.every} of these utterances."
    print(text)
    if arguments.write:
        write_section(HERE / "RESULTS.md", "measure", text)


if __name__ == "__main__":
    run(main, "interrupted")
