"""Greedy decoding: the CTC rule, words with their frames, and state that can be saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamasr.decoding.greedy import Greedy, GreedyState
from streamasr.decoding.hypothesis import Spoken

TOKENS = ["<blank>", " ", "'", "a", "b", "c"]


def frames(text: str) -> np.ndarray:
    """One letter a frame, - the blank, at probability 0.9."""
    rows = np.full((len(text), len(TOKENS)), np.log(0.02), dtype=np.float32)
    for i, letter in enumerate(text):
        rows[i, 0 if letter == "-" else TOKENS.index(letter)] = np.log(0.9)
    return rows


def decode(text: str, state: GreedyState | None = None) -> GreedyState:
    decoder = Greedy(TOKENS)
    state = decoder.start() if state is None else state
    for row in frames(text):
        state = decoder.step(row, state)
    return state


def hypothesis_of(text: str):
    return Greedy(TOKENS).hypothesis(decode(text))


def test_repeats_merge_and_blanks_separate():
    assert hypothesis_of("-aa-ab--b").text == "aabb"


def test_spaces_end_words_and_never_stand_alone():
    found = hypothesis_of(" - a--  bc - ")
    assert found.text == "a bc"
    assert found.stable == 2


def test_words_know_their_first_and_last_frames():
    state = decode("--aab- --cc-")
    found = Greedy(TOKENS).hypothesis(state)
    assert [(w.text, w.first_frame, w.last_frame) for w in found.words] == [("ab", 2, 4), ("c", 9, 10)]
    assert [w.evidence.tokens for w in found.words] == [2, 1]
    assert Greedy(TOKENS).spoken(state) == Spoken(2, 1)


def test_words_know_how_likely_silence_was_in_them():
    said, blank = np.log(0.02), np.log(0.9)
    found = hypothesis_of("--aa-b-- c--").words
    assert [w.evidence.blank_log_prob for w in found] == pytest.approx([(3 * said + blank) / 4, said])


def test_an_open_word_may_grow():
    assert hypothesis_of("a ab-").stable == 1
    assert hypothesis_of("a ab ").stable == 2


def test_after_an_endpoint_words_are_forgotten_but_a_letter_that_goes_on_is_not_said_twice():
    decoder = Greedy(TOKENS)
    state = decoder.next_utterance(decode("-ab"))
    assert decoder.hypothesis(state).words == ()
    assert decoder.hypothesis(decode("bb", state)).text == ""
    assert decoder.hypothesis(decode("b-b", state)).text == "b"


@given(st.text("-abc' ", max_size=40))
def test_agrees_with_the_ctc_rule(text):
    from itertools import groupby

    expected = "".join(key for key, _ in groupby(text) if key != "-")
    assert hypothesis_of(text).text.split() == expected.split()


@given(st.text("-abc ", max_size=30), st.integers(0, 30))
def test_state_survives_json(text, cut):
    decoder = Greedy(TOKENS)
    whole = decode(text)
    half = decoder.unpack(json.loads(json.dumps(decoder.pack(decode(text[:cut])))))
    assert decode(text[cut:], half) == whole
