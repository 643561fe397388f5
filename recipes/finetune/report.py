"""Before and after, through the run time that users have: words and letters that are wrong, for each decoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamasr.bundle import read_bundle
from streamasr.manifest import Utterance
from streamasr.recognizer import load
from streamasr.training.evaluation import ErrorCount

Speech = Mapping[str, Sequence[Utterance]]  # what it is -> recordings of it


@dataclass(frozen=True)
class Score:
    """Errors in words and in letters."""

    words: ErrorCount
    letters: ErrorCount


Scores = dict[tuple[str, str], Score]  # (speech, decoder)


def measure(folder: Path, speech: Speech, decoders: Collection[str] = ("beam", "greedy")) -> Scores:
    """What the bundle's fp32 graph makes of every recording, with each of these decoders that it has."""
    scores: Scores = {}
    for decoder in sorted(read_bundle(folder).tuning.keys() & set(decoders)):
        recognizer = load(folder, "fp32", greedy=decoder == "greedy")
        for name, utterances in speech.items():
            score = scores[name, decoder] = Score(ErrorCount(), ErrorCount())
            for utterance in utterances:
                words = [word.text for word in recognizer.transcribe(utterance.audio).words]
                score.words.add(utterance.text.split(), words)
                score.letters.add(list(utterance.text), list(" ".join(words)))
    return scores


def table(speech: Speech, before: Scores, after: Scores) -> str:
    """Markdown."""
    lines = [
        "| speech | minutes | decoder | WER % before | after | CER % before | after |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, decoder), new in after.items():
        old, minutes = before[name, decoder], sum(u.seconds for u in speech[name]) / 60.0
        rates = [f"{100 * e.rate:.1f}" for e in (old.words, new.words, old.letters, new.letters)]
        lines.append(f"| {name} | {minutes:.1f} | {decoder} | {' | '.join(rates)} |")
    return "\n".join(lines)


def results(after: Scores) -> dict[str, float]:
    """For the bundle's `measured`."""
    return {
        f"{decoder}_{name}_{unit}".replace(" ", "_"): round(errors.rate, 4)
        for (name, decoder), score in after.items()
        for unit, errors in (("wer", score.words), ("cer", score.letters))
    }
