"""What an open vocabulary wins and costs: python -m recipes.mini.open_vocabulary [--write]

Every fourth utterance of dev, the network run once, the search once for each reward of unknown words. The names are
its words that the language model lacks; beside them stands what was heard in their place.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import jiwer
from tqdm import tqdm

from recipes.measuring import measuring
from recipes.mini.search import Speech, emissions
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import read_bundle
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.hypothesis import decoded
from streamasr.decoding.open_search import OpenSearch
from streamasr.words import open_rescorer, open_words, with_unknown, word_search

REWARDS = (3.0, 6.0, 7.5, 9.0)

Heard = list[tuple[list[str], list[bool]]]  # words of each utterance, whether each was spelled out


def listen(search: BeamSearch, speech: Speech) -> tuple[Heard, float]:
    """What the search hears, and how many seconds it takes."""
    heard, started = [], time.process_time()
    for _, log_probs in speech:
        state = decoded(search, log_probs)
        phones = BeamSearch.final(search, state).words  # where unknown words are not written yet
        written = search.final(state).words
        heard.append(([word.text for word in written], [word.text.startswith("<") for word in phones]))
    return heard, time.process_time() - started


def pairs(said: list[str], heard: Heard) -> list[list[tuple[str, str, bool]]]:
    """Each utterance's words, what was heard in the place of each ("": nothing), whether that was spelled out."""
    found = []
    for text, (words, spelled) in zip(said, heard, strict=True):
        row = [(word, "", False) for word in text.split()]
        for chunk in jiwer.process_words(text, " ".join(words)).alignments[0]:
            if chunk.type in ("equal", "substitute"):
                length = chunk.ref_end_idx - chunk.ref_start_idx
                for i, j in zip(range(length), range(chunk.hyp_start_idx, chunk.hyp_end_idx), strict=True):
                    place = chunk.ref_start_idx + i
                    row[place] = row[place][0], words[j], spelled[j]
        found.append(row)
    return found


def near(word: str, other: str) -> bool:
    """At most one letter apart."""
    counts = jiwer.process_characters(word, other)
    return counts.substitutions + counts.insertions + counts.deletions <= 1


def main(arguments: Sequence[str] | None = None) -> None:
    options = measuring(__doc__).parse_args(arguments)
    bundle = read_bundle(options.bundle)
    where, _ = bundle.head(word_search(bundle).head)
    whole, seconds = emissions(bundle, options.shared)
    speech = [(text, rows[:, where]) for text, rows in whole]
    said = [text for text, _ in speech]
    words = open_words(bundle)
    known, rescorer = set(words.lm.words), open_rescorer(bundle, words)
    searches = {"none": BeamSearch(words, rescorer)} | {
        f"{reward:g}": OpenSearch(with_unknown(bundle, words, reward), rescorer) for reward in REWARDS
    }
    lines = [
        "| reward | WER % | names exact | within a letter | words spelled out | right before, now spelled out "
        "| right before, now wrong | wrong before, now right | real-time factor |",
        "|---" * 9 + "|",
    ]
    before: list[list[tuple[str, str, bool]]] = []
    for name, search in tqdm(searches.items(), "searches"):
        heard, took = listen(search, speech)
        found = pairs(said, heard)
        before = before or found
        names = [(word, other) for row in found for word, other, _ in row if word not in known]
        changes = [
            (old[1] == old[0], new[1] == new[0], new[2])
            for olds, news in zip(before, found, strict=True)
            for old, new in zip(olds, news, strict=True)
            if old[0] in known
        ]
        figures = (
            f"{100 * jiwer.wer(said, [' '.join(texts) for texts, _ in heard]):.1f}",
            sum(word == other for word, other in names),
            sum(near(word, other) for word, other in names if other),
            sum(sum(spelled) for _, spelled in heard),
            sum(was and not is_ and spelled for was, is_, spelled in changes),
            sum(was and not is_ for was, is_, _ in changes),
            sum(is_ and not was for was, is_, _ in changes),
            f"{took / seconds:.4f}",
        )
        lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
        print(lines[-1])
    count = sum(word not in known for text in said for word in text.split())
    text = "\n".join(
        [*lines, "", f"{len(said)} utterances, {len(' '.join(said).split())} words, {count} of them names."]
    )
    print(text)
    if options.write:
        write_section(Path(__file__).parent / "RESULTS.md", "open vocabulary", text)


if __name__ == "__main__":
    run(main)
