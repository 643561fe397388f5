"""Speech for tests of training: a tone a letter, and what trains on it."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from streamasr.manifest import read_manifest
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.augment import AugmentConfig
from streamasr.training.config import TrainConfig
from streamasr.training.loop import Corpus, Objective

RATE = 16000
LETTERS = [" ", "'", *string.ascii_lowercase]
TONES = {"a": 400.0, "b": 900.0, "c": 1900.0}
LEXICON = {"ab": [["AA", "B"]], "ba": [["B", "AA"]]}
HEADS = {"letters": ["<blank>", *LETTERS], "phones": ["<blank>", "AA", "B"]}


def tones(text: str) -> Any:
    """A tone a letter, with pauses, over faint hiss."""
    t = np.arange(int(0.16 * RATE)) / RATE
    pause = np.zeros(int(0.08 * RATE))
    parts = [pause]
    for letter in text:
        parts += [0.3 * np.sin(2 * np.pi * TONES[letter] * t) if letter in TONES else pause, pause]
    audio = np.concatenate(parts)
    return (audio + 0.003 * np.random.default_rng(len(text)).standard_normal(len(audio))).astype(np.float32)


def write_corpus(folder: Path, texts: list[str], name: str = "train") -> Path:
    """Recordings and a manifest of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, text in enumerate(texts):
        audio = tones(text)
        soundfile.write(folder / f"{name}-{i}.wav", audio, RATE)
        record = {"audio": f"{name}-{i}.wav", "text": text, "speaker": "tone", "seconds": len(audio) / RATE}
        lines.append(json.dumps(record))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.jsonl"


def corpus(folder: Path, texts: list[str]) -> Corpus:
    train = read_manifest(write_corpus(folder, texts), LETTERS)
    return Corpus(train=train, dev=train[:2], noise=[], lexicon=LEXICON, cache=folder / "cache")


PLAIN = AugmentConfig(speed=0.0, gain_db=(0.0, 0.0), noise_probability=0.0, edge_s=0.0, frequency_masks=0, time_masks=0)


def objective(model: AcousticModel, **changes: Any) -> Objective:
    return Objective(model, TrainConfig(**{"augment": PLAIN, **changes}))
