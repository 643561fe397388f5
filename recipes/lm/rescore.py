"""What the recurrent model wins and costs: python -m recipes.lm.rescore RNN [--write]

Perplexity on dev beside the n-gram model's, over the same words. Then the words of dev: the network runs once, the
search once as it is without a recurrent model and once as wide as one needs it. How the mixture is weighed is chosen
on every third utterance; the others say whether that holds.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.words import WIDER
from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from streamasr.acoustic import Acoustic
from streamasr.bundle import BeamConfig, Rescoring, read_bundle
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.hypothesis import decoded
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.recurrent import Recurrent, read_states
from streamasr.decoding.rescore import Ending, Rescorer, Scores, mixture
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import BUNDLED
from streamasr.training.evaluation import ErrorCount
from streamasr.words import open_words, word_search

CHOOSING = 3  # every third utterance
TEXTS = 40
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
WEIGHTS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
BONUSES = (0.0, 0.5, 1.0, 1.5, 2.0)
NARROW = {name: getattr(BeamConfig(), name) for name in WIDER}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """An utterance at its end: its likeliest texts, and what both models make of them."""

    place: int  # in the manifest
    words: int  # that were said
    edits: NDArray[np.int64]  # of each text
    log_probs: Floats
    scores: tuple[Scores, ...]

    def sums(self) -> tuple[Floats, Floats, Floats]:
        """The n-gram model's log-probability of each text, its words, (shares, texts) the mixture's."""
        ngram = np.array([scores.ngram.sum() for scores in self.scores])
        words = np.array([len(scores.ngram) - 1.0 for scores in self.scores])
        mixed = [[mixture(s.ngram, s.recurrent, share).sum() for s in self.scores] for share in SHARES]
        return ngram, words, np.array(mixed)


@dataclass
class Heard:
    """All of dev by one search."""

    search: BeamSearch
    cases: list[Case] = field(default_factory=list)
    search_s: float = 0.0
    rescoring_s: list[float] = field(default_factory=list)

    def hear(self, place: int, said: str, rows: NDArray[np.float32], rescorer: Rescorer) -> None:
        """One more utterance: (frames, tokens) log-probabilities."""
        began = time.process_time()
        state = decoded(self.search, rows)
        middle = time.process_time()
        endings: list[Ending] = self.search.endings(state, TEXTS)
        scores = rescorer.scores(endings, self.search.vocabulary.lm)
        self.search_s += middle - began
        self.rescoring_s.append(time.process_time() - middle)
        edits = np.array([_edits(said, [word.text for word in ending.words]) for ending in endings])
        log_probs = np.array([ending.log_prob for ending in endings])
        self.cases.append(Case(place, len(said.split()), edits, log_probs, tuple(scores)))

    def row(self, name: str, config: Rescoring | None) -> str:
        """Word errors if `config` has the last word; None: the n-gram model."""
        beam = self.search.config

        def said(case: Case) -> int:
            if config is None:
                return 0
            kept = zip(case.log_probs[: config.hypotheses], case.scores, strict=False)
            return int(np.argmax([log_prob + scores.gain(beam, config) for log_prob, scores in kept]))

        return self._row(name, {case.place: int(case.edits[said(case)]) for case in self.cases})

    def best(self, name: str) -> str:
        """Word errors if always the best text were said."""
        return self._row(name, {case.place: int(case.edits.min()) for case in self.cases})

    def _row(self, name: str, wrong: dict[int, int]) -> str:
        columns = []
        for part in ([c for c in self.cases if not c.place % CHOOSING], [c for c in self.cases if c.place % CHOOSING]):
            columns.append((sum(wrong[case.place] for case in part), sum(case.words for case in part)))
        columns.append((sum(edits for edits, _ in columns), sum(words for _, words in columns)))
        return f"| {name} | " + " | ".join(f"{100 * edits / max(words, 1):.2f}" for edits, words in columns) + " |"

    def choose(self, config: Rescoring) -> Rescoring:
        """The weights that are best on every third utterance."""
        beam = self.search.config
        wrong: dict[tuple[float, float, float], int] = {}
        parts = [(case, *case.sums()) for case in self.cases if not case.place % CHOOSING]
        for (i, share), weight, bonus in itertools.product(enumerate(SHARES), WEIGHTS, BONUSES):
            wrong[share, weight, bonus] = sum(
                int(
                    case.edits[
                        np.argmax(
                            case.log_probs
                            + weight * mixed[i]
                            - beam.lm_weight * ngram
                            + (bonus - beam.word_bonus) * words
                        )
                    ]
                )
                for case, ngram, words, mixed in parts
            )
        ranked = sorted(wrong, key=lambda key: (wrong[key], key))
        total = sum(case.words for case, *_ in parts)
        print("\n".join(f"share, weight, bonus {key}: {100 * wrong[key] / total:.2f}" for key in ranked[:10]))
        share, weight, bonus = ranked[0]
        return replace(config, share=share, lm_weight=weight, word_bonus=bonus)

    def cost(self, name: str, seconds: float) -> str:
        """What it took of real time, and to re-score one utterance."""
        spent = self.rescoring_s
        return (
            f"| {name} | {self.search_s / seconds:.4f} | {sum(spent) / seconds:.4f} | {1000 * np.mean(spent):.1f} "
            f"| {1000 * max(spent):.0f} |"
        )


def word_scores(lm: Ngram, words: Sequence[int]) -> list[float]:
    """Log-probability of each word, and of the end."""
    state, found = np.array([lm.start]), []
    for word in words:
        score, state = lm.score(state, np.array([word], dtype=np.int32))
        found.append(float(score[0]))
    return [*found, float(lm.end(state)[0])]


def perplexities(lm: Ngram, model: Recurrent, utterances: Sequence[Utterance]) -> list[str]:
    """A table over known words and sentence ends."""
    ngram, recurrent, libri = [], [], []
    for utterance in utterances:
        words = [lm.number(word) for word in utterance.text.split()]
        known = np.array([*(word != lm.unknown for word in words), True])
        ngram.append(np.array(word_scores(lm, words))[known])
        recurrent.append(model.score([words])[0].astype(np.float64)[known])
        libri.append(np.full(known.sum(), utterance.source.startswith("ls-")))
    a, b, mask = (np.concatenate(parts) for parts in (ngram, recurrent, libri))
    share = float(max(np.arange(1, 20) / 20, key=lambda share: mixture(a, b, share).sum()))
    rows = {"3-gram": a, "recurrent": b, f"both, {100 * share:.0f} % recurrent": mixture(a, b, share)}
    lines = ["| model | perplexity | LibriSpeech's part |", "|---|---|---|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {math.exp(-row.mean()):.1f} | {math.exp(-row[mask].mean()):.1f} |")
    return [*lines, "", f"{len(a):,} words and ends of dev."]


def _edits(reference: str, words: Sequence[str]) -> int:
    count = ErrorCount()
    count.add(reference.split(), words)
    return count.edits


def read_emissions(
    folder: Path, utterances: Sequence[Utterance], every: int
) -> Iterator[tuple[int, Utterance, NDArray[np.float32]]]:
    """Place, utterance, (frames, tokens) of the head that words are spelled in."""
    bundle = read_bundle(folder)
    acoustic, (head, _) = Acoustic(bundle), bundle.head(word_search(bundle).head)
    for place, utterance in enumerate(tqdm(utterances, "utterances")):
        if place % every == 0:
            yield place, utterance, acoustic.whole(read_16k(utterance.audio))[:, head]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recurrent", type=Path, metavar="RNN")
    parser.add_argument("--bundle", type=Path, default=BUNDLED)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--part", action="store_true", help="only the utterances on which weights are chosen")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    arguments = parser.parse_args()
    vocabulary: Vocabulary = open_words(read_bundle(arguments.bundle))
    lm, states = vocabulary.lm, read_states(arguments.recurrent)
    assert isinstance(lm, Ngram)
    default = Rescoring(arguments.recurrent.name, states)
    rescorer = Rescorer(Recurrent(arguments.recurrent, states, lm.words), default)
    utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    lines = perplexities(lm, rescorer.model, utterances)
    print("\n".join(lines), flush=True)

    narrow, wide = (
        Heard(BeamSearch(replace(vocabulary, config=replace(vocabulary.config, **width)))) for width in (NARROW, WIDER)
    )
    seconds = 0.0
    for place, utterance, rows in read_emissions(arguments.bundle, utterances, CHOOSING if arguments.part else 1):
        seconds += utterance.seconds
        for heard in (narrow, wide):
            heard.hear(place, utterance.text, rows, rescorer)
    best = wide.choose(default)
    weighed = f"{best.share:g} recurrent, weight {best.lm_weight:g}, bonus {best.word_bonus:g}"
    lines += [
        "",
        "| search | last word | every third utterance, WER % | the others | all of dev |",
        "|---|---|---|---|---|",
        narrow.row("as without | 3-gram", None),
        narrow.row(f"as without | {weighed}", best),
        narrow.best(f"as without | the best of {TEXTS} texts"),
        wide.row("wider | 3-gram", None),
        wide.row(f"wider | {weighed}", best),
        *(wide.row(f"wider | the same, of {n} texts", replace(best, hypotheses=n)) for n in (10, 20)),
        wide.row(f"wider | default: {default.share:g}, {default.lm_weight:g}, {default.word_bonus:g}", default),
        wide.best(f"wider | the best of {TEXTS} texts"),
        "",
        "| search | its part of real time | re-scoring's | ms to re-score an utterance | at most |",
        "|---|---|---|---|---|",
        narrow.cost("as without", seconds),
        wide.cost("wider", seconds),
        "",
        f"{len(wide.cases)} utterances of dev, {seconds / 3600:.2f} h, CPU time of one core beside other work; "
        f"the file has {arguments.recurrent.stat().st_size / 1e6:.2f} MB. Wider: "
        + ", ".join(f"{value} {name}" for name, value in WIDER.items())
        + " (of one future); as without: "
        + ", ".join(f"{value}" for value in NARROW.values())
        + ".",
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "recurrent", "\n".join(lines))


if __name__ == "__main__":
    run(main)
