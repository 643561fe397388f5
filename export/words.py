"""Give a bundle words to choose from: a language model, their spellings, and spellings for other words."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from streamasr.bundle import BeamConfig, Tuning, WordSearch, file_sha256, read_bundle, write_bundle

NAMES = ("words.lm", "words.lex", "words.g2p")


def add_words(folder: Path, head: str, files: tuple[Path, Path, Path], beam: BeamConfig) -> None:
    """Copy a language model, a lexicon and a pronouncer into the bundle and make the beam search its default."""
    for source, name in zip(files, NAMES, strict=True):
        shutil.copyfile(source, folder / name)
    bundle = read_bundle(folder)
    search = WordSearch(head, *NAMES, sha256={name: file_sha256(folder / name) for name in NAMES}, beam=beam)
    tuning = {"greedy": bundle.tuning["greedy"], "beam": bundle.tuning.get("beam", Tuning())}
    write_bundle(replace(bundle, search=search, tuning=tuning))
