"""The package ctcdecode as a decoder, where it can be imported: against sums over all alignments and greedy."""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

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


@pytest.fixture
def there() -> None:
    pytest.importorskip("ctcdecode", reason="the package ctcdecode cannot be imported")


def test_where_it_is_not_installed_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctcdecode", None)
    with pytest.raises(BundleError, match="ctcdecode cannot be imported"):
        streamasr.load(TOY, letters=CtcDecode)


def test_it_goes_with_no_words_to_choose_from() -> None:
    for other in ({"greedy": True}, {"open_vocabulary": True}):
        with pytest.raises(BundleError, match="leave"):
            streamasr.load(TOY, letters=CtcDecode, **other)


@pytest.mark.usefixtures("there")
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


@pytest.mark.usefixtures("there")
def test_streams_keep_the_law() -> None:
    check_law(subject(streamasr.load(TOY, letters=CtcDecode)))


@pytest.mark.usefixtures("there")
def test_a_language_model_chooses_words(tmp_path: Path) -> None:
    (tmp_path / "words.arpa").write_text(ARPA)
    rows = np.log(np.full((4, 4), 0.05, dtype=np.float32))
    rows[[0, 2], 2:] = np.log([[0.44, 0.46], [0.46, 0.44]])
    rows[1, 0] = rows[3, 1] = np.log(0.85)  # a last word without a space behind it is not weighed
    said = {
        weight: decoder.final(decoded(decoder, rows)).text
        for weight in (0.0, 2.0)
        for decoder in [CtcDecode(TOKENS, tmp_path / "words.arpa", alpha=weight)]
    }
    assert said == {0.0: "ba", 2.0: "ab"}
    (tmp_path / "bad.arpa").write_text("nothing")
    for name, says in (("other.arpa", "no such file"), ("bad.arpa", "ctcdecode cannot read it")):
        with pytest.raises(BundleError, match=says) as caught:
            CtcDecode(TOKENS, tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("there")
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
