"""How the recurrent language model is trained: its words, tokens and batches, and the sum of its softmax."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from streamasr.decoding.ngram import Ngram
from tests.test_recurrent import word_model
from tests.test_stream import TOY

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")


def test_the_words_of_another_vocabulary_are_numbered_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recipes.lm import train
    from recipes.lm.text import Vocabulary

    monkeypatch.setattr(train, "read_lines", lambda path: ["b a", "c"])
    for words, numbers in ((("<unk>", "a", "b"), [4, 2, 1, 3, 4, 0, 3]), (("<unk>", "b", "c"), [4, 1, 0, 3, 4, 2, 3])):
        assert [s.tolist() for s in train.read_streams(tmp_path, tmp_path, Vocabulary(words))] == [numbers] * 2


def test_there_may_be_nothing_to_measure_perplexity_on() -> None:
    from recipes.lm.measure import shown

    lm = Ngram.open(TOY / "words.lm")
    assert shown(lm, []) == "-"
    assert float(shown(lm, [["a"]])) > 1.0


def test_rare_words_share_tokens_by_their_endings() -> None:
    from recipes.lm.text import Vocabulary
    from recipes.lm.tokens import tokenise

    rare = [f"{a}{b}{c}ing" for a in "bcd" for b in "aeiou" for c in "lmnprst"]
    vocabulary = Vocabulary(("<unk>", *sorted([*rare, "a", "of"])))
    counts = np.ones(len(vocabulary.words) + 2)
    for word in ("a", "of"):
        counts[vocabulary.words.index(word)] = 100.0
    made = tokenise(vocabulary, counts, 2)
    tokens = made.token[[vocabulary.words.index(word) for word in rare]]
    assert made.size == 6  # <unk>, <s>, </s>, two words, one ending
    assert len(set(tokens.tolist())) == 1
    for token in range(made.size):
        shares = made.share[: vocabulary.start][made.token[: vocabulary.start] == token]
        assert not len(shares) or np.exp(shares).sum() == pytest.approx(1.0, abs=1e-5)


def test_batches_hold_every_word_once() -> None:
    from recipes.lm.tokens import batches

    rng = np.random.default_rng(0)
    sentences = [rng.integers(1, 9, length) for length in rng.integers(2, 30, 200)]
    read: list[tuple[int, ...]] = []
    for x, target in batches(sentences, 100, rng):
        assert x.shape == target.shape
        for row, following in zip(x, target, strict=True):
            there = following >= 0
            read.append((*row[there][:1].tolist(), *following[there].tolist()))
            np.testing.assert_array_equal(row[there][1:], following[there][:-1])
    assert sorted(read) == sorted(tuple(sentence.tolist()) for sentence in sentences)


def test_the_sampled_softmax_is_nearly_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from recipes.lm import train

    monkeypatch.setattr(train, "EXACT", 50)
    monkeypatch.setattr(train, "SAMPLED", 400)
    model = word_model(3000)
    frequency = 1.0 / np.arange(1.0, model.config.tokens + 1)
    sampler = train.Sampler(frequency / frequency.sum())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        y, target = 0.5 * torch.randn(64, 64), torch.randint(0, model.config.tokens, (64,))
        logits = y @ model.embedding.weight.T + model.bias
        exact = float(torch.nn.functional.cross_entropy(logits, target))
        sampled = [float(sampler.loss(model, y, target)) for _ in range(30)]
    assert np.mean(sampled) == pytest.approx(exact, rel=0.01)


def test_the_beginning_of_a_sentence_is_never_foretold(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read more than any other token, and nothing that is summed over keeps its own probability small."""
    from export.recurrent import load_word_model, write_recurrent
    from recipes.lm import train
    from recipes.lm.text import Vocabulary

    monkeypatch.setattr(train, "EXACT", 5)
    monkeypatch.setattr(train, "SAMPLED", 5)
    vocabulary = Vocabulary(("<unk>", *sorted({"the", "of", *(f"{a}{b}" for a in "bcdfg" for b in "aeiou")})))
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(vocabulary.words[1:], rng.integers(1, 12))) for _ in range(2000)]
    streams = [vocabulary.encode(lines), vocabulary.encode(lines[::-1])]
    options = {"init": None, "bfloat16": False, "frequent": 20, "embedding": 8, "width": 16}
    arguments = argparse.Namespace(work=tmp_path, minutes=0.03, shared=shared, **options)
    trainer = train.Trainer(arguments, vocabulary, streams)
    trainer.run()
    assert trainer.step > 5
    made = load_word_model(tmp_path / "last.pt", vocabulary.words)
    write_recurrent(made, vocabulary.words, tmp_path / "a.rnn")
    start = int(made.token[vocabulary.start])
    with torch.no_grad():
        log_probs, _ = made.step(made.token[torch.tensor([[vocabulary.start, 3, 4]])], made.zero_state(1))
    assert float(log_probs[..., start].max()) < -1000.0
    options["init"] = tmp_path / "a.rnn"
    folder = tmp_path / "further"
    folder.mkdir()
    further = train.Trainer(argparse.Namespace(work=folder, minutes=0.0, shared=shared, **options), vocabulary, streams)
    assert torch.equal(further.model.embedding.weight, made.embedding.weight)
