"""A layer over another member, learned by RTRL from the same speech; the member below stays as it is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from recipes.adapt.gradient import Label, Recording
from recipes.adapt.learn import take_step
from recipes.adapt.network import Adaptive
from recipes.finetune.adapt import flushed_denormals
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.checkpoint import load_checkpoint, save_checkpoint
from streamasr.training.config import TrainConfig
from streamasr.training.data import RATE, AudioCache, encode_text
from streamasr.training.loop import Corpus
from streamasr.training.optimiser import learning_rate

BATCH = 8  # recordings to a step


@flushed_denormals()
def adapt(model: AcousticModel, corpus: Corpus, config: TrainConfig, folder: Path) -> None:
    """Hear config.heard_hours of audio, in one go; last.pt and epoch-1.pt in `folder`."""
    path = folder / "last.pt"
    wanted_s = 3600.0 * config.heard_hours
    if path.exists() and load_checkpoint(path)["audio_s"] >= wanted_s:
        return
    torch.manual_seed(config.seed)
    adaptive, order = Adaptive(model), random.Random(config.seed)
    heads = adaptive.model.config.heads
    optimiser = torch.optim.Adam(adaptive.adapter.parameters(), 0.0, betas=(0.9, 0.98))
    cache = AudioCache([utterance.audio for utterance in corpus.train], corpus.cache)
    audio_s, step, losses = 0.0, 0, 0.0
    bar = tqdm(unit=" steps")
    while audio_s < wanted_s:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step, audio_s / wanted_s)
        recordings = []
        for i in order.sample(range(len(cache)), BATCH):
            pcm = cache.pcm[cache.ends[i] : cache.ends[i + 1]]
            label = Label(0, adaptive.frames(len(pcm)), encode_text(corpus.train[i].text, heads, corpus.lexicon))
            recordings.append(Recording(adaptive.hear(pcm), (label,)))
            audio_s += len(pcm) / RATE
        losses += take_step(adaptive, recordings, optimiser, config.optimiser.clip_norm, 1.0 / BATCH)
        step += 1
        bar.update()
        bar.set_postfix_str(f"mean loss {losses / step:.3f}")
    bar.close()
    network = adaptive.model
    values: dict[str, Any] = {
        "config": config.to_dict(),
        "model_config": network.config.to_dict(),
        "model": network.state_dict(),
    }
    values["audio_s"] = audio_s
    for name in ("epoch-1.pt", "last.pt"):
        save_checkpoint(folder / name, values)
