"""Perplexity on dev, size and speed of packed models: python -m recipes.lm.measure FILE ... [--write]"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

from recipes.mini.data import LETTERS
from recipes.program import run
from recipes.sections import write_section
from streamasr.decoding.ngram import Ngram
from streamasr.manifest import read_manifest

QUERIES = 60  # of one call, as a beam search makes them


def perplexity(lm: Ngram, sentences: list[list[str]]) -> float:
    """Per known word and sentence end, through the run time, all sentences abreast."""
    total, counted = 0.0, 0
    states = np.full(len(sentences), lm.start, dtype=np.int64)
    for place in range(max(map(len, sentences))):
        here = np.array([i for i, sentence in enumerate(sentences) if len(sentence) > place])
        words = np.array([lm.number(sentences[i][place]) for i in here], dtype=np.int32)
        score, states[here] = lm.score(states[here], words)
        known = words != lm.unknown
        total += float(score[known].sum(dtype=np.float64))
        counted += int(known.sum())
    return math.exp(-(total + float(lm.end(states).sum(dtype=np.float64))) / (counted + len(sentences)))


def shown(lm: Ngram, sentences: list[list[str]]) -> str:
    """The perplexity as it stands in tables; "-" where there is nothing to measure it on."""
    return f"{perplexity(lm, sentences):.1f}" if sentences else "-"


def score_ms(lm: Ngram) -> float:
    """Median time of one call of score, words as frequent as the model has them."""
    rng, times = np.random.default_rng(0), []
    share = np.exp(lm.unigram.astype(np.float64))
    states = np.full(QUERIES, lm.start, dtype=np.int64)
    for words in rng.choice(len(lm.words), (500, QUERIES), p=share / share.sum()).astype(np.int32):
        began = time.perf_counter()
        _, states = lm.score(states, words)
        times.append(time.perf_counter() - began)
    return 1000.0 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    arguments = parser.parse_args()
    utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    dev = [u.text.split() for u in utterances]
    libri = [u.text.split() for u in utterances if u.source.startswith("ls-")]
    lines = [
        f"| file | MB | n-grams | perplexity | LibriSpeech's part | ms for {QUERIES} scores |",
        "|---|---|---|---|---|---|",
    ]
    for path in arguments.models:
        lm = Ngram.open(path)
        lines.append(
            f"| {path.name} | {path.stat().st_size / 1e6:.2f} | {', '.join(f'{n:,}' for n in lm.header.ngrams)} "
            f"| {shown(lm, dev)} | {shown(lm, libri)} | {score_ms(lm):.2f} |"
        )
    print("\n".join(lines))
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "measure", "\n".join(lines))


if __name__ == "__main__":
    run(main)
