"""Learn to pronounce from CMUdict: python -m recipes.g2p.train

A twentieth of the words is dev, on which order and pruning are chosen, a twentieth is test. The
model that is kept has then learnt from all words.
"""

from __future__ import annotations

import argparse
import time
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np

from recipes.g2p.align import CODES, N_PHONES, align
from recipes.g2p.ngram import count, kneser_ney, prune, shrink
from recipes.program import run
from recipes.sections import write_section
from streamasr.decoding.g2p import ALPHABET, G2p, Unit
from streamasr.training.lexicon import PHONES, read_lexicon

HERE = Path(__file__).parent
STEP = 1 / 6  # nats: a twelfth is not better on dev, and packs worse
MAX_BYTES = 1_200_000
GROWTH = 1.13  # of the file when dev's and test's words are learnt too, and a little air
ORDERS = (6, 8)
THRESHOLDS = (1.0, 1.5, 2.0, 4.0)

Lexicon = dict[str, list[list[str]]]


@dataclass(frozen=True)
class Measured:
    """A file and its errors."""

    size: int  # bytes
    nodes: int
    phones: float  # phone error rate, against the nearest variant
    words: float  # part of the words that are like none of their variants
    ms: float  # CPU time of a word


@dataclass(frozen=True)
class Shape:
    """What is chosen on dev."""

    order: int = 8
    threshold: float = 1.0  # nats, see recipes.g2p.ngram.prune


def train(lexicon: Lexicon, shapes: list[Shape]) -> list[G2p]:
    """A model of each shape; the alignment is the same for all."""
    words = align([(word, phones) for word, variants in lexicon.items() for phones in variants])
    units = sorted({unit for word in words for unit in word})
    token = {unit: 1 + i for i, unit in enumerate(units)}
    text = [[token[unit] for unit in word] for word in words]
    return [build(units, text, shape) for shape in shapes]


def build(units: list[int], text: list[list[int]], shape: Shape) -> G2p:
    """The n-gram of a text as the run time holds it."""
    levels = count(text, shape.order, 1 + len(units))
    weights = kneser_ney(levels)
    levels, weights = shrink(levels, weights, prune(levels, weights, shape.threshold))
    lower = [np.bincount(below.parent, minlength=len(one.token)) for one, below in pairwise(levels)]
    children = np.concatenate([[len(levels[0].token)], *lower, np.zeros(len(levels[-1].token), dtype=np.int64)])
    cost = -np.concatenate([[0.0], *(weight.log_prob for weight in weights)]) / STEP
    backoff = -np.concatenate([[0.0], *(weight.log_backoff for weight in weights)]) / STEP
    return G2p(
        phones=tuple(PHONES),
        units=tuple(Unit(unit // CODES, decode(unit % CODES)) for unit in units),
        step=STEP,
        unit=np.concatenate([[0], *(level.token for level in levels)]).astype(np.uint16),
        children=children.astype(np.uint16),
        cost=np.clip(np.rint(cost), 0, 255).astype(np.uint8),
        backoff=np.clip(np.rint(backoff), -128, 127).astype(np.int8),
    )


def decode(code: int) -> tuple[int, ...]:
    """Phones of one of recipes.g2p.align's codes."""
    if code == 0:
        return ()
    if code <= N_PHONES:
        return (code - 1,)
    return divmod(code - 1 - N_PHONES, N_PHONES)


def split(lexicon: Lexicon) -> dict[str, Lexicon]:
    """Words by a hash of their letters, so that a word is always on the same side."""
    parts: dict[str, Lexicon] = {"train": {}, "dev": {}, "test": {}}
    for word, variants in lexicon.items():
        place = zlib.crc32(word.encode()) % 20
        parts["dev" if place == 0 else "test" if place == 1 else "train"][word] = variants
    return parts


def errors(model: G2p, lexicon: Lexicon) -> tuple[float, float, float]:
    """Phone error rate against the nearest variant, part of words unlike all variants, ms a word."""
    wrong_phones = phones = wrong_words = 0
    start = time.process_time()
    heard = {word: model.pronounce(word)[0] for word in lexicon}
    ms = 1000.0 * (time.process_time() - start) / len(lexicon)
    for word, variants in lexicon.items():
        distances = [(distance(variant, heard[word]), len(variant)) for variant in variants]
        nearest, length = min(distances)
        wrong_phones, phones, wrong_words = wrong_phones + nearest, phones + length, wrong_words + (nearest > 0)
    return wrong_phones / phones, wrong_words / len(lexicon), ms


def distance(truth: list[str], heard: list[str]) -> int:
    """Substitutions, deletions and insertions."""
    if truth == heard:
        return 0
    done = jiwer.process_words(" ".join(truth), " ".join(heard))
    return done.substitutions + done.deletions + done.insertions


def measure(model: G2p, path: Path, lexicon: Lexicon) -> Measured:
    """Errors of a model as it comes back from its file."""
    model.save(path)
    wrong_phones, wrong_words, ms = errors(G2p.open(path), lexicon)
    return Measured(path.stat().st_size, len(model.unit), wrong_phones, wrong_words, ms)


def table(rows: dict[Shape, tuple[Measured, Measured | None]], chosen: Shape) -> list[str]:
    """Dev and, where it was read, test."""
    lines = ["| order | threshold | kB | n-grams | dev PER % | dev WER % | test PER % | test WER % |", "|---" * 8 + "|"]
    for shape, (dev, test) in rows.items():
        name = f"**{shape.order}**" if shape == chosen else str(shape.order)
        figures = [f"{100 * rate:.2f}" for one in (dev, test) if one for rate in (one.phones, one.words)]
        cells = [
            name,
            f"{shape.threshold:g}",
            f"{dev.size // 1000}",
            f"{dev.nodes}",
            *figures,
            *[""] * (4 - len(figures)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lexicon", type=Path, default=Path("../shared/lexicon/cmudict.dict"))
    parser.add_argument("--out", type=Path, default=Path("work/g2p/en.g2p"))
    parser.add_argument("--write", action="store_true", help="errors into RESULTS.md")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    trial = arguments.out.with_suffix(".trial")
    start = time.process_time()
    read = read_lexicon(arguments.lexicon)
    lexicon = {word: variants for word, variants in read.items() if set(word) <= set(ALPHABET)}
    parts = split(lexicon)
    shapes = [Shape(order, threshold) for order in ORDERS for threshold in THRESHOLDS]
    models = dict(zip(shapes, train(parts["train"], shapes), strict=True))
    learnt_s = time.process_time() - start
    dev = {shape: measure(model, trial, parts["dev"]) for shape, model in models.items()}
    chosen = min((s for s in shapes if GROWTH * dev[s].size <= MAX_BYTES), key=lambda s: dev[s].words)
    test = {s: measure(models[s], trial, parts["test"]) for s in shapes if s.order == chosen.order}
    trial.unlink()
    final_s = time.process_time()
    train(lexicon, [chosen])[0].save(arguments.out)
    final_s = time.process_time() - final_s
    load_s = time.process_time()
    G2p.open(arguments.out).pronounce("a")
    load_s = time.process_time() - load_s
    text = [
        f"{len(lexicon)} words of CMUdict: {', '.join(f'{len(part)} {name}' for name, part in parts.items())}. "
        f"The bold shape is the best on dev whose file stays under {MAX_BYTES / 1e6:g} MB; learnt anew from all words "
        f"it is {arguments.out.stat().st_size / 1e6:.2f} MB. {test[chosen].ms:.1f} ms a word, "
        f"{1000 * load_s:.0f} ms to load, one core. Training: {learnt_s:.0f} s of CPU for all {len(shapes)} shapes, "
        f"{final_s:.0f} s for the final model.",
        "",
        *table({shape: (dev[shape], test.get(shape)) for shape in shapes}, chosen),
    ]
    print("\n".join(text))
    if arguments.write:
        write_section(HERE / "RESULTS.md", "train", "\n".join(text))


if __name__ == "__main__":
    run(main)
