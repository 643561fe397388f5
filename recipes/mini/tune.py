"""Word times and confidence of a bundle: python -m recipes.mini.tune BUNDLE

Small things that the network does not learn are fitted on one half of dev's speakers and reported
on the other half (recipes.mini.evaluate): how far a word's first and last spike lie from its start
and end, how a word's letter probabilities translate into the chance that it is right, and, with
the noise that was trained on, how likely silence must be for an utterance to be taken for noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from recipes.mini.align import read_alignments
from recipes.mini.data import LETTERS, noise_files
from recipes.mini.listen import Heard, Task, hear, hear_all, read_16k
from recipes.program import run
from streamasr.bundle import ConfidenceModel, Timing, Tuning, read_bundle, write_bundle
from streamasr.errors import StreamasrError
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import Recognizer, load

ALIGNMENTS = Path("work/align-dev.jsonl")  # written by recipes.mini.align
SPEEDS = (0.87, 1.15)  # at which noise sounds otherwise


def halves(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Every other speaker to each half: one to fit on, one to report on."""
    speakers = sorted({u.speaker for u in utterances})
    fit = set(speakers[::2])
    return [u for u in utterances if u.speaker in fit], [u for u in utterances if u.speaker not in fit]


def spike_errors(
    recognizer: Recognizer, heard: Sequence[Heard], times: dict[str, list[tuple[str, float, float]]]
) -> NDArray[np.float64]:
    """(words, 2): aligned start minus first spike, aligned end minus last spike, in samples, of right words."""
    stride, rate = recognizer.acoustic.graph.stride, recognizer.bundle.sample_rate
    rows = []
    for item in heard:
        reference = times.get(str(item.utterance.audio))
        for word, place in item.matches():
            if reference and place is not None:
                _, start_s, end_s = reference[place]
                rows.append([start_s * rate - word.first_frame * stride, end_s * rate - (word.last_frame + 1) * stride])
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def fit_timing(errors: NDArray[np.float64]) -> Timing:
    """The medians: what minimises the mean absolute error. StreamasrError: no word to learn from."""
    if not len(errors):
        raise StreamasrError("no word that was heard right is in the alignments: make them for the same paths of audio")
    start, end = np.median(errors, axis=0)
    return Timing(start=int(start), end=int(end))


def fit_confidence(heard: Sequence[Heard], steps: int = 30) -> ConfidenceModel:
    """Logistic regression by Newton's method, with a faint pull to zero."""
    pairs = [(word.evidence.features, place is not None) for item in heard for word, place in item.matches()]
    x = np.array([features for features, _ in pairs])
    y = np.array([right for _, right in pairs], dtype=np.float64)
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-x @ weights))
        gradient = x.T @ (p - y) + 1e-3 * weights
        hessian = (x * (p * (1.0 - p))[:, None]).T @ x + 1e-3 * np.eye(len(weights))
        weights -= np.linalg.solve(hessian, gradient)
    return ConfidenceModel(*(round(float(w), 4) for w in weights))


def unheard(audio: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Noise as the network has not heard it: in the recordings that it was trained on it keeps silent anyway."""
    yield audio[::-1]
    for speed in SPEEDS:
        yield soxr.resample(audio, speed, 1.0)


def fit_silence(recognizer: Recognizer, heard: Sequence[Heard], shared: Path) -> float:
    """Below what nine of ten utterances heard in noise reach, unless short speech would be lost by it.

    At most 5 % of the right words would fall to it if they were said alone.
    """
    noise = [made for path in noise_files(shared, held_out=False) for made in unheard(read_16k(path))]
    found = [hear(recognizer, audio) for audio in noise]
    in_noise = [min(word.evidence.blank_log_prob for word in words) for words in found if words]
    right = [word.evidence.blank_log_prob for item in heard for word, place in item.matches() if place is not None]
    wanted = float(np.quantile(in_noise, 0.1)) if in_noise else 0.0
    return round(max(wanted, float(np.quantile(right, 0.95))), 3)


def tune(folder: Path, shared: Path, alignments: Path = ALIGNMENTS) -> None:
    """Fit on one half of dev's speakers, and write what was found into the bundle in `folder`."""
    bundle = read_bundle(folder)
    tuning = {}
    fit, _ = halves(read_manifest(shared / "speech" / "dev.jsonl", LETTERS))
    names, files = list(bundle.tuning), frozenset(u.audio for u in fit)
    tasks = [Task(name == "greedy", tuple(fit), files, said=False) for name in names]
    for name, heard in zip(names, hear_all(folder, tasks), strict=True):
        recognizer = load(folder, greedy=name == "greedy")
        timing = fit_timing(spike_errors(recognizer, heard, dict(read_alignments(alignments))))
        confidence = fit_confidence(heard)
        tuning[name] = Tuning(timing, confidence, fit_silence(recognizer, heard, shared))
        print(f"{name}: {tuning[name]}")
    write_bundle(replace(bundle, tuning=tuning))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--alignments", type=Path, default=ALIGNMENTS, help="of recipes.mini.align")
    arguments = parser.parse_args()
    tune(arguments.bundle, arguments.shared, arguments.alignments)


if __name__ == "__main__":
    run(main)
