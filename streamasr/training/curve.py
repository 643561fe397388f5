"""The picture of a run."""

from __future__ import annotations

import json
from pathlib import Path


def plot_curve(folder: Path) -> None:
    """log.jsonl -> curve.png: loss and dev errors over epochs."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(10, 4), layout="tight")
    left, right = figure.subplots(1, 2)
    losses = [row for row in rows if "loss" in row]
    left.plot([row["epoch"] for row in losses], [row["loss"] for row in losses], linewidth=0.7)
    left.set(xlabel="epoch", ylabel="training loss per token", yscale="log")
    measured = [row for row in rows if "dev_words" in row]
    for name in sorted({key for row in measured for key in row if key.startswith("dev_")}):
        right.plot([row["epoch"] for row in measured], [100 * row[name] for row in measured], label=name[4:])
    right.set(xlabel="epoch", ylabel="error on dev (%)", ylim=(0, 105))
    right.legend()
    figure.savefig(folder / "curve.png", dpi=100)
