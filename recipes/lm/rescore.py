"""What the recurrent model wins and costs: python -m recipes.lm.rescore RNN [--write]

Perplexity on dev beside the n-gram model's, over the same words. Then the words of dev, the network and the search
run once: how the mixture is weighed is chosen on every third utterance, and all of dev is counted with the best.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from streamasr.acoustic import Acoustic
from streamasr.bundle import BeamConfig, Rescoring, read_bundle
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.recurrent import Recurrent, read_states
from streamasr.decoding.rescore import Ending, Rescorer, Scores, mixture
from streamasr.recognizer import BUNDLED
from streamasr.training.evaluation import ErrorCount
from streamasr.training.manifest import Utterance, read_manifest
from streamasr.words import open_words

CHOOSING = 3  # every third utterance
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
WEIGHTS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
BONUSES = (0.0, 0.5, 1.0, 1.5, 2.0)
FEWER = (10, 20, 40)  # texts

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """An utterance at its end: its likeliest texts, and what both models make of them."""

    utterance: Utterance
    edits: tuple[int, ...]  # of each text
    log_probs: tuple[float, ...]
    scores: tuple[Scores, ...]


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


def edits(reference: str, words: Sequence[str]) -> int:
    count = ErrorCount()
    count.add(reference.split(), words)
    return count.edits


def chosen(case: Case, beam: BeamConfig, config: Rescoring | None) -> int:
    """The place of the text that is said."""
    if config is None:
        return 0
    count = config.hypotheses
    pairs = zip(case.log_probs[:count], case.scores[:count], strict=True)
    return int(np.argmax([log_prob + scores.gain(beam, config) for log_prob, scores in pairs]))


def rate(cases: Sequence[Case], beam: BeamConfig, config: Rescoring | None) -> float:
    """Word errors, %."""
    wrong = sum(case.edits[chosen(case, beam, config)] for case in cases)
    return 100.0 * wrong / sum(len(case.utterance.text.split()) for case in cases)


def oracle(cases: Sequence[Case], texts: int) -> float:
    """Word errors, %, if always the best text were said."""
    wrong = sum(min(case.edits[:texts]) for case in cases)
    return 100.0 * wrong / sum(len(case.utterance.text.split()) for case in cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recurrent", type=Path, metavar="RNN")
    parser.add_argument("--bundle", type=Path, default=BUNDLED)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--part", action="store_true", help="only the utterances on which weights are chosen")
    parser.add_argument("--histories", type=int, help="of the beam, in place of the bundle's")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    arguments = parser.parse_args()
    bundle = read_bundle(arguments.bundle)
    assert bundle.search is not None
    vocabulary = open_words(bundle)
    if arguments.histories:
        config = replace(vocabulary.config, histories=arguments.histories)
        vocabulary = replace(vocabulary, config=config)
    lm = vocabulary.lm
    assert isinstance(lm, Ngram)
    states = read_states(arguments.recurrent)
    default = bundle.search.rescoring or Rescoring(arguments.recurrent.name, states)
    rescorer = Rescorer(Recurrent(arguments.recurrent, states, lm.words), default)
    utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    lines = perplexities(lm, rescorer.model, utterances)
    print("\n".join(lines), flush=True)

    acoustic, (head, _) = Acoustic(bundle), bundle.head(bundle.search.head)
    search, beam = BeamSearch(vocabulary), vocabulary.config
    part, rest, search_s, score_s, most_s, seconds = [], [], 0.0, 0.0, 0.0, 0.0
    for place, utterance in enumerate(tqdm(utterances, "utterances")):
        if arguments.part and place % CHOOSING:
            continue
        rows = acoustic.whole(read_16k(utterance.audio))[:, head]
        began = time.process_time()
        state = search.start()
        for row in rows:
            state = search.step(row, state)
        search.final(state)
        middle = time.process_time()
        endings: list[Ending] = search.endings(state, default.hypotheses)
        scores = rescorer.scores(endings, lm)
        spent = time.process_time() - middle
        search_s, score_s, most_s = search_s + middle - began, score_s + spent, max(most_s, spent)
        seconds += utterance.seconds
        wrong = tuple(edits(utterance.text, [word.text for word in ending.words]) for ending in endings)
        case = Case(utterance, wrong, tuple(ending.log_prob for ending in endings), tuple(scores))
        (rest if place % CHOOSING else part).append(case)
    every = [*part, *rest]
    found = {
        (share, weight, bonus): rate(part, beam, replace(default, share=share, lm_weight=weight, word_bonus=bonus))
        for share, weight, bonus in itertools.product(SHARES, WEIGHTS, BONUSES)
    }
    share, weight, bonus = min(found, key=lambda key: (found[key], key))
    best = replace(default, share=share, lm_weight=weight, word_bonus=bonus)
    for key in sorted(found, key=lambda key: (found[key], key))[:12]:
        print(key, f"{found[key]:.2f}")
    header = f"every {CHOOSING}rd utterance" if CHOOSING == 3 else f"every {CHOOSING}th utterance"
    lines += ["", f"| last word | {header}, WER % | the others | all of dev |", "|---|---|---|---|"]

    def line(name: str, count: Rescoring | None) -> str:
        columns = [f"{rate(cases, beam, count):.2f}" if cases else "" for cases in (part, rest, every)]
        return f"| {name} | " + " | ".join(columns) + " |"

    lines.append(line("3-gram", None))
    lines.append(line(f"as bundled: share {default.share}, {default.lm_weight}, {default.word_bonus}", default))
    lines.append(line(f"best: share {share}, weight {weight}, bonus {bonus}", best))
    lines += [line(f"the same, {n} texts", replace(best, hypotheses=n)) for n in FEWER if n < best.hypotheses]
    lines.append(line("the recurrent model alone", replace(best, share=0.999)))
    for n in (n for n in FEWER if n <= default.hypotheses):
        columns = [f"{oracle(cases, n):.2f}" if cases else "" for cases in (part, rest, every)]
        lines.append(f"| the best of {n} texts | " + " | ".join(columns) + " |")
    lines += [
        "",
        f"{len(every)} utterances, {seconds / 3600:.2f} h, one core: search {search_s / seconds:.4f} of real time, "
        f"rescoring {score_s / seconds:.4f}: {1000 * score_s / len(every):.1f} ms an utterance, "
        f"{1000 * most_s:.0f} ms at most; {arguments.recurrent.stat().st_size / 1e6:.2f} MB.",
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "recurrent", "\n".join(lines))


if __name__ == "__main__":
    run(main)
