"""What a grammar is worth: python -m recipes.commands.measure [--bundle BUNDLE] [--utterances N] [--write]

Coffee orders with the bundle's language model and with `barista.grammar`, and how much other speech
passes for an order. The threshold is chosen on the even lines of commands.jsonl and half of dev's
speakers; the odd lines and the other half are for the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.mini.tune import halves
from recipes.program import run
from recipes.sections import write_section
from streamasr.decoding.grammar import Grammar
from streamasr.decoding.hypothesis import decoded
from streamasr.decoding.rejection import MOST_LOST, GrammarSearch
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import Recognizer, load
from streamasr.training.evaluation import ErrorCount
from streamasr.words import open_words

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Order:
    """An utterance, what it is with the bundle's language model and which phrase it is nearest to."""

    utterance: Utterance
    free: str  # "" where it was not asked for
    phrase: str
    lost: float  # of that phrase, as GrammarSearch.lost

    @property
    def right(self) -> bool:
        """Whether the nearest phrase is what was said."""
        return self.phrase == self.utterance.text


@dataclass(frozen=True)
class Halves:
    """Orders, and speech that holds none."""

    commands: list[Utterance]
    dev: list[Utterance]


def hear(recognizer: Recognizer, search: GrammarSearch, utterances: Sequence[Utterance], *, free: bool) -> list[Order]:
    """Each recording as one utterance; `free`: with the recogniser's own decoder, too."""
    found = []
    for utterance in tqdm(utterances):
        rows = recognizer.acoustic.whole(read_16k(utterance.audio))[:, recognizer.head]
        plain = recognizer.decoder
        state = decoded(search, rows)
        text = plain.final(decoded(plain, rows)).text if free else ""
        found.append(Order(utterance, text, search.phrase(state)[0].text, search.lost(state)))
    return found


def threshold(orders: Sequence[Order], others: Sequence[Order]) -> float:
    """Where the share of orders that are refused and that of other speech that passes add up to the least.

    Of the thresholds that do equally well, the middle: neither side is to be close to it.
    """
    inside, outside = np.array([x.lost for x in orders]), np.array([x.lost for x in others])
    finite = np.concatenate([inside[np.isfinite(inside)], outside[np.isfinite(outside)]])
    values = np.unique(np.concatenate([[0.0], finite]))
    errors = np.array([np.mean(inside > value) + np.mean(outside <= value) for value in values])
    first = int(errors.argmin())
    last = first  # and as long as nothing lies between
    while last + 1 < len(values) and errors[last + 1] == errors[first]:
        last += 1
    above = values[last + 1] if last + 1 < len(values) else values[last]
    return float((values[first] + above) / 2)


def table(orders: Sequence[Order], most_lost: float) -> list[str]:
    """Error rates with and without the grammar."""
    lines = ["| decoder | WER % | sentences right % |", "|---|---|---|"]
    ways = {
        "the bundle's language model": [x.free for x in orders],
        "grammar, forced": [x.phrase for x in orders],
        "grammar, others refused": [x.phrase if x.lost <= most_lost else "" for x in orders],
    }
    for name, texts in ways.items():
        errors = ErrorCount()
        for order, text in zip(orders, texts, strict=True):
            errors.add(order.utterance.text.split(), text.split())
        right = np.mean([order.utterance.text == text for order, text in zip(orders, texts, strict=True)])
        lines.append(f"| {name} | {100 * errors.rate:.1f} | {100 * right:.1f} |")
    return lines


def passing(orders: Sequence[Order], others: Sequence[Order], most_lost: float) -> list[str]:
    """What is taken for an order, and what is not."""
    accepted = [x for x in orders if x.lost <= most_lost]
    false = [x for x in others if x.lost <= most_lost]
    hours = sum(x.utterance.seconds for x in others) / 3600.0
    lines = [
        f"Threshold {most_lost:.2f} nats for each token heard.",
        f"Orders accepted: {len(accepted)} of {len(orders)}, {sum(x.right for x in accepted)} of them word for word; "
        f"falsely refused: {len(orders) - len(accepted)} ({100 - 100 * len(accepted) / len(orders):.1f} %).",
        f"Other speech accepted as an order: {len(false)} of {len(others)} utterances in {hours:.2f} hours, "
        f"{len(false) / hours:.1f} per hour.",
    ]
    return [*lines, *(f"- '{x.utterance.text}' as '{x.phrase}' ({x.lost:.2f})" for x in false[:5])]


def spread(utterances: Sequence[Utterance], count: int | None) -> list[Utterance]:
    """At most so many of them, from everywhere."""
    if count is None or count >= len(utterances):
        return list(utterances)
    return [utterances[i * len(utterances) // count] for i in range(count)]


def report(recognizer: Recognizer, search: GrammarSearch, kept: Halves, fit: Halves) -> str:
    """kept: what is reported on. fit: what the threshold is chosen on."""
    orders = hear(recognizer, search, kept.commands, free=True)
    others = hear(recognizer, search, kept.dev, free=False)
    most_lost = threshold(
        hear(recognizer, search, fit.commands, free=False), hear(recognizer, search, fit.dev, free=False)
    )
    covered = sum(search.grammar.accepts(u.text) for u in kept.commands)
    words, states = len(search.grammar.words) - 1, len(search.grammar.ends)
    return "\n".join(
        [
            f"{recognizer.bundle.name} {recognizer.bundle.version} (network {recognizer.acoustic.graph.sha256[:8]}); "
            f"the grammar has {words} words and {states} states and covers {covered} of {len(kept.commands)} orders.",
            "",
            *table(orders, most_lost),
            "",
            "As chosen on the other halves:",
            "",
            *passing(orders, others, most_lost),
            "",
            "As built in:",
            "",
            *passing(orders, others, MOST_LOST)[:3],
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the bundled model")
    parser.add_argument("--grammar", type=Path, default=HERE / "barista.grammar")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--utterances", type=int, metavar="N", help="of each half (default: all)")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    arguments = parser.parse_args()
    recognizer = load(arguments.bundle)
    search = GrammarSearch(open_words(recognizer.bundle), Grammar.open(arguments.grammar))
    speech = {
        name: read_manifest(arguments.shared / "speech" / f"{name}.jsonl", LETTERS) for name in ("commands", "dev")
    }
    parts = [speech["commands"][::2], speech["commands"][1::2], *reversed(halves(speech["dev"]))]  # odd lines: kept
    kept, fit, dev_kept, dev_fit = (spread(part, arguments.utterances) for part in parts)
    text = report(recognizer, search, Halves(kept, dev_kept), Halves(fit, dev_fit))
    if arguments.utterances:
        text += f"\n\nOf each half at most {arguments.utterances} utterances were heard, evenly spread."
    print(text)
    if arguments.write:
        write_section(HERE / "RESULTS.md", "measure", text)


if __name__ == "__main__":
    run(main)
