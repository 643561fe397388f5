"""Batches of augmented audio with their targets, the same for the same seed however training is cut."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from streamasr.errors import ManifestError
from streamasr.manifest import Utterance
from streamasr.training import augment
from streamasr.training.augment import AugmentConfig, Samples
from streamasr.training.lexicon import pronounce

RATE = 16000


class AudioCache:
    """All recordings decoded once into one file of int16 at 16 kHz, read through a memory map."""

    def __init__(self, paths: Sequence[Path], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256("\n".join(map(_as_it_is, paths)).encode()).hexdigest()[:16]
        pcm, index = folder / f"{key}.i16", folder / f"{key}.json"
        if not index.exists():
            self._decode(paths, pcm, index)
        self.file = pcm
        self.ends = np.array([0, *json.loads(index.read_text())], dtype=np.int64)
        self.pcm = self._map()

    def _map(self) -> NDArray[np.int16]:
        empty = self.ends[-1] == 0  # no recordings: nothing that could be mapped
        return np.zeros(0, np.int16) if empty else np.memmap(self.file, dtype=np.int16, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "ends": self.ends}  # another process maps the file for itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.file, self.ends = state["file"], state["ends"]
        self.pcm = self._map()

    @staticmethod
    def _decode(paths: Sequence[Path], pcm: Path, index: Path) -> None:
        ends, end = [], 0
        partial = pcm.with_suffix(f".{socket.gethostname()}-{os.getpid()}")
        try:
            with partial.open("wb") as file:
                for path in paths:
                    try:
                        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
                    except soundfile.LibsndfileError as error:
                        raise ManifestError(f"{path}: cannot be read as audio: {error.error_string}") from error
                    mono = audio.mean(axis=1)
                    if rate != RATE:
                        mono = soxr.resample(mono, rate, RATE)
                    samples = np.clip(np.rint(mono * 32768.0), -32768, 32767).astype(np.int16)
                    samples.tofile(file)
                    end += len(samples)
                    ends.append(end)
            partial.rename(pcm)
            partial.write_text(json.dumps(ends))  # moved there whole: another process may be waiting to read it
            partial.rename(index)
        finally:
            partial.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> Samples:
        return self.pcm[self.ends[i] : self.ends[i + 1]].astype(np.float32) / np.float32(32768.0)

    def seconds(self, i: int) -> float:
        """Length of recording i."""
        return float(self.ends[i + 1] - self.ends[i]) / RATE


def _as_it_is(path: Path) -> str:
    """Names a recording as it is now: it may be made again under its old name."""
    try:
        found = path.stat()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read as audio: {error.strerror}") from error
    return f"{path} {found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True)
class BatchConfig:
    """How utterances are laid together."""

    batch_s: float = 120.0  # seconds of audio in a batch, padding counted
    glue_probability: float = 0.5  # that an utterance is spoken on after another one
    glue_s: float = 15.0  # glued items stay below this length
    noise_only: float = 0.02  # share of items that are noise and have no words


@dataclass(frozen=True)
class Item:
    """Utterances that are spoken one after the other; none means noise without words."""

    utterances: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Batch:
    """audio (N, samples), zero padded; lengths in samples; per head its targets, None where unknown."""

    audio: Tensor
    lengths: Tensor
    targets: dict[str, list[Tensor | None]]


def plan_epoch(seconds: Sequence[float], config: BatchConfig, rng: np.random.Generator) -> list[list[Item]]:
    """One pass over all utterances: glued at random, grouped by length, pairs of batches in random order."""
    items: list[Item] = []
    for i in rng.permutation(len(seconds)):
        last = items[-1] if items else Item((), math.inf)
        if rng.random() < config.glue_probability and last.seconds + seconds[i] <= config.glue_s:
            items[-1] = Item((*last.utterances, int(i)), last.seconds + seconds[i])
        else:
            items.append(Item((int(i),), seconds[i]))
    items += [Item((), float(rng.uniform(2.0, 10.0))) for _ in range(round(config.noise_only * len(items)))]
    items.sort(key=lambda item: item.seconds * rng.uniform(0.95, 1.05))
    batches: list[list[Item]] = [[]]
    for item in items:  # ascending, so the newest item is about the longest
        if batches[-1] and item.seconds * (len(batches[-1]) + 1) > config.batch_s:
            batches.append([])
        batches[-1].append(item)
    # Two processes that take neighbours wait little for one another: those are about as long.
    pairs = rng.permutation((len(batches) + 1) // 2)
    return [batch for i in pairs for batch in batches[2 * i : 2 * i + 2]]


class BatchDataset(Dataset[Batch]):
    """Batch number i of one epoch for one of `world` processes."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        cache: AudioCache,
        noise: AudioCache,
        heads: dict[str, list[str]],
        lexicon: dict[str, list[list[str]]],
        batch: BatchConfig,
        augmentation: AugmentConfig,
        seed: tuple[int, ...],
        rooms: AudioCache | None = None,  # impulse responses
    ) -> None:
        self.cache = cache
        self.noise = noise
        self.rooms = rooms
        self.augmentation = augmentation
        self.seed = seed
        self.targets = [encode_text(utterance.text, heads, lexicon) for utterance in utterances]
        self.space = {name: tokens.index(" ") for name, tokens in heads.items() if " " in tokens}
        lengths = [cache.seconds(i) for i in range(len(utterances))]  # the cache may hold others behind them
        self.batches = plan_epoch(lengths, batch, np.random.default_rng(seed))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng((*self.seed, number))
        audio = [torch.from_numpy(self._audio(item, rng)) for item in self.batches[number]]
        return Batch(
            audio=torch.nn.utils.rnn.pad_sequence(audio, batch_first=True),
            lengths=torch.tensor([len(samples) for samples in audio]),
            targets={head: [self._target(item, head) for item in self.batches[number]] for head in self.targets[0]},
        )

    def _audio(self, item: Item, rng: np.random.Generator) -> Samples:
        config = self.augmentation
        parts = [augment.quiet(config, rng)]
        for i in item.utterances:
            parts += [augment.change_speed(self.cache[i], config, rng), augment.quiet(config, rng)]
        if not item.utterances:
            parts.append(np.zeros(int(item.seconds * RATE), dtype=np.float32))
        audio = np.concatenate(parts)
        if self.rooms and item.utterances and config.room_probability and rng.random() < config.room_probability:
            audio = augment.reverberate(audio, self.rooms[int(rng.integers(len(self.rooms)))])
        if not item.utterances or rng.random() < config.noise_probability:
            noise = self.noise[int(rng.integers(len(self.noise)))] if len(self.noise) else np.zeros(1, dtype=np.float32)
            if not item.utterances:  # a level to set the noise against: a moderate speaker's
                audio = audio + rng.standard_normal(len(audio), dtype=np.float32) * np.float32(1e-4)
                audio = audio + np.resize(noise, len(audio)) * np.float32(10.0 ** rng.uniform(-2.0, 0.0))
            else:
                audio = augment.add_noise(audio, noise, config, rng)
        return augment.change_gain(audio, config, rng)

    def _target(self, item: Item, head: str) -> Tensor | None:
        target: list[int] = []
        for i in item.utterances:
            own = self.targets[i][head]
            if own is None:
                return None
            target += [self.space[head], *own] if target and head in self.space else own
        return torch.tensor(target, dtype=torch.long)


def encode_text(
    text: str, heads: dict[str, list[str]], lexicon: dict[str, list[list[str]]]
) -> dict[str, list[int] | None]:
    """Token numbers of a text for each head: letters for heads that have a space, else phones.

    Where tokens are several letters (word pieces), the longest that fits comes first.
    """
    result: dict[str, list[int] | None] = {}
    for head, tokens in heads.items():
        number = {token: i for i, token in enumerate(tokens)}
        longest_first = "|".join(re.escape(token) for token in sorted(tokens[1:], key=len, reverse=True))
        spelled = re.findall(f"{longest_first}|.", text) if " " in number else pronounce(text, lexicon)
        result[head] = None if spelled is None else [number[token] for token in spelled]
    return result
