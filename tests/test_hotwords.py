"""Hotwords and other people's language models: what a user adds to the words of a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import streamasr
from streamasr.bundle import BeamConfig
from streamasr.cli import main
from streamasr.decoding.speller import Speller
from streamasr.events import Final
from tests.law import check_law
from tests.lm import made_up_arpa
from tests.test_beam import MadeUpLm, certain, decode, search
from tests.test_stream import TOY, noise, subject


@pytest.fixture(scope="module")
def toy() -> streamasr.Recognizer:
    return streamasr.load(TOY)


def said(stream: streamasr.Stream, audio: np.ndarray) -> list[str]:
    events = [*stream.accept(audio), *stream.finish()]
    return [event.text for event in events if isinstance(event, Final)]


def test_a_word_of_no_list_is_found_when_it_is_hot() -> None:
    plain = search(config=BeamConfig(lm_weight=0.3, word_bonus=0.0))
    rows = certain("-b-c-b-")
    assert "bcb" not in plain.final(decode(plain, rows)).text.split()
    hot = plain.with_phrases({"bcb": 5.0})
    found = hot.final(decode(hot, rows))
    assert found.text == "bcb"
    assert (found.words[0].first_frame, found.words[0].last_frame) == (1, 5)


def test_a_phrase_is_found_as_one_and_written_as_it_was_given() -> None:
    hot = search(config=BeamConfig(lm_weight=0.3, word_bonus=0.0)).with_phrases({"B  Ab": 9.0})
    assert hot.final(decode(hot, certain("-b--a-b-"))).text == "B Ab"


class Capital(MadeUpLm):
    """Knows "Cab" and no "cab"."""

    def number(self, word: str) -> int:
        return 4 if word == "Cab" else super().number(word)


def test_a_hotword_is_looked_up_as_it_is_written() -> None:
    speller = Speller(lambda word: [b"\x01"] * (word == "Cab"), ("-", "a", "b", "c"), None)
    vocabulary = replace(search().vocabulary, lm=Capital(12), speller=speller)
    hot = vocabulary.with_phrases({"Cab": 1.0, "cab": 1.0, "Bc": 1.0})
    assert [phrase.words for phrase in hot.phrases] == [(4,), (0,), (0,)]
    assert hot.phrase_spellings is not None
    assert len(hot.phrase_spellings.words) == 3  # "Cab" as it is listed, the others letter by letter


def test_a_bonus_decides_between_words_that_sound_alike() -> None:
    rows = certain("-a-b---")
    for bonuses, text in (({"a": 4.0, "b": 4.0}, "a b"), ({"ab": 8.0}, "ab"), ({"ab": -20.0}, "ab")):
        hot = search(config=BeamConfig(lm_weight=0.3, word_bonus=0.0)).with_phrases(bonuses)
        assert hot.final(decode(hot, rows)).text == text


def test_hotwords_change_while_a_stream_runs_and_go_with_a_snapshot(toy: streamasr.Recognizer) -> None:
    audio = noise(21, 12.0)
    plain = said(toy.stream(), audio)
    hot = said(toy.stream(hotwords={"bagu": 20.0}), audio)
    assert not any("bagu" in text for text in plain)
    assert any("bagu" in text for text in hot)

    stream = toy.stream()
    events = stream.accept(audio[:96000])
    stream.hotwords = {"bagu": 20.0}
    moved = toy.stream(stream.snapshot())
    assert moved.hotwords == {"bagu": 20.0}
    rest = [*stream.accept(audio[96000:]), *stream.finish()]
    assert rest == [*moved.accept(audio[96000:]), *moved.finish()]
    assert any("bagu" in event.text for event in rest if isinstance(event, Final))
    assert not any("bagu" in event.text for event in events if isinstance(event, Final))

    stream = toy.stream(hotwords={"bagu": 20.0})
    stream.hotwords = {}
    assert said(stream, audio) == plain


def test_streams_with_hotwords_keep_the_law(toy: streamasr.Recognizer) -> None:
    hotwords = {"bodi": 9.0, "da da": 4.0}
    texts = " ".join(said(toy.stream(hotwords=hotwords), noise(21, 20.0)))
    assert texts != " ".join(said(toy.stream(), noise(21, 20.0)))
    check_law(subject(toy, hotwords=hotwords))


def test_streams_with_a_grammar_keep_the_law(tmp_path: Path) -> None:
    (tmp_path / "orders.grammar").write_text("[da] (di | do)\n")
    check_law(subject(streamasr.load(TOY, grammar=tmp_path / "orders.grammar"), n_best=None))


def test_other_hotwords_take_nothing_back_that_was_said_before_one() -> None:
    plain = search(config=BeamConfig(lm_weight=0.3, word_bonus=0.0))
    hot = plain.with_phrases({"b ab ab": 25.0})
    state = decode(hot, 2.0 * certain("-a---b-a-"))
    assert hot.final(state).text.startswith("a")
    inside = state.node >= len(plain.vocabulary.plain_tree)
    assert inside.all(), "all believe that the phrase has begun"
    adopted = plain.adopt(state)
    for row in 2.0 * certain("--c-c---"):
        adopted = plain.step(row, adopted)
    assert plain.final(adopted).text == "a cc"


def test_streams_with_the_same_hotwords_share_them(toy: streamasr.Recognizer) -> None:
    decoder = toy.decoder
    assert decoder.with_phrases({"da": 2.0}) is decoder.with_phrases({"da": 2.0})
    assert decoder.with_phrases({"da": 2.0}) is not decoder.with_phrases({"da": 3.0})


@pytest.mark.parametrize(
    ("hotwords", "message"),
    [({"": 1.0}, "expected a word"), ({"da": 99.0}, "expected -50 to 50"), ({"日本": 1.0}, "cannot be spelled")],
)
def test_hotwords_that_make_no_sense_are_refused(toy: streamasr.Recognizer, hotwords: dict, message: str) -> None:
    with pytest.raises(streamasr.StreamError, match=message):
        toy.stream(hotwords=hotwords)


def test_letters_alone_have_no_hotwords() -> None:
    with pytest.raises(streamasr.StreamError, match="need words to choose from"):
        streamasr.load(TOY, greedy=True).stream(hotwords={"da": 1.0})


def test_a_language_model_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arpa = made_up_arpa(2, tmp_path / "own.arpa", words=("da", "zorro", "naïve"))
    assert main(["lm", str(arpa), str(tmp_path / "own.lm"), "--model", str(TOY)]) == 0
    assert "4 words" in capsys.readouterr().out
    own = streamasr.load(TOY, lm=tmp_path / "own.lm")
    texts = " ".join(said(own.stream(), noise(22, 20.0))).split()
    assert texts
    assert set(texts) <= {"da", "zorro", "naïve"}
    with pytest.raises(streamasr.BundleError, match=r"other\.lm: cannot be read"):
        streamasr.load(TOY, lm=tmp_path / "other.lm")


def test_the_best_texts_come_with_their_scores(toy: streamasr.Recognizer) -> None:
    audio = noise(23, 10.0)
    stream = toy.stream(n_best=5)
    finals = [e for e in [*stream.accept(audio), *stream.finish()] if isinstance(e, Final)]
    assert finals
    for final in finals:
        assert 1 <= len(final.alternatives) <= 5
        assert final.alternatives[0][0] == final.text
        scores = [score for _, score in final.alternatives]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == 0.0
    assert any(len(final.alternatives) > 1 for final in finals)


def test_a_grammar_leaves_nothing_else_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "orders.grammar").write_text("da [be] (di | do)\n")
    recognizer = streamasr.load(TOY, grammar=tmp_path / "orders.grammar")
    texts = said(recognizer.stream(), noise(24, 15.0))
    assert texts
    assert set(texts) <= {"da di", "da do", "da be di", "da be do", "<other>"}
    with pytest.raises(streamasr.BundleError, match="leave the others out"):
        streamasr.load(TOY, grammar=tmp_path / "orders.grammar", greedy=True)
    with pytest.raises(streamasr.StreamError, match="without a grammar"):
        recognizer.stream(hotwords={"da": 1.0})
