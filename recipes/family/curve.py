"""Error over hours of training speech, with a fitted power law: python -m recipes.family.curve EXPERIMENT [--write]

Reads the trained members of an experiment whose members differ in their hours; greedy letter error on all of dev.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from recipes.family.members import Experiment
from recipes.mini.bundle import letter_error
from recipes.mini.data import corpus
from recipes.program import run
from recipes.sections import write_section
from streamasr.errors import StreamasrError
from streamasr.training.checkpoint import epochs, load_model
from streamasr.training.data import AudioCache

AHEAD = (100.0, 960.0)  # hours that the law is asked about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path("work/cache"))
    parser.add_argument("--write", action="store_true", help="into the experiment's RESULTS.md")
    arguments = parser.parse_args()
    experiment, speech = Experiment.read(arguments.experiment), corpus(arguments.shared, arguments.cache)
    dev = AudioCache([u.audio for u in speech.dev], speech.cache)
    hours, rates = [], []
    for name, member in experiment.members.items():
        checkpoints = epochs(experiment.work / name)
        if not checkpoints:
            raise StreamasrError(f"{experiment.work / name}: not trained; run recipes.family.train first")
        hours.append(sum(u.seconds for u in member.speech(speech).train) / 3600.0)
        rates.append(letter_error(load_model(checkpoints[-1:]), speech, dev))
    slope, level = np.polyfit(np.log(hours), np.log(rates), 1)
    lines = ["| hours of speech | CER % | the law says |", "|---|---|---|"]
    for h, rate in [*zip(hours, rates, strict=True), *((h, None) for h in AHEAD)]:
        fitted = 100.0 * np.exp(level + slope * np.log(h))
        lines.append(f"| {h:.1f} | {'-' if rate is None else f'{100 * rate:.1f}'} | {fitted:.1f} |")
    lines += ["", f"CER = {100 * np.exp(level):.1f} % x hours ^ {slope:.2f}", "", "![error over hours](hours.png)"]
    print("\n".join(lines))
    if arguments.write:
        draw(hours, rates, slope, level, experiment.results.parent / "hours.png")
        write_section(experiment.results, experiment.section, "\n".join(lines))


def draw(hours: list[float], rates: list[float], slope: float, level: float, path: Path) -> None:
    """Both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.subplots()
    line = np.geomspace(min(hours), max(AHEAD))
    axes.loglog(line, 100 * np.exp(level + slope * np.log(line)), linestyle="--", label=f"hours ^ {slope:.2f}")
    axes.loglog(hours, [100 * rate for rate in rates], "o", label="measured")
    axes.set(xlabel="hours of speech", ylabel="greedy letter error on dev (%)")
    axes.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    run(main)
