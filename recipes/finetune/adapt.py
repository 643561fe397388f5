"""Learning from minutes of speech: every epoch is judged by speech kept back, and the best one stays."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace

import torch

from streamasr.bundle import Bundle
from streamasr.manifest import Utterance
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.augment import AugmentConfig
from streamasr.training.config import TrainConfig
from streamasr.training.data import AudioCache, BatchConfig, BatchDataset
from streamasr.training.loop import Corpus, Lexicon
from streamasr.training.objective import Objective
from streamasr.training.optimiser import descend, flushed_denormals, learning_rate, make_optimisers
from streamasr.words import open_words

AS_RECORDED = AugmentConfig(
    speed=0.0, gain_db=(0.0, 0.0), noise_probability=0.0, edge_s=0.0, frequency_masks=0, time_masks=0
)
ONE_BY_ONE = BatchConfig(glue_probability=0.0, noise_only=0.0)


@flushed_denormals()
def adapt(model: AcousticModel, corpus: Corpus, config: TrainConfig, patience: int) -> list[float]:
    """Train until `patience` epochs in a row were no better on corpus.dev; the model keeps its best weights.

    Returns the loss on corpus.dev before the first epoch and after each. Best may be where it
    began: then the recordings taught it nothing that others of their kind bear out.
    """
    heads = model.config.heads
    config = replace(config, head_weights={h: weight for h, weight in config.head_weights.items() if h in heads})
    objective, optimisers = Objective(model, config), make_optimisers(model, config.optimiser)
    cache, noise = AudioCache([u.audio for u in corpus.train], corpus.cache), AudioCache(corpus.noise, corpus.cache)
    held_out = _held_out(model, corpus)
    losses = [_loss(model, config, held_out)]
    best, step = copy.deepcopy(model.state_dict()), 0
    print(f"before: loss {losses[0]:.3f} on what was kept back", flush=True)
    for epoch in range(math.ceil(config.epochs)):
        batches = BatchDataset(
            corpus.train, cache, noise, heads, corpus.lexicon, config.batch, config.augment, (config.seed, epoch)
        )
        model.train()
        for number in range(len(batches)):
            torch.manual_seed(hash((config.seed, step)) % 2**63)
            rate = learning_rate(config, step, (epoch + number / len(batches)) / config.epochs)
            descend(model, optimisers, objective(batches[number], torch.default_generator), rate, config.optimiser)
            step += 1
        losses.append(_loss(model, config, held_out))
        better = losses[-1] < min(losses[:-1])
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}{', the best' if better else ''}", flush=True)
        if better:
            best = copy.deepcopy(model.state_dict())
        elif min(losses) not in losses[-patience:]:
            break
    model.load_state_dict(best)
    model.eval()
    print(f"kept: {'the start' if (n := losses.index(min(losses))) == 0 else f'epoch {n}'}", flush=True)
    return losses


def _held_out(model: AcousticModel, corpus: Corpus) -> BatchDataset:
    cache, noise = AudioCache([u.audio for u in corpus.dev], corpus.cache), AudioCache([], corpus.cache)
    return BatchDataset(corpus.dev, cache, noise, model.config.heads, corpus.lexicon, ONE_BY_ONE, AS_RECORDED, (0,))


def _loss(model: AcousticModel, config: TrainConfig, held_out: BatchDataset) -> float:
    """The objective per token, without augmentation; batches weighed by their length."""
    objective = Objective(model.eval(), replace(config, augment=AS_RECORDED))
    total, samples = 0.0, 0
    with torch.no_grad():
        for batch in map(held_out.__getitem__, range(len(held_out))):
            count = int(batch.lengths.sum())
            total += count * float(objective(batch, torch.default_generator))
            samples += count
    return total / max(samples, 1)


def pronunciations(bundle: Bundle, utterances: Iterable[Utterance]) -> Lexicon:
    """How the bundle spells these words in phones: as its lexicon has them, others as its g2p guesses.

    Words that it cannot spell are missing; utterances with them teach the letters alone.
    """
    if bundle.search is None or bundle.search.head == "letters":
        return {}
    tokens = bundle.head(bundle.search.head)[1]
    speller = open_words(bundle).speller
    lexicon: Lexicon = {}
    for word in sorted({word for utterance in utterances for word in utterance.text.split()}):
        try:
            lexicon[word] = [[tokens[k] for k in way] for way in speller.spell(word)]
        except ValueError:
            continue
    return lexicon
