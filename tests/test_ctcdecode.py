"""The package ctcdecode as a decoder, where it can be imported: against sums over all alignments and greedy."""

from __future__ import annotations

import itertools
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import streamasr
from recipes.mini.data import LETTERS
from streamasr.decoding.ctcdecode import CtcDecode
from streamasr.decoding.hypothesis import decoded
from streamasr.errors import BundleError
from streamasr.manifest import read_manifest
from streamasr.training.evaluation import ErrorCount
from tests.law import check_law
from tests.test_beam import ctc, emissions
from tests.test_stream import subject

TOKENS = ("-", " ", "a", "b")
TOY = Path(__file__).parent / "data" / "toy"
ARPA = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-3.0\t<unk>
-1.0\t</s>
-99\t<s>\t0
-0.1\tab\t0
-4.0\tba\t0

\\2-grams:
-0.1\t<s> ab

\\end\\
"""


class FakeDecoder:
    """The best token of each frame, in the package's form: its odd times, a row that cannot be, rows it left empty."""

    def __init__(self, labels: list[str], model: str | None, *options: Any) -> None:
        assert model is None
        assert options == (0.5, 1.0, len(labels), 1.0, options[4], 1, 0, True)

    def decode(self, rows: Any) -> tuple[Any, ...]:
        best = rows[0].argmax(1).tolist()
        begins = [i for i, token in enumerate(best) if token and (i == 0 or best[i - 1] != token)]
        size = (1, 4, len(best) + 2)
        tokens, frames = (torch.full(size, -132456368, dtype=torch.int32) for _ in range(2))
        lengths = torch.tensor([[len(begins), len(best) + 2, 0, 0]], dtype=torch.int32)
        tokens[0, 0, : len(begins)] = torch.tensor([best[i] for i in begins])
        frames[0, 0, : len(begins)] = torch.tensor(begins[1:2] + begins[:1] + begins[2:])
        tokens[0, 1], frames[0, 1] = 2, 0
        return tokens, torch.zeros(1, 4), frames, lengths


@pytest.fixture
def real() -> None:
    pytest.importorskip("ctcdecode", reason="the package ctcdecode cannot be imported")


@pytest.fixture(params=["real", "fake"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "real":
        request.getfixturevalue("real")
    else:
        monkeypatch.setitem(sys.modules, "ctcdecode", SimpleNamespace(CTCBeamDecoder=FakeDecoder))


def test_where_it_is_not_installed_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctcdecode", None)
    with pytest.raises(BundleError, match="ctcdecode cannot be imported"):
        streamasr.load(TOY, letters=CtcDecode)


def test_it_goes_with_no_words_to_choose_from() -> None:
    for other in ({"greedy": True}, {"open_vocabulary": True}, {"lm": "a.lm"}, {"grammar": "a.grammar"}):
        with pytest.raises(BundleError, match=r"leave .*out|letters, .* got several"):
            streamasr.load(TOY, letters=CtcDecode, **other)


@pytest.mark.usefixtures("package")
def test_words_have_frames_in_order_and_others_are_no_likelier() -> None:
    decoder = CtcDecode(TOKENS, beam=4)
    assert decoder.n_best(decoder.start(), 3) == [("", 0.0)]
    for seed in range(60):
        state = decoded(decoder, emissions(seed, 5 + seed % 7))
        words = decoder.final(state).words
        assert " ".join(word.text for word in words) == decoder.n_best(state, 1)[0][0]
        frames = [frame for word in words for frame in (word.first_frame, word.last_frame)]
        assert frames == sorted(frames)
        scores = [log_prob for _, log_prob in decoder.n_best(state, 9)]
        assert scores == sorted(scores, reverse=True)
        assert np.isfinite(scores).all()
        assert all(word.evidence.min_log_prob <= word.evidence.mean_log_prob <= 0 for word in words)
        packed = json.loads(json.dumps(decoder.pack(state)))
        assert decoder.final(decoder.unpack(packed)) == decoder.final(state)


@pytest.mark.usefixtures("package")
def test_a_letter_that_still_sounds_after_an_endpoint_is_not_said_twice() -> None:
    decoder = CtcDecode(TOKENS)

    def heard(said: str, state: Any) -> Any:
        for token in said:
            row = np.full(4, np.log(0.001))
            row[TOKENS.index(token)] = np.log(0.997)
            state = decoder.step(row.astype(np.float32), state)
        return state

    state = decoder.next_utterance(heard("-a-b", decoder.start()))
    assert decoder.final(state).words == ()
    assert decoder.final(heard("bb--", state)).text == ""
    again = decoder.final(heard("b-b-", state)).words
    assert [(word.text, word.first_frame) for word in again] == [("b", 6)]


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("seed", range(5))
def test_its_order_is_that_of_sums_over_all_alignments(seed: int) -> None:
    rows = emissions(seed, 6)
    rows[:, 1] = -30.0  # no space: then a text is its letters
    decoder = CtcDecode(TOKENS, beam=1000)
    found = decoder.n_best(decoded(decoder, rows), 20)
    assert len(found) == 20
    for text, log_prob in found:
        assert log_prob == pytest.approx(ctc(rows, bytes(TOKENS.index(letter) for letter in text)), abs=1e-4)
    assert len(decoder.n_best(decoded(decoder, rows[:2]), 20)) == 5  # "", a, b, ab, ba
    every = ["".join(text) for length in range(7) for text in itertools.product("ab", repeat=length)]
    sums = {text: ctc(rows, bytes(TOKENS.index(letter) for letter in text)) for text in every}
    assert [text for text, _ in found] == sorted(every, key=lambda text: -sums[text])[:20]


@pytest.mark.usefixtures("package")
def test_streams_keep_the_law() -> None:
    check_law(subject(streamasr.load(TOY, letters=CtcDecode)))


@pytest.mark.usefixtures("real")
def test_a_language_model_chooses_words(tmp_path: Path) -> None:
    (tmp_path / "words.arpa").write_text(ARPA)
    rows = np.log(np.full((4, 4), 0.05, dtype=np.float32))
    rows[[0, 2], 2:] = np.log([[0.44, 0.46], [0.46, 0.44]])
    rows[[1, 3], 0] = np.log(0.85)
    for weight, said in ((0.0, "ba"), (2.0, "ab")):
        decoder = CtcDecode(TOKENS, tmp_path / "words.arpa", alpha=weight)
        assert decoder.final(decoded(decoder, rows)).text == said
    assert [text for text, _ in decoder.n_best(decoded(decoder, rows), 5)] == ["ab"]
    half = decoder.final(decoded(decoder, np.concatenate([rows, rows[:2]])))
    assert half.text in ("ab", "ab ab", "ab ba"), "no word is cut short"
    (tmp_path / "bad.arpa").write_text("nothing")
    for name, says in (("other.arpa", "no such file"), ("bad.arpa", "ctcdecode cannot read it")):
        with pytest.raises(BundleError, match=says) as caught:
            CtcDecode(TOKENS, tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("real")
def test_more_of_real_speech_is_right_than_with_the_best_token_of_each_frame(shared: Path) -> None:
    utterances = read_manifest(shared / "speech" / "dev.jsonl", LETTERS)[::200]
    errors = {}
    for name, options in {"greedy": {"greedy": True}, "theirs": {"letters": partial(CtcDecode, beam=50)}}.items():
        recognizer, errors[name] = streamasr.load(**options), ErrorCount()
        for utterance in utterances:
            text = " ".join(final.text for final in recognizer.transcribe(utterance.audio).finals)
            errors[name].add(list(utterance.text), list(text))
    assert errors["theirs"].rate <= errors["greedy"].rate
    assert errors["greedy"].rate < 0.5
