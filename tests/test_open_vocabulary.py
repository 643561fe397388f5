"""Words of no list: heard phone by phone beside the lexicon, written as they sound, under the law."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import streamasr
from streamasr.bundle import BeamConfig, Rescoring
from streamasr.cli import main
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.open_search import OpenSearch
from streamasr.decoding.rescore import Rescorer
from streamasr.decoding.unknown import FEWEST, MOST, REWARDED, Unknown, trigram
from streamasr.events import Final
from tests.law import check_law
from tests.test_beam import WIDE, certain, ctc, decode, emissions, search
from tests.test_stream import TOY, events_of, noise, subject

TOKENS = ("-", "a", "b", "c")
MILD = BeamConfig(lm_weight=0.3, word_bonus=0.0)


def opened(closed: BeamSearch, reward: float = 9.0) -> OpenSearch:
    """A search that writes unknown words as their tokens stand."""
    words = closed.vocabulary
    write = lambda phones: ["".join(phones)]  # noqa: E731
    unknown = Unknown(TOKENS, words.spellings, write, words.config.lm_weight, reward)
    return OpenSearch(replace(words, unknown=unknown), closed.rescorer)


def test_an_unknown_word_comes_out_as_it_sounds() -> None:
    decoder, rows = opened(search(config=MILD)), certain("--b-c-a-bb---")
    word = decoder.final(decode(decoder, rows)).words[0]
    assert (word.text, word.first_frame, word.last_frame) == ("bcab", 2, 8)
    assert word.evidence.tokens == 4
    assert decoder.n_best(decode(decoder, rows), 1)[0][0] == "bcab"
    assert "bcab" not in search(config=MILD).final(decode(search(config=MILD), rows)).text


def test_its_score_is_a_sum_over_all_alignments() -> None:
    rows, closed = emissions(0, 5), search(config=replace(WIDE, histories=1000))
    decoder, config, lm = opened(closed, 2.0), closed.config, closed.vocabulary.lm
    score, state = lm.score(np.array([lm.start]), np.array([lm.unknown]))
    phones, edged = trigram(closed.vocabulary.spellings), [0, 0, 3, 1, 3, 0]
    prior = config.lm_weight * (float(max(score[0], -2.0)) + float(lm.end(state)[0])) + config.word_bonus
    prior += sum(config.lm_weight * phones[a * 64 + b, c] for a, b, c in zip(edged, edged[1:], edged[2:], strict=False))
    prior += 2.0 * 3 / REWARDED
    found = dict(decoder.n_best(decode(decoder, rows), 100_000))
    assert found["cac"] == pytest.approx(ctc(rows, b"\x03\x01\x03") + prior, abs=1e-5)


def test_the_phones_probabilities_are_one() -> None:
    table = np.exp(trigram(search().vocabulary.spellings))
    np.testing.assert_allclose(table.sum(1), 1.0)
    assert table[:, : len(TOKENS)].all()
    assert not table[:, len(TOKENS) :].any()


def test_it_has_neither_too_few_phones_nor_too_many() -> None:
    decoder = opened(search(config=replace(MILD, pause=10**6)), 30.0)
    assert decoder.final(decode(decoder, certain("-b-c-"))).text != "bc"
    state = decode(decoder, certain("-b-c-a" * 12))
    words = BeamSearch.final(decoder, state).words
    lengths = [word.text.count(".") + 1 for word in words if word.text.startswith("<")]
    assert lengths
    assert min(lengths) >= FEWEST
    assert max(lengths) <= MOST
    assert decoder.final(state).text.replace(" ", "") == "bca" * 12


@pytest.mark.parametrize("cut", range(1, 13))
def test_it_is_saved_in_its_middle(cut: int) -> None:
    decoder, rows = opened(search(memory=2, config=MILD)), certain("--b-c-a-bb---")
    half = decode(decoder, rows[:cut])
    restored = decoder.unpack(json.loads(json.dumps(decoder.pack(half))))
    assert half.spelled.any() == (cut > 2)
    whole = decode(decoder, rows)
    assert decoder.pack(decode(decoder, rows[cut:], restored)) == decoder.pack(whole)


def test_it_is_not_lost_where_an_endpoint_falls_into_it() -> None:
    decoder = opened(search(config=MILD))
    state = decode(decoder, certain("--c-"))
    assert decoder.final(state).text == ""
    assert decoder.final(decode(decoder, certain("a-b--"), decoder.next_utterance(state))).text == "cab"


def test_what_its_phones_have_cost_is_not_forgotten_at_an_endpoint() -> None:
    decoder = opened(search(config=MILD), 0.0)
    state = decode(decoder, certain("--c-"))
    before, after = (s.prior[s.spelled.any(axis=0)] for s in (state, decoder.next_utterance(state)))
    assert len(after)
    assert set(after) <= set(before), "nothing was said before, so that it is all that there is"
    assert (after < -0.1).all()


@pytest.mark.parametrize("seed", range(5))
def test_where_it_costs_too_much_nothing_is_as_it_was_not(seed: int) -> None:
    closed, rows = search(memory=2, config=BeamConfig(hypotheses=15, width=10.0)), emissions(seed, 40)
    decoder = opened(closed, -1000.0)
    assert decoder.pack(decode(decoder, rows)) == closed.pack(decode(closed, rows))


def test_what_is_called_stable_is_never_taken_back() -> None:
    decoder = opened(search(memory=2, config=BeamConfig(hypotheses=15, width=10.0)))
    for seed in range(10):
        state, stable = decoder.start(), list[str]()
        for row in emissions(seed, 40):
            state = decoder.step(row, state)
            found = decoder.hypothesis(state)
            words = found.text.split()[: found.stable]
            assert words[: len(stable)] == stable
            stable = words


def test_hotwords_stand_beside_it() -> None:
    decoder, rows = opened(search(config=MILD)), certain("--b-c-a-bb-c-b--")
    hot = decoder.with_phrases({"Bcab": 30.0})
    assert hot.final(decode(hot, rows)).text.startswith("Bcab")
    state = decode(decoder, rows[:7])
    back = hot.with_phrases({})
    assert back.pack(decode(back, rows[7:], back.adopt(hot.adopt(state)))) == decoder.pack(decode(decoder, rows))


class Indifferent:
    """A recurrent model to which all words are equal."""

    def score(self, sentences: list[list[int]], common: int = 0) -> list[np.ndarray]:
        return [np.full(len(sentence) - common + 1, -2.0, dtype=np.float32) for sentence in sentences]


def test_a_recurrent_model_copes_with_it() -> None:
    settings = Rescoring("", (), share=0.5, lm_weight=0.3, word_bonus=0.0)
    closed = search(config=MILD)
    decoder = opened(BeamSearch(closed.vocabulary, Rescorer(Indifferent(), settings)))  # type: ignore[arg-type]
    assert decoder.final(decode(decoder, certain("--b-c-a-bb---"))).text == "bcab"


@pytest.fixture(scope="module")
def toy() -> streamasr.Recognizer:
    return streamasr.load(TOY, open_vocabulary=True)


def test_streams_keep_the_law(toy: streamasr.Recognizer) -> None:
    events = events_of(toy, noise(0, 20.0), [4000])
    said = {word.text for event in events if isinstance(event, Final) for word in event.words}
    assert said - set(toy.decoder.vocabulary.lm.words), "no unknown word, so nothing is proved"  # type: ignore[attr-defined]
    check_law(subject(toy))


def test_a_snapshot_belongs_to_one_kind_of_search(toy: streamasr.Recognizer) -> None:
    with pytest.raises(streamasr.StreamError, match="another model or decoder"):
        streamasr.load(TOY).stream(toy.stream().snapshot())


def test_it_goes_with_words_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(streamasr.BundleError, match="leave greedy, letters and the grammar out"):
        streamasr.load(TOY, open_vocabulary=True, grammar=tmp_path / "x.grammar")
    code = main(["transcribe", "--model", str(TOY), "--greedy", "--open-vocabulary", "tests/data/sample.wav"])
    assert code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_bundled_model_writes_names(shared: Path) -> None:
    unknown = streamasr.load(open_vocabulary=True).decoder.vocabulary.unknown  # type: ignore[attr-defined]
    assert unknown.write("is <B.AA.R.T.L.IY> here") == "is bartley here"
    assert unknown.write("<AY.V.AH.N.HH.OW>") == "ivanhoe"
