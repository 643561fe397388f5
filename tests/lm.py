"""Language models for tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

WORDS = ("a", "be", "see", "dé", "e")


def made_up_arpa(seed: int, path: Path, sizes: tuple[int, int] = (12, 20), words: Sequence[str] = WORDS) -> Path:
    """A consistent back-off model over `words`: random followers, what they leave goes to the back-off."""
    rng = random.Random(seed)
    vocabulary = ["<s>", "</s>", "<unk>", *words]
    weights = [0.0, *(rng.random() + 0.05 for _ in vocabulary[1:])]
    unigram = {w: x / sum(weights) for w, x in zip(vocabulary, weights, strict=True)}
    pairs = sorted({(rng.choice(["<s>", *words]), rng.choice(["</s>", *words])) for _ in range(sizes[0])})
    # As estimators have it: of a trigram "a b c" both "a b" and "b c" are there.
    chains = [(*one, two[1]) for one in pairs for two in pairs if one[1] == two[0]]
    triples = sorted(rng.sample(chains, min(sizes[1], len(chains))))

    def spread(grams: list[tuple[str, ...]], below: dict[tuple[str, ...], float]) -> tuple[dict, dict]:
        prob, backoff = {}, {}
        for context in sorted({gram[:-1] for gram in grams}):
            own = [gram for gram in grams if gram[:-1] == context]
            kept = rng.uniform(0.3, 0.9)
            shares = [rng.random() + 0.1 for _ in own]
            prob |= {gram: kept * share / sum(shares) for gram, share in zip(own, shares, strict=True)}
            backoff[context] = (1 - kept) / (1 - sum(below[gram] for gram in own))
        return prob, backoff

    prob2, backoff1 = spread(pairs, {pair: unigram[pair[1]] for pair in pairs})

    def bigram(a: str, b: str) -> float:
        return prob2.get((a, b), backoff1.get((a,), 1.0) * unigram[b])

    prob3, backoff2 = spread(triples, {t: bigram(t[1], t[2]) for t in triples})

    def log10(x: float) -> str:
        return "-99" if x == 0.0 else f"{math.log10(x):.7f}"

    lines = ["\\data\\", f"ngram 1={len(vocabulary)}", f"ngram 2={len(pairs)}", f"ngram 3={len(triples)}"]
    lines += ["", "\\1-grams:", *(f"{log10(unigram[w])}\t{w}\t{log10(backoff1.get((w,), 1.0))}" for w in vocabulary)]
    lines += ["", "\\2-grams:", *(f"{log10(prob2[p])}\t{' '.join(p)}\t{log10(backoff2.get(p, 1.0))}" for p in pairs)]
    lines += ["", "\\3-grams:", *(f"{log10(prob3[t])}\t{' '.join(t)}" for t in triples), "", "\\end\\", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
