"""What the settings of the beam search are worth: python -m recipes.mini.search [--write]

Every fourth utterance of dev, the network run once, the search once for each line of the table. The line
"letters" spells the same words in the other head's tokens; what it hears of the space counts as blank.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle, read_bundle
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.hypothesis import decoded
from streamasr.decoding.speller import Speller
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.manifest import read_manifest
from streamasr.training.evaluation import ErrorCount
from streamasr.words import open_rescorer, open_words, word_search

Speech = list[tuple[str, NDArray[np.float32]]]  # what is said, (frames, tokens of all heads) log-probabilities

SETTINGS: dict[str, dict[str, Any]] = {
    "as bundled": {},
    "no blank penalty": {"blank_penalty": 0.0},
    "no blank penalty, language model weighed 0.9, word bonus 1": {
        "blank_penalty": 0.0,
        "lm_weight": 0.9,
        "word_bonus": 1.0,
    },
    "blank penalty 1": {"blank_penalty": 1.0},
    "blank penalty 2.5": {"blank_penalty": 2.5},
    "no token penalties": {"token_penalties": ()},
    "language model weighed 0.8": {"lm_weight": 0.8},
    "1.4": {"lm_weight": 1.4},
    "word bonus 0": {"word_bonus": 0.0},
    "word bonus 1.2": {"word_bonus": 1.2},
    "200 hypotheses": {"hypotheses": 200},
    "800 hypotheses": {"hypotheses": 800},
    "1 history of one future": {"histories": 1},
    "width 11": {"width": 11.0},
    "width 17": {"width": 17.0},
    "token width 6": {"token_width": 6.0},
    "no frame skipped": {"blank_skip": 1.1},
    "blank skip 0.95": {"blank_skip": 0.95},
    "pauses of any length in words": {"pause": 10_000},
}

RESCORINGS: dict[str, dict[str, Any]] = {
    "the recurrent model weighed 1.05": {"lm_weight": 1.05},
    "1.35": {"lm_weight": 1.35},
    "its share 0.75": {"share": 0.75},
    "the recurrent model at the end alone": {"decide": 0},
}


def emissions(bundle: Bundle, shared: Path) -> tuple[Speech, float]:
    """The network's output, all heads of it, and how many seconds of speech that is."""
    acoustic = Acoustic(bundle)
    utterances = read_manifest(shared / "speech" / "dev.jsonl", LETTERS)[::4]
    speech = [(u.text, acoustic.whole(read_16k(u.audio))) for u in tqdm(utterances, "network")]
    return speech, sum(u.seconds for u in utterances)


def in_letters(bundle: Bundle, vocabulary: Vocabulary, speech: Speech) -> tuple[Vocabulary, Speech]:
    """The same words, spelled as they are written, and the letters of the network for them."""
    where, tokens = bundle.head("letters")
    space = tokens.index(" ")
    kept = [token for token in tokens if token != " "]
    speller = Speller(lambda word: [], kept, None)
    heard = []
    for text, rows in speech:
        own = rows[:, where].copy()
        own[:, 0] = np.logaddexp(own[:, 0], own[:, space])
        heard.append((text, np.delete(own, space, axis=1)))
    config = replace(vocabulary.config, token_penalties=())  # they are the phones'
    return replace(vocabulary, spellings=speller.spell_all(vocabulary.lm.words), speller=speller, config=config), heard


def row(name: str, search: BeamSearch, speech: Speech, seconds: float) -> str:
    """One line of the table."""
    words, started = ErrorCount(), time.process_time()
    for text, log_probs in speech:
        words.add(text.split(), search.final(decoded(search, log_probs)).text.split())
    factor = (time.process_time() - started) / seconds
    return f"| {name} | {100 * words.rate:.1f} | {factor:.4f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    options = measuring(__doc__).parse_args(arguments)
    bundle = read_bundle(options.bundle)
    speech, seconds = emissions(bundle, options.shared)
    vocabulary = open_words(bundle)
    letters, spelled = in_letters(bundle, vocabulary, speech)
    where, _ = bundle.head(word_search(bundle).head)
    speech = [(text, rows[:, where]) for text, rows in speech]
    lines = ["| search | WER % | real-time factor of the search |", "|---|---|---|"]
    rescorer = open_rescorer(bundle, vocabulary)
    for name, changes in tqdm(SETTINGS.items(), "settings"):
        config = replace(vocabulary.config, **changes)
        lines.append(row(name, BeamSearch(replace(vocabulary, config=config), rescorer), speech, seconds))
    if rescorer:
        for name, changes in tqdm(RESCORINGS.items(), "recurrent model"):
            other = replace(rescorer, config=replace(rescorer.config, **changes))
            lines.append(row(name, BeamSearch(vocabulary, other), speech, seconds))
        lines.append(row("without the recurrent model", BeamSearch(vocabulary), speech, seconds))
    for weight in (0.5, 0.9, 1.3):  # its own best weight may be another
        config = replace(letters.config, lm_weight=weight)
        search = BeamSearch(replace(letters, config=config))
        lines.append(row(f"letters, language model weighed {weight}", search, spelled, seconds))
    text = "\n".join([*lines, "", f"{len(speech)} utterances, {seconds / 3600:.2f} h, one core."])
    print(text)
    if options.write:
        write_section(Path(__file__).parent / "RESULTS.md", "search", text)


if __name__ == "__main__":
    run(main)
