"""Measure a bundle: python -m recipes.mini.evaluate BUNDLE [--write]

Everything goes through the run time that users have. Prints Markdown; with --write it goes into
RESULTS.md and the model card, and the main figures into the bundle itself. Choices are made on
dev; test is only for a finished one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recipes.mini.align import read_alignments
from recipes.mini.card import write_card
from recipes.mini.data import LETTERS, noise_files
from recipes.mini.listen import Heard, Task, hear_all, match, read_16k
from recipes.mini.tune import ALIGNMENTS, halves
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import Bundle, ConfidenceModel, read_bundle, write_bundle
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import Recognizer, load
from streamasr.training.evaluation import ErrorCount

HERE = Path(__file__).parent


def count(heard: Sequence[Heard]) -> tuple[ErrorCount, ErrorCount]:
    """Errors in words and in letters."""
    words, letters = ErrorCount(), ErrorCount()
    for item in heard:
        words.add(item.utterance.text.split(), item.text.split())
        letters.add(list(item.utterance.text), list(item.text))
    return words, letters


def error_table(heard: dict[str, list[Heard]]) -> tuple[list[str], dict[str, float]]:
    """WER and CER of each split, and of dev by source."""
    lines = ["| speech | hours | WER % | CER % |", "|---|---|---|---|"]
    measured = {}
    groups = dict(heard)
    for source in sorted({item.utterance.source for item in heard["dev"]}):
        groups[f"dev, {source}"] = [item for item in heard["dev"] if item.utterance.source == source]
    for name, items in groups.items():
        words, letters = count(items)
        hours = sum(item.utterance.seconds for item in items) / 3600.0
        lines.append(f"| {name} | {hours:.2f} | {100 * words.rate:.1f} | {100 * letters.rate:.1f} |")
        if name in heard:
            measured |= {f"{name}_wer": round(words.rate, 6), f"{name}_cer": round(letters.rate, 6)}
    return lines, measured


def hear_splits(
    folder: Path, names: Sequence[str], speech: dict[str, tuple[Utterance, ...]], raw: frozenset[Path] = frozenset()
) -> dict[str, dict[str, list[Heard]]]:
    """Decoder -> split -> what it hears there. raw: as in Task."""
    jobs = [(name, split) for name in names for split in speech]
    found = hear_all(folder, [Task(name == "greedy", speech[split], raw) for name, split in jobs])
    return {name: {split: h for (n, split), h in zip(jobs, found, strict=True) if n == name} for name in names}


def figures(heard: dict[str, dict[str, list[Heard]]]) -> dict[str, float]:
    """What a bundle says of itself: decoder and split -> error."""
    return {f"{name}_{key}": value for name in heard for key, value in error_table(heard[name])[1].items()}


def timing_line(heard: Sequence[Heard], times: dict[str, list[tuple[str, float, float]]]) -> str:
    """How far word starts and ends are from the forced alignment."""
    rows = []
    for item in heard:
        reference = times.get(str(item.utterance.audio))
        for word, place in match(item.utterance.text, item.said) if reference else ():
            if reference and place is not None:
                rows.append([word.start_s - reference[place][1], word.end_s - reference[place][2]])
    errors = 1000.0 * np.abs(np.array(rows, dtype=np.float64).reshape(-1, 2))
    start, end = np.median(errors, axis=0)
    within = 100.0 * float(np.mean(errors[:, 0] <= 100.0))
    return (
        f"Word times against PocketSphinx's forced alignment, {len(errors)} right words of the half of dev's speakers "
        f"they were not tuned on: median error {start:.0f} ms at the start, {end:.0f} ms at the end; "
        f"{within:.0f} % of the starts within 100 ms."
    )


def reliability(confidence: ConfidenceModel, heard: Sequence[Heard]) -> list[str]:
    """Of words with about this confidence, how many are right."""
    pairs = [(confidence(w.evidence), place is not None) for item in heard for w, place in item.matches()]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    lines = ["| confidence | words | mean confidence % | right % |", "|---|---|---|---|"]
    gap = 0.0
    for low in np.arange(0.0, 1.0, 0.1):
        rows = table[(table[:, 0] >= low) & (table[:, 0] < low + 0.1)]
        if len(rows):
            mean, right = rows.mean(axis=0)
            gap += abs(mean - right) * len(rows) / len(table)
            lines.append(f"| {low:.1f} to {low + 0.1:.1f} | {len(rows)} | {100 * mean:.0f} | {100 * right:.0f} |")
    return [*lines, "", f"Expected calibration error {100 * gap:.1f} points."]


def noise_lines(recognizer: Recognizer, shared: Path) -> list[str]:
    """Words that come out where nobody speaks."""
    rng = np.random.default_rng(0)
    minute = 60 * recognizer.bundle.sample_rate
    sounds = {
        "digital silence": [np.zeros(5 * minute, dtype=np.float32)],
        "faint hiss (-70 dB)": [rng.standard_normal(5 * minute).astype(np.float32) * np.float32(10**-3.5)],
        "held-out noise recordings": [read_16k(path) for path in noise_files(shared, held_out=True)],
    }
    lines = ["| sound | minutes | words per minute |", "|---|---|---|"]
    for name, clips in ((name, clips) for name, clips in sounds.items() if clips):
        minutes = sum(len(clip) for clip in clips) / minute
        words = sum(len(recognizer.transcribe(clip).words) for clip in clips)
        lines.append(f"| {name} | {minutes:.1f} | {words / minutes:.2f} |")
    return lines


HEADINGS = {
    "beam": "Words and the language model of the bundle, beam search",
    "greedy": "Greedy letters, no language model (`--greedy`)",
}


def section(name: str, folder: Path, heard: dict[str, list[Heard]], kept_back: frozenset[Path], shared: Path) -> str:
    """Everything about one decoder, as Markdown."""
    recognizer = load(folder, greedy=name == "greedy")
    report = [item for item in heard["dev"] if item.utterance.audio in kept_back]
    block_ms = 1000 * recognizer.acoustic.graph.block / recognizer.bundle.sample_rate
    lines = [f"#### {HEADINGS[name]}", "", f"Streaming in blocks of {block_ms:.0f} ms.", "", *error_table(heard)[0]]
    lines += ["", timing_line(report, dict(read_alignments(ALIGNMENTS))), "", "Confidence, same half of dev:", ""]
    lines += [*reliability(recognizer.tuning.confidence, report), "", "Words where nobody speaks:", ""]
    return "\n".join([*lines, *noise_lines(recognizer, shared)])


def graph_section(bundle: Bundle, folder: Path, heard: dict[str, dict[str, list[Heard]]]) -> str:
    """The last split once more through the graphs that are not the default."""
    split = list(next(iter(heard.values())))[-1]
    lines = [
        f"#### The graphs of the bundle, on {split}",
        "",
        "| graph | decoder | WER % | CER % |",
        "|---|---|---|---|",
    ]
    for graph in bundle.graphs:
        if graph == bundle.default:
            found = {name: items[split] for name, items in heard.items()}
        else:
            speech = tuple(item.utterance for item in next(iter(heard.values()))[split])
            tasks = [Task(name == "greedy", speech, frozenset(), graph=graph) for name in heard]
            found = dict(zip(heard, hear_all(folder, tasks), strict=True))
        for name, items in found.items():
            words, letters = count(items)
            default = ", the default" if graph == bundle.default else ""
            lines.append(f"| {graph}{default} | {name} | {100 * words.rate:.2f} | {100 * letters.rate:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--splits", nargs="+", default=["dev", "test"], help="dev alone while choosing")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md, the model card and the bundle")
    arguments = parser.parse_args()
    if "dev" not in arguments.splits:
        parser.error("--splits: expected dev among them, on which times and confidence are measured")
    bundle = read_bundle(arguments.bundle)
    speech = {
        split: tuple(read_manifest(arguments.shared / "speech" / f"{split}.jsonl", LETTERS))
        for split in arguments.splits
    }
    kept_back = frozenset(u.audio for u in halves(speech["dev"])[1])
    names = [name for name in HEADINGS if name in bundle.tuning]
    heard = hear_splits(arguments.bundle, names, speech, kept_back)
    sections = [section(n, arguments.bundle, heard[n], kept_back, arguments.shared) for n in names]
    text = "\n\n".join([*sections, graph_section(bundle, arguments.bundle, heard)])
    print(text)
    if arguments.write:
        write_section(HERE / "RESULTS.md", "evaluate", text)
        write_section(HERE.parents[1] / "README.md", "measured", readme_table(names, heard))
        write_bundle(replace(read_bundle(arguments.bundle), measured={**bundle.measured, **figures(heard)}))
        write_card(arguments.bundle)


def readme_table(names: Sequence[str], heard: dict[str, dict[str, list[Heard]]]) -> str:
    """The main figures."""
    lines = ["| speech | decoder | WER % | CER % |", "|---|---|---|---|"]
    for split in heard[names[0]]:
        for name in names:
            words, letters = count(heard[name][split])
            lines.append(f"| {split} | {name} | {100 * words.rate:.1f} | {100 * letters.rate:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
