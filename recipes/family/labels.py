"""A start from frame labels: PocketSphinx says which phone each frame is of, and the network learns that first.

Cross-entropy in the head of phones, its blank standing for silence; CTC goes on from there (Sak et al. 2015, "Fast and
Accurate Recurrent Neural Network Acoustic Models for Speech Recognition").
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pocketsphinx import Decoder
from tqdm import tqdm

from recipes.mini.align import decode
from streamasr.manifest import Utterance
from streamasr.training.data import RATE, AudioCache
from streamasr.training.loop import Trainer
from streamasr.training.optimiser import descend, flushed_denormals, learning_rate, make_optimisers

HEAD, SILENCE = "phones", 0
LABEL = RATE // 100  # samples that a label of PocketSphinx's is for
UNKNOWN = -100  # no label: does not count in cross-entropy

Labels = NDArray[np.int64]


def align(utterance: Utterance, pcm: NDArray[np.int16], tokens: Sequence[str], decoder: Decoder) -> Labels | None:
    """The token that each 10 ms are of, or None where PocketSphinx cannot align the text."""
    if any(decoder.lookup_word(word) is None for word in utterance.text.split()):
        return None
    audio = pcm.tobytes()
    try:
        decoder.set_align_text(utterance.text)
        decode(decoder, audio)
        decoder.set_alignment()  # of the words that it has just found, phone by phone
        decode(decoder, audio)
        phones = [phone for word in decoder.get_alignment() for phone in word]
    except RuntimeError:  # its word for a path that it lost
        return None
    labels = np.full(len(pcm) // LABEL, SILENCE, dtype=np.int64)
    for phone in phones:
        if phone.name in tokens:
            labels[phone.start : phone.start + phone.duration] = tokens.index(phone.name)
    return labels


def align_all(utterances: Sequence[Utterance], cache: AudioCache, tokens: Sequence[str], path: Path) -> list[Labels]:
    """Of each utterance, empty where there are none; kept in a file, since it takes a while."""
    if not path.exists():
        decoder, found = Decoder(lm=None, loglevel="FATAL"), []
        for i, utterance in enumerate(tqdm(utterances, desc="frame labels")):
            labels = align(utterance, cache.pcm[cache.ends[i] : cache.ends[i + 1]], tokens, decoder)
            found.append(np.zeros(0, np.int64) if labels is None else labels)
        np.savez(path, *found)
    with np.load(path) as stored:
        return [stored[f"arr_{i}"] for i in range(len(stored.files))]


@flushed_denormals()
def learn_labels(trainer: Trainer, hours: float) -> None:
    """So many hours of audio, as they were recorded, before a run begins."""
    model, config = trainer.model, trainer.config
    labels = align_all(trainer.corpus.train, trainer.cache, model.config.heads[HEAD], trainer.folder / "labels.npz")
    known = [i for i, own in enumerate(labels) if len(own)]
    print(f"{len(known)} of {len(labels)} utterances have frame labels", flush=True)
    optimisers, order = make_optimisers(model, config.optimiser), random.Random(config.seed)
    model.train()
    audio_s, step, waiting = 0.0, 0, list[int]()
    bar = tqdm(unit=" steps", desc="frame labels")
    while audio_s < 3600.0 * hours:
        if not waiting:
            waiting = sorted(order.sample(known, len(known)), key=trainer.cache.seconds)
        first = order.randrange(len(waiting))
        rows = [waiting.pop(first)]
        while first < len(waiting) and (len(rows) + 1) * trainer.cache.seconds(waiting[first]) < config.batch.batch_s:
            rows.append(waiting.pop(first))
        audio = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(trainer.cache[i]) for i in rows], batch_first=True)
        log_probs = model.split_heads(model(audio))[HEAD]
        wanted = torch.full(log_probs.shape[:2], UNKNOWN)
        for row, i in zip(wanted, rows, strict=True):
            middle = torch.from_numpy(labels[i][model.stride // LABEL // 2 :: model.stride // LABEL])
            row[: len(middle)] = middle[: len(row)]
        loss = torch.nn.functional.nll_loss(log_probs.flatten(0, 1), wanted.flatten(), ignore_index=UNKNOWN)
        rate = learning_rate(config, step, 0.0)
        descend(model, optimisers, loss, rate, config.optimiser)
        audio_s += sum(map(trainer.cache.seconds, rows))
        step += 1
        bar.update()
        bar.set_postfix_str(f"loss {float(loss.detach()):.3f}")
    bar.close()
