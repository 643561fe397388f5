"""What the recipe learns from, and what it keeps back."""

from __future__ import annotations

import string
from pathlib import Path

from streamasr.training.lexicon import PHONES, read_lexicon
from streamasr.training.loop import Corpus
from streamasr.training.manifest import read_manifest

LETTERS = [" ", "'", *string.ascii_lowercase]
HEADS = {"letters": ["<blank>", *LETTERS], "phones": ["<blank>", *PHONES]}


def noise_files(shared: Path, held_out: bool) -> list[Path]:
    """Every other noise recording is for training; the rest measures what silence and noise give."""
    files = sorted(path for path in (shared / "noise").rglob("*.opus"))
    return files[1::2] if held_out else files[::2]


def corpus(shared: Path, cache: Path) -> Corpus:
    """../shared as the recipe uses it."""
    return Corpus(
        train=read_manifest(shared / "speech" / "train.jsonl", LETTERS),
        dev=read_manifest(shared / "speech" / "dev.jsonl", LETTERS),
        noise=noise_files(shared, held_out=False),
        lexicon=read_lexicon(shared / "lexicon" / "cmudict.dict"),
        cache=cache,
    )
