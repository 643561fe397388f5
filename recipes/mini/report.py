"""How the run went, into RESULTS.md: python -m recipes.mini.report [--work DIR]"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from recipes.program import run
from recipes.sections import write_section
from streamasr.training.checkpoint import count_parameters, load_checkpoint

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"), help="folder of the run")
    parser.add_argument("--config", default="ninth.toml", help="which it had; its name is written")
    arguments = parser.parse_args()
    folder = arguments.work
    saved = load_checkpoint(folder / "last.pt")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    measured = list({row["epoch"]: row for row in rows if "dev_letters" in row}.values())
    synthetic = " --synthetic" if "flite" in saved["sources"] else ""
    lines = [
        f"`torchrun --nproc-per-node {saved['world']} -m recipes.mini.train --init BUNDLE "
        f"--config recipes/mini/{arguments.config}{synthetic}`: "
        f"{count_parameters(saved):,} parameters, {saved['step']} steps, "
        f"{saved['audio_s'] / 3600:.0f} hours of audio in "
        f"{saved['spent_s'] / 60:.0f} minutes on {saved['world']} cores, shared with other work. "
        "Errors of single checkpoints on a part of dev, greedy:",
        "",
        "| epoch | minutes | CER % | PER % | WER % |",
        "|---|---|---|---|---|",
        *(
            f"| {row['epoch']} | {row['spent_s'] / 60:.0f} | {100 * row['dev_letters']:.1f} "
            f"| {100 * row['dev_phones']:.1f} | {100 * row['dev_words']:.1f} |"
            for row in measured
        ),
        "",
        "![loss and errors over epochs](curve.png)",
    ]
    shutil.copyfile(folder / "curve.png", HERE / "curve.png")
    write_section(HERE / "RESULTS.md", "run", "\n".join(lines))


if __name__ == "__main__":
    run(main)
