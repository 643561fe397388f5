"""Make the toy bundle: python -m tests.toy

A random network, small enough to be committed, with every part of a real one: tests of the run time use
it where no torch is there to make another. It understands nothing; its words are noise. Its features are
not the usual ones, so that nothing gets used to those.
"""

from __future__ import annotations

import random
import string
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.onnx import make_bundle
from export.words import add_words
from recipes.g2p.train import Shape, train
from streamasr.bundle import BeamConfig, FeatureConfig
from streamasr.decoding.arpa import read_arpa, write_ngram
from streamasr.decoding.spellings import Spellings
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig
from streamasr.training.lexicon import PHONES
from tests.lm import made_up_arpa

FOLDER = Path(__file__).parent / "data" / "toy"
HEADS = {"letters": ["<blank>", " ", "'", *string.ascii_lowercase], "phones": ["<blank>", *PHONES]}
FEATURES = FeatureConfig(n_fft=400, mels=40)  # the DFT is most of the bundle


def toy_model(**changes: Any) -> AcousticModel:
    """The same weights every time, set so that every part of it moves the output, and words and blanks come out."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(6)
        model = AcousticModel(
            ModelConfig(HEADS, FEATURES, **{"conv_channels": 16, "width": 24, "lookahead": [1, 1], **changes})
        )
        for name, weight in model.named_parameters():
            if "ahead" in name:  # fresh ones do not look ahead yet
                weight.normal_()
        normalise = model.get_submodule("front.stages.normalise")
        normalise.get_buffer("mean").fill_(-7.0)
        normalise.get_buffer("scale").fill_(0.3)
        letters = model.get_submodule("body.stages.heads.linear.letters")
        assert isinstance(letters, nn.Linear)
        letters.weight *= 3.0
        letters.bias[0] += 2.5
        letters.bias[1] += 1.5
        phones = model.get_submodule("body.stages.heads.linear.phones")
        assert isinstance(phones, nn.Linear)
        phones.weight *= 4.0
        phones.bias[0] += 5.5
    return model.eval()


def toy_words(folder: Path) -> None:
    """Words of one to three phones each, any of which may follow any other."""
    rng = random.Random(1)
    spelled = {f"{a}{b}": rng.sample(PHONES, rng.randint(1, 3)) for a in "bdfg" for b in "aeiou"}
    arpa = made_up_arpa(1, folder / "toy.arpa", (60, 80), tuple(spelled))
    model = write_ngram(read_arpa(arpa), folder / "toy.lm")
    ways = [(bytes(HEADS["phones"].index(p) for p in spelled[w]), i) for i, w in enumerate(model.words) if w in spelled]
    Spellings.of([way for way, _ in ways], [i for _, i in ways]).save(folder / "toy.lex")
    train({word: [phones] for word, phones in spelled.items()}, [Shape(2, 0.0)])[0].save(folder / "toy.g2p")
    files = (folder / "toy.lm", folder / "toy.lex", folder / "toy.g2p")
    add_words(FOLDER, "phones", files, BeamConfig(hypotheses=20, lm_weight=0.5, word_bonus=1.0))


if __name__ == "__main__":
    bundle = make_bundle(toy_model(), FOLDER, "toy", ())
    with tempfile.TemporaryDirectory() as folder:
        toy_words(Path(folder))
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{FOLDER}: {size / 1000:.0f} kB, differs from torch by {bundle.graphs['fp32'].parity:.1e} at most")
