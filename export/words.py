"""Give a bundle words to choose from: a language model, their spellings, and spellings for other words.

python -m export.words BUNDLE RNN gives one that has words a recurrent language model too (from export.recurrent).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from export.program import run
from streamasr.bundle import (
    BeamConfig,
    Bundle,
    Rescoring,
    Tuning,
    WordSearch,
    file_sha256,
    read_bundle,
    write_bundle,
    write_whole,
)
from streamasr.decoding.recurrent import Recurrent, read_states
from streamasr.errors import StreamasrError
from streamasr.words import open_words

NAMES = ("words.lm", "words.lex", "words.g2p")
RECURRENT = "words.rnn"
# What a recurrent model is to choose from must have lived until then: more hypotheses, and of those that are the
# same to the n-gram model more than one. Chosen on dev (recipes/lm/RESULTS.md).
WIDER = {"hypotheses": 450, "histories": 3}


def add_words(folder: Path, head: str, files: tuple[Path, Path, Path], beam: BeamConfig) -> None:
    """Copy a language model, a lexicon and a pronouncer into the bundle and make the beam search its default."""
    for source, name in zip(files, NAMES, strict=True):
        write_whole(folder / name, source.read_bytes())
    bundle = read_bundle(folder)
    search = WordSearch(head, *NAMES, sha256={name: file_sha256(folder / name) for name in NAMES}, beam=beam)
    tuning = {"greedy": bundle.tuning["greedy"], "beam": bundle.tuning.get("beam", Tuning())}
    write_bundle(replace(bundle, search=search, tuning=tuning))


def add_recurrent(folder: Path, graph: Path, config: Rescoring | None = None) -> Bundle:
    """Copy a recurrent language model into a bundle that has words, and widen its search.

    config: how it is weighed; None: by default.
    """
    bundle = read_bundle(folder)
    if bundle.search is None:
        raise StreamasrError(f"{folder}: has no words that a recurrent language model could read")
    states = read_states(graph)
    Recurrent(graph, states, open_words(bundle).lm.words)  # refuses other words
    rescoring = replace(config, file=RECURRENT, states=states) if config else Rescoring(RECURRENT, states)
    sha256 = {name: bundle.search.sha256[name] for name in bundle.search.files[:3]} | {RECURRENT: file_sha256(graph)}
    beam = replace(bundle.search.beam, **WIDER)
    search = replace(bundle.search, beam=beam, rescoring=rescoring, sha256=sha256)
    write_whole(folder / RECURRENT, graph.read_bytes())
    made = replace(bundle, search=search)
    write_bundle(made)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m export.words", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("recurrent", type=Path, metavar="RNN")
    arguments = parser.parse_args()
    add_recurrent(arguments.bundle, arguments.recurrent)
    print(f"{arguments.bundle}: {(arguments.bundle / RECURRENT).stat().st_size / 1e6:.2f} MB of recurrent model added")


if __name__ == "__main__":
    run(main, "export")
