"""The beam search against sums over every alignment, and its state against the law."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamasr.bundle import BeamConfig
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.beam_state import BeamState
from streamasr.decoding.candidates import NEVER, Candidates
from streamasr.decoding.links import Link, shared
from streamasr.decoding.speller import Speller
from streamasr.decoding.spellings import Spellings
from streamasr.decoding.vocabulary import Vocabulary

# "ab" is spelled in two ways; "a" is a beginning of "ab", and "b" of nothing.
SPELLED = [(b"\x01", 1), (b"\x01\x02", 2), (b"\x03\x02", 2), (b"\x02", 3), (b"\x03\x03", 4)]
WORDS = ("<unk>", "a", "ab", "b", "cc")
WIDE = BeamConfig(hypotheses=100_000, width=1e9, token_width=1e9, blank_skip=1.1, lm_weight=0.7, word_bonus=0.3)


class MadeUpLm:
    """A model of the last `memory` words: its states are those words."""

    words = WORDS

    def __init__(self, memory: int) -> None:
        self.memory = self.checksum = memory
        self.start = self.unknown = 0
        self.unigram = np.array([-9.0, -1.0, -2.0, -1.5, -1.2], dtype=np.float32)

    def number(self, word: str) -> int:
        return WORDS.index(word) if word in WORDS else 0

    def one(self, state: int, word: int) -> float:
        return -1.0 - ((state * 7 + word * 13) % 5) / 2.0

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = [self.one(int(s), int(w)) for s, w in zip(states, words, strict=True)]
        following = (states * 5 + words) % 5**self.memory
        return np.array(scores, dtype=np.float32), following.astype(np.int64)

    def end(self, states: np.ndarray) -> np.ndarray:
        return np.array([self.one(int(s), 0) for s in states], dtype=np.float32)


def search(memory: int = 12, config: BeamConfig = WIDE) -> BeamSearch:
    lm = MadeUpLm(memory)
    spellings = Spellings.of([s for s, _ in SPELLED], [w for _, w in SPELLED])
    return BeamSearch(Vocabulary(lm, spellings, Speller(lambda word: [], ("-", "a", "b", "c"), None), config))


def emissions(seed: int, frames: int) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0.0, 2.0, (frames, 4))
    return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


def ctc(rows: np.ndarray, target: bytes) -> float:
    """Log of the sum over all alignments of `target` (Graves et al. 2006), the plain way."""
    padded = [0, *(x for token in target for x in (token, 0))]
    alpha = np.full(len(padded), -np.inf)
    alpha[0] = 0.0
    for t, row in enumerate(rows.astype(np.float64)):
        new = np.full(len(padded), -np.inf)
        for s, token in enumerate(padded):
            ways = [alpha[s]] + ([alpha[s - 1]] if s > 0 else [])
            if s > 1 and token != 0 and token != padded[s - 2]:
                ways.append(alpha[s - 2])
            if t == 0:
                ways = [0.0 if s < 2 else -np.inf]
            new[s] = np.logaddexp.reduce(ways) + row[token]
        alpha = new
    return float(np.logaddexp(alpha[-1], alpha[-2] if len(padded) > 1 else -np.inf))


def every_score(rows: np.ndarray, decoder: BeamSearch, most: int) -> dict[str, float]:
    """Text -> CTC sum over its spellings + weighted language model + word bonus, for up to `most` words."""
    lm, config = decoder.vocabulary.lm, decoder.config
    scores = {}
    for n in range(most + 1):
        for words in itertools.product(range(1, len(WORDS)), repeat=n):
            spellings = itertools.product(*([s for s, w in SPELLED if w == word] for word in words))
            # Two sequences of spellings may read alike; each is a way of its own.
            total = np.logaddexp.reduce([ctc(rows, b"".join(parts)) for parts in spellings])
            state, prior = np.array([lm.start]), 0.0
            for word in words:
                score, state = lm.score(state, np.array([word]))
                prior += config.lm_weight * float(score[0]) + config.word_bonus
            prior += config.lm_weight * float(lm.end(state)[0])
            scores[" ".join(WORDS[w] for w in words)] = float(total) + prior
    return scores


def decode(decoder: BeamSearch, rows: np.ndarray, state: BeamState | None = None) -> BeamState:
    state = decoder.start() if state is None else state
    for row in rows:
        state = decoder.step(row, state)
    return state


@pytest.mark.parametrize("taken_off", [(0.0, 0.0, 0.0, 0.0), (0.75, 0.5, -0.25, -1.0)])
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_sums_over_all_alignments(seed: int, taken_off: tuple[float, ...]) -> None:
    config = WIDE if not any(taken_off) else replace(WIDE, blank_penalty=taken_off[0], token_penalties=taken_off[1:])
    rows, decoder = emissions(seed, 5), search(config=config)
    expected = every_score(rows - np.array(taken_off, dtype=np.float32), decoder, 3)
    found = dict(decoder.n_best(decode(decoder, rows), 1000))
    for text, score in expected.items():
        if math.isfinite(score):
            assert found[text] == pytest.approx(score, abs=1e-6), text
        else:
            assert text not in found or found[text] == -math.inf


@pytest.mark.parametrize("seed", range(20))
def test_hypotheses_of_one_future_are_one_and_lose_little_by_it(seed: int) -> None:
    # The alignments of a text that was not the best of its kind for a while are gone: never more than the
    # whole sum, and what is found is (nearly) the best.
    rows, decoder = emissions(seed, 6), search(memory=1)
    expected = every_score(rows, decoder, 4)
    state = decode(decoder, rows)
    for text, score in decoder.n_best(state, 100):
        assert score <= expected[text] + 1e-6
    best, score = decoder.n_best(state, 1)[0]
    assert score == pytest.approx(expected[best], abs=0.5)
    assert expected[best] == pytest.approx(max(expected.values()), abs=0.5)
    kept_apart = search(memory=1, config=replace(WIDE, histories=1000))
    for text, score in kept_apart.n_best(decode(kept_apart, rows), 1000):
        assert score == pytest.approx(expected.get(text, score), abs=1e-6), "with all histories nothing is lost"
    keys = list(zip(state.node.tolist(), state.last.tolist(), state.lm.tolist(), strict=True))
    assert len(keys) == len(set(keys))


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_state_survives_json(seed: int, frames: int, cut: int) -> None:
    decoder, rows = search(memory=2, config=BeamConfig(hypotheses=20, width=12.0)), emissions(seed, frames)
    whole = decode(decoder, rows)
    half = decoder.unpack(json.loads(json.dumps(decoder.pack(decode(decoder, rows[:cut])))))
    continued = decode(decoder, rows[cut:], half)
    assert decoder.pack(continued) == decoder.pack(whole)
    assert decoder.n_best(continued, 5) == decoder.n_best(whole, 5)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_what_is_called_stable_is_never_taken_back(seed: int) -> None:
    decoder, state = search(memory=2, config=BeamConfig(hypotheses=15, width=10.0)), None
    stable: list[str] = []
    state = decoder.start()
    for row in emissions(seed, 40):
        state = decoder.step(row, state)
        found = decoder.hypothesis(state)
        words = found.text.split()[: found.stable]
        assert words[: len(stable)] == stable
        stable = words
    assert decoder.final(state).text.split()[: len(stable)] == stable


def test_a_step_changes_nothing_that_it_was_given() -> None:
    decoder = search(memory=2)
    state = decode(decoder, emissions(1, 6))
    before = json.dumps(decoder.pack(state))
    decode(decoder, emissions(2, 4), state)
    assert json.dumps(decoder.pack(state)) == before


def certain(tokens: str) -> np.ndarray:
    rows = np.full((len(tokens), 4), np.log(0.001), dtype=np.float32)
    for i, token in enumerate(tokens):
        rows[i, "-abc".index(token)] = np.log(0.997)
    return rows


def test_words_know_their_frames_and_what_speaks_for_them() -> None:
    decoder = search(config=BeamConfig(lm_weight=0.1, word_bonus=0.0))
    state = decode(decoder, certain("--a-b--cc-c---"))
    found = decoder.final(state)
    assert [(w.text, w.first_frame, w.last_frame) for w in found.words] == [("ab", 2, 4), ("cc", 7, 10)]
    assert found.words[0].evidence.mean_log_prob == pytest.approx(np.log(0.997))
    assert found.words[0].evidence.tokens == 2
    rows = certain("--a-b--")
    rows[4] = np.log([0.1, 0.1, 0.7, 0.1])  # its "b"
    assert decoder.final(decode(decoder, rows)).words[0].evidence.min_log_prob == pytest.approx(np.log(0.7))
    silence = [word.evidence.blank_log_prob for word in found.words]  # of "a-b" and "cc-c"
    assert silence == pytest.approx([np.log(0.001) * 2 / 3, np.log(0.001) * 3 / 4], abs=0.01)
    spoken = decoder.spoken(state)
    assert spoken is not None
    assert (spoken.first_frame, spoken.quiet_frames) == (2, 3)


def test_after_an_endpoint_words_are_forgotten_but_a_token_that_goes_on_is_not_said_twice() -> None:
    decoder = search(config=BeamConfig(lm_weight=0.1, word_bonus=0.0))
    state = decoder.next_utterance(decode(decoder, certain("-a-b")))
    assert decoder.final(state).words == ()
    assert decoder.final(decode(decoder, certain("bb--"), state)).text == ""
    assert decoder.final(decode(decoder, certain("b-b-"), state)).text == "b"


def test_a_word_that_an_endpoint_falls_into_is_not_lost() -> None:
    decoder = search(config=BeamConfig(lm_weight=0.1, word_bonus=0.0))
    state = decode(decoder, certain("-cc-c-a-"))
    assert decoder.final(state).text == "cc a"
    state = decoder.next_utterance(decode(decoder, certain("-cc-c-c-")))
    assert decoder.final(decode(decoder, certain("c--"), state)).text == "cc"


def test_nobody_pauses_for_long_within_a_word() -> None:
    decoder = search(config=BeamConfig(lm_weight=0.1, word_bonus=0.0, pause=5))
    assert decoder.final(decode(decoder, certain("-a----b-"))).text == "ab"
    assert decoder.final(decode(decoder, certain("-a-----------b-"))).text == "a b"


def test_silence_has_no_words() -> None:
    decoder = search(config=BeamConfig())
    state = decode(decoder, certain("-" * 50))
    assert decoder.spoken(state) is None
    assert decoder.final(state).text == ""


@pytest.mark.parametrize("bonuses", [{}, {"bcb": 8.0, "ab": 5.0}, {"a": -4.0}])
@pytest.mark.parametrize("seed", range(3))
def test_only_what_would_be_too_unlikely_is_not_made(
    monkeypatch: pytest.MonkeyPatch, seed: int, bonuses: dict[str, float]
) -> None:
    narrow = search(memory=2, config=BeamConfig(hypotheses=50, width=4.0)).with_phrases(bonuses)
    rows = emissions(seed, 30)
    found, passed = [], []
    for frame in range(1, len(rows)):
        found.append(narrow.pack(decode(narrow, rows[:frame])))
    extend = narrow._tree.extend

    def all_of_them(nodes: np.ndarray, tokens: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, ...]:
        passed.append(among)
        return extend(nodes, tokens)

    monkeypatch.setattr(narrow._tree, "extend", all_of_them)
    assert found == [narrow.pack(decode(narrow, rows[:frame])) for frame in range(1, len(rows))]
    assert not all(among.all() for among in passed)


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=12))
def test_what_all_hypotheses_begin_with(texts: list[list[int]]) -> None:
    made: dict[tuple[int, ...], Link | None] = {(): None}
    for text in texts:
        for end in range(1, len(text) + 1):
            words = tuple(text[:end])
            before = made[words[:-1]]
            link = Link(before, "", 0, 0, (0.0, 0.0, 1, 0.0, 0.0), 0, end, hash(words))
            if end == len(text) or words not in made:  # the same words may be said at other times
                made[words] = link
    assert shared([made[tuple(text)] for text in texts]) == sum(
        len({tuple(text[:end]) for text in texts}) == 1 for end in range(1, min(map(len, texts)) + 1)
    )


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 3), st.integers(1, 30))
def test_survivors_are_the_best_of_each_future(seed: int, number: int, histories: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    node, last, lm = rng.integers(0, 3, (3, number))
    history = rng.integers(0, 4, number).astype(np.uint64)
    own = rng.normal(size=(3, 3, 3, 4))  # what those of one name have in common
    prior = own[node, last, lm, history.astype(int)]
    blank, label = rng.normal(0.0, 2.0, (2, number))
    of = Candidates(
        stay=number,
        word=np.zeros(0, dtype=np.int32),
        lm_score=np.zeros(0, dtype=np.float32),
        source=np.arange(number),
        node=node,
        last=last,
        lm=lm,
        history=history,
        spelled=np.zeros((0, number), dtype=np.uint64),
        blank=blank,
        label=label,
        prior=prior,
        rank=np.logaddexp(blank, label) + prior,
    )
    summed: dict[tuple[int, ...], float] = {}
    for i, key in enumerate(zip(node, last, lm, history, strict=True)):
        name = tuple(map(int, key))
        summed[name] = np.logaddexp(summed.get(name, NEVER), np.logaddexp(blank[i], label[i]))
    rank = {name: total + own[name] for name, total in summed.items()}
    ordered = sorted(rank, key=lambda name: -rank[name])
    first = [n for k, n in enumerate(ordered) if [m[:3] for m in ordered[:k]].count(n[:3]) < histories][:count]
    places, *found = of.survivors(histories, count)
    names = zip(node[places], last[places], lm[places], history[places], strict=True)
    ranks = np.logaddexp(*found) + prior[places]
    assert {tuple(map(int, name)): total for name, total in zip(names, ranks, strict=True)} == pytest.approx(
        {name: rank[name] for name in first}
    )
