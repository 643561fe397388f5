"""The recurrent language model: its graph against torch, shared beginnings, and the last word it has on utterances."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamasr
from streamasr.bundle import BeamConfig, Rescoring, read_bundle, write_bundle
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.hypothesis import decoded
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.recurrent import Recurrent, read_states
from streamasr.decoding.rescore import Ending, Rescorer, mixture
from streamasr.decoding.vocabulary import LanguageModel
from streamasr.errors import BundleError, StreamasrError
from streamasr.events import Final
from streamasr.words import open_rescorer, open_words
from tests.law import check_law
from tests.test_beam import WORDS, decode, emissions, search
from tests.test_stream import TOY, events_of, noise, subject

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")


def word_model(words: int, cell: str = "gru") -> Any:
    """Random, and strong enough to change its mind with every word."""
    from streamasr.nn.word_model import WordModel, WordModelConfig

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        tokens = words // 2 + 2
        model = WordModel(WordModelConfig(words + 2, tokens, embedding=64, width=40, cell=cell))
        for weight in model.parameters():
            weight.normal_(std=0.4)
        model.token.copy_(torch.arange(words + 2) % tokens)
        share = torch.rand(words + 2)
        share[-1] = 0.0  # nothing is followed by <s>
        total = torch.zeros(tokens).index_add(0, model.token, share)
        model.share.copy_(torch.log(share / total[model.token]))
    return model.eval()


def exported(path: Path, words: tuple[str, ...], cell: str = "gru") -> Any:
    from export.recurrent import write_recurrent

    model = word_model(len(words), cell)
    write_recurrent(model, words, path)
    return model


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Recurrent:
    path = tmp_path_factory.mktemp("recurrent") / "made-up.rnn"
    exported(path, WORDS)
    return Recurrent(path, read_states(path), WORDS)


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from export.words import add_recurrent

    folder = tmp_path_factory.mktemp("toy") / "toy"
    shutil.copytree(TOY, folder)
    exported(folder.parent / "toy.rnn", Ngram.open(TOY / "words.lm").words)
    config = Rescoring("", (), hypotheses=10, share=0.9, lm_weight=2.0, word_bonus=3.0, decide=10)
    made = add_recurrent(folder, folder.parent / "toy.rnn", config)
    assert made.search is not None
    narrow = replace(made.search.beam, hypotheses=20, histories=2)  # wide enough for what the toy says
    write_bundle(replace(made, search=replace(made.search, beam=narrow)))
    return folder


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_graph_says_what_torch_says(tmp_path: Path, cell: str) -> None:
    from export.recurrent import torch_scores

    words = tuple(f"w{i}" for i in range(3000))
    model = exported(tmp_path / "x.rnn", words, cell)
    made = Recurrent(tmp_path / "x.rnn", model.state_specs(), words)
    sentences = [[5, 2999, 0, 5, 17, 1], [], [3]]
    for found, sentence in zip(made.score(sentences), sentences, strict=True):
        np.testing.assert_allclose(found, torch_scores(model, sentence), atol=1e-4)


def test_matrices_are_stored_small(tmp_path: Path) -> None:
    words = tuple(f"w{i}" for i in range(3000))
    model = exported(tmp_path / "x.rnn", words)
    weights = sum(values.numel() for values in model.parameters())
    assert (tmp_path / "x.rnn").stat().st_size < 1.2 * weights + 4 * len(words) + 20_000


def test_the_probabilities_of_all_that_may_come_are_one(made_up: Recurrent) -> None:
    every = [float(np.exp(made_up.score([[1, 3, word]])[0][2])) for word in range(len(WORDS))]
    assert min(every) > 0.0
    assert sum(every) + float(np.exp(made_up.score([[1, 3]])[0][2])) == pytest.approx(1.0, abs=1e-5)


def test_shared_beginnings_change_nothing(made_up: Recurrent) -> None:
    rng = np.random.default_rng(0)
    sentences = [rng.integers(0, 3, length).tolist() for length in rng.integers(0, 9, 50)]
    for found, sentence in zip(made_up.score(sentences), sentences, strict=True):
        np.testing.assert_allclose(found, made_up.score([sentence])[0], atol=1e-5)
        for common in range(len(sentence) + 1):
            np.testing.assert_allclose(made_up.score([sentence], common)[0], found[common:], atol=1e-5)
    assert made_up.score([]) == []


def test_what_was_read_before_changes_nothing(tmp_path: Path) -> None:
    """Not a bit: a stream that goes on from a snapshot meets a model that remembers nothing of it."""
    exported(tmp_path / "x.rnn", WORDS)
    used, fresh = (Recurrent(tmp_path / "x.rnn", read_states(tmp_path / "x.rnn"), WORDS) for _ in range(2))
    begun = [1, 3, 2, 2, 4, 1, 1, 3]
    for words in range(len(begun)):
        used.score([[*begun[:words], *more] for more in ([], [2], [2, 4], [3])], words)
    asked = [[*begun, *more] for more in ([1], [4, 4], [])]
    for one, other in zip(used.score(asked, len(begun)), fresh.score(asked, len(begun)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [len(scores) for scores in used.score(asked, len(begun))] == [2, 3, 1]


def test_a_long_text_is_read_without_recursion(made_up: Recurrent) -> None:
    assert len(made_up.score([[1, 2] * 2000])[0]) == 4001


def test_a_text_is_scored_by_the_mixture(made_up: Recurrent) -> None:
    config = BeamConfig(hypotheses=200, lm_weight=0.8, word_bonus=0.2)
    plain, rows = search(memory=12, config=config), emissions(3, 6)
    settings = Rescoring("", (), hypotheses=30, share=0.3, lm_weight=0.5, word_bonus=0.7)
    again = BeamSearch(plain.vocabulary, Rescorer(made_up, settings))
    lm = plain.vocabulary.lm
    before = dict(plain.n_best(decode(plain, rows), 30))
    found = again.n_best(decode(again, rows), 1000)
    assert len(found) == len({text for text, _ in found}) == 30
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert again.final(decode(again, rows)).text == found[0][0]
    for text, score in found:
        words = [lm.number(word) for word in text.split()]
        state, ngram = np.array([lm.start]), []
        for word in words:
            one, state = lm.score(state, np.array([word], dtype=np.int32))
            ngram.append(float(one[0]))
        own = np.array([*ngram, float(lm.end(state)[0])])
        mixed = mixture(own, made_up.score([words])[0].astype(np.float64), 0.3)
        expected = before[text] + 0.5 * mixed.sum() - 0.8 * own.sum() + (0.7 - 0.2) * len(words)
        assert score == pytest.approx(expected, abs=1e-5)


def test_hotwords_that_nobody_knows_keep_their_bonus(made_up: Recurrent) -> None:
    settings = Rescoring("", (), share=0.5, lm_weight=0.3, word_bonus=0.0)
    plain = search(config=BeamConfig(lm_weight=0.3, word_bonus=0.0))
    hot = BeamSearch(plain.vocabulary, Rescorer(made_up, settings)).with_phrases({"bcb ab": 9.0})
    rows = np.full((11, 4), -7.0, dtype=np.float32)
    for frame, token in enumerate("-b-c-ba-b--"):
        rows[frame, "-abc".index(token)] = -0.003
    assert hot.final(decode(hot, rows)).text == "bcb ab"


@pytest.mark.parametrize("decide", [0, 1, 7])
def test_what_is_called_stable_is_not_taken_back(made_up: Recurrent, decide: int) -> None:
    settings = Rescoring("", (), share=0.9, lm_weight=3.0, decide=decide)
    plain = search(memory=2, config=BeamConfig(hypotheses=15, width=10.0, histories=2))
    decoder = BeamSearch(plain.vocabulary, Rescorer(made_up, settings))
    for seed in range(10):
        state, stable = decoder.start(), []
        for row in emissions(seed, 40):
            state = decoder.step(row, state)
            found = decoder.hypothesis(state)
            assert found.text.split()[: len(stable)] == stable
            stable = found.text.split()[: found.stable]
            assert decoder.final(state).text.split()[: len(stable)] == stable


def test_words_become_certain_while_somebody_speaks(made_up: Recurrent) -> None:
    waited = {}
    for decide in (0, 5):
        settings = Rescoring("", (), share=0.9, lm_weight=3.0, decide=decide)
        plain = search(memory=1, config=BeamConfig(hypotheses=100, width=30.0, histories=10))
        decoder = BeamSearch(plain.vocabulary, Rescorer(made_up, settings))
        state, waited[decide] = decoder.start(), 0
        for row in emissions(1, 40):
            state = decoder.step(row, state)
            found = decoder.hypothesis(state)
            old = sum(word.last_frame < state.frame - 10 for word in found.words)
            waited[decide] += old > found.stable
    assert 5 * waited[5] < waited[0], "a word that another text lacks may still wait for the next decision"


def test_texts_far_behind_are_not_asked_about(made_up: Recurrent) -> None:
    behind: list[float] = []

    class Asked(Rescorer):
        def order(self, endings: Sequence[Ending], lm: LanguageModel, beam: BeamConfig) -> list[tuple[int, float]]:
            behind.extend(endings[0].log_prob - ending.log_prob for ending in endings)
            return super().order(endings, lm, beam)

    plain = search(memory=1, config=BeamConfig(hypotheses=100, width=30.0, histories=10))
    for margin, least in ((0.0, 0.0), (2.0, 1.0), (1e9, 3.0)):
        behind.clear()
        settings = Rescoring("", (), share=0.9, decide=5, margin=margin)
        decoded(BeamSearch(plain.vocabulary, Asked(made_up, settings)), emissions(1, 40))
        assert least <= max(behind, default=0.0) <= margin


def test_where_all_texts_agree_it_is_not_asked(made_up: Recurrent) -> None:
    asked: list[int] = []

    class Asked(Rescorer):
        def order(self, endings: Sequence[Ending], lm: LanguageModel, beam: BeamConfig) -> list[tuple[int, float]]:
            asked.append(len({e.words[:1] for e in endings}))
            return super().order(endings, lm, beam)

    plain = search(memory=1, config=BeamConfig(hypotheses=100, width=30.0, histories=10))
    for seed in range(5):
        settings = Rescoring("", (), share=0.9, decide=5, margin=0.0)  # the best text alone
        decoded(BeamSearch(plain.vocabulary, Asked(made_up, settings)), emissions(seed, 40))
    assert not asked


def test_a_graph_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    from export.recurrent import read_word_model, write_recurrent

    model = exported(tmp_path / "a.rnn", WORDS)
    again = read_word_model(tmp_path / "a.rnn", WORDS)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    write_recurrent(again, WORDS, tmp_path / "b.rnn")
    assert (tmp_path / "a.rnn").read_bytes() == (tmp_path / "b.rnn").read_bytes()
    with pytest.raises(BundleError, match="reads other words"):
        read_word_model(tmp_path / "a.rnn", (*WORDS[:-1], "other"))


def test_it_has_the_last_word_and_streams_keep_the_law(toy_folder: Path) -> None:
    plain, again = streamasr.load(TOY), streamasr.load(toy_folder)
    audio = noise(0, 20.0)
    before, after = ([e for e in events_of(r, audio, [4000]) if isinstance(e, Final)] for r in (plain, again))
    assert [final.text for final in after] != [final.text for final in before]
    check_law(subject(again))


def test_alternatives_are_in_its_order(toy_folder: Path) -> None:
    stream = streamasr.load(toy_folder).stream(n_best=5)
    finals = [e for e in [*stream.accept(noise(0, 20.0)), *stream.finish()] if isinstance(e, Final)]
    assert finals
    for final in finals:
        assert final.alternatives[0][0] == final.text
        scores = [score for _, score in final.alternatives]
        assert scores == sorted(scores, reverse=True)


def test_another_language_model_does_without(toy_folder: Path) -> None:
    recognizer = streamasr.load(toy_folder, lm=TOY / "words.lm")
    assert isinstance(recognizer.decoder, BeamSearch)
    assert recognizer.decoder.rescorer is None


def test_a_bundle_says_all_of_it(toy_folder: Path) -> None:
    bundle = read_bundle(toy_folder)
    assert bundle.search is not None
    assert bundle.search.rescoring is not None
    assert set(bundle.search.sha256) == {"words.lm", "words.lex", "words.g2p", "words.rnn"}
    assert open_rescorer(bundle, open_words(bundle)) is not None
    old = read_bundle(TOY)
    assert old.search is not None
    assert old.search.rescoring is None
    assert open_rescorer(old, open_words(old)) is None


def test_a_wrong_file_is_refused_in_one_line(toy_folder: Path, tmp_path: Path) -> None:
    from export.words import add_recurrent

    folder = tmp_path / "bundle"
    shutil.copytree(TOY, folder)
    exported(tmp_path / "other.rnn", WORDS)
    for path, complaint in (
        (tmp_path / "other.rnn", "reads other words"),
        (TOY / "fp32.onnx", "not the recurrent language model"),
        (TOY / "words.lm", "ONNX Runtime cannot load it"),
    ):
        with pytest.raises(BundleError, match=complaint) as caught:
            add_recurrent(folder, path)
        assert "\n" not in str(caught.value)
    assert not (folder / "words.rnn").exists()
    streamasr.load(folder)

    shutil.copytree(toy_folder, tmp_path / "damaged")
    with (tmp_path / "damaged" / "words.rnn").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"words\.rnn: checksum"):
        streamasr.load(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("key", "value"), [("share", 1.0), ("share", 0.0), ("hypotheses", 0), ("decide", -1), ("margin", -1.0)]
)
def test_weights_that_cannot_be_are_refused(toy_folder: Path, tmp_path: Path, key: str, value: float) -> None:
    shutil.copytree(toy_folder, tmp_path / "toy")
    path = tmp_path / "toy" / "bundle.json"
    values = json.loads(path.read_text())
    values["search"]["rescoring"][key] = value
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="rescoring"):
        streamasr.load(tmp_path / "toy")


def test_a_model_of_other_words_is_not_exported(tmp_path: Path) -> None:
    from export.recurrent import write_recurrent

    with pytest.raises(StreamasrError, match="3,000 words, the n-gram model 5"):
        write_recurrent(word_model(3000), WORDS, tmp_path / "x.rnn")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_other_words_is_refused(tmp_path: Path) -> None:
    """Also where there are as many of them."""
    from export.recurrent import load_word_model
    from streamasr.decoding.recurrent import fingerprint
    from streamasr.training.checkpoint import save_checkpoint

    model = word_model(len(WORDS))
    values = {"model": model.state_dict(), "model_config": model.config.to_dict(), "vocabulary": fingerprint(WORDS)}
    save_checkpoint(tmp_path / "last.pt", values)
    assert load_word_model(tmp_path / "last.pt", WORDS).config == model.config
    with pytest.raises(StreamasrError, match=r"last\.pt: learned other words"):
        load_word_model(tmp_path / "last.pt", (*WORDS[:-1], "other"))


def test_the_rescorer_is_kept_when_hotwords_come(made_up: Recurrent) -> None:
    decoder = BeamSearch(search().vocabulary, Rescorer(made_up, Rescoring("", ())))
    assert decoder.with_phrases({"b": 1.0}).rescorer is decoder.rescorer
    narrow = Rescorer(made_up, replace(decoder.rescorer.config, hypotheses=1))
    assert len(BeamSearch(search().vocabulary, narrow).n_best(decode(search(), emissions(1, 5)), 9)) == 1
