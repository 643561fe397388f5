"""Grammars against their phrases written out one by one, and the search that answers what is none of them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamasr.bundle import BeamConfig
from streamasr.decoding import grammar as module
from streamasr.decoding.grammar import Grammar
from streamasr.decoding.rejection import OTHER, GrammarSearch, GrammarState
from streamasr.decoding.speller import Speller
from streamasr.decoding.spellings import Spellings
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.errors import BundleError, StreamasrError, StreamError
from tests.test_beam import MadeUpLm, certain, emissions

Said = frozenset[tuple[str, ...]]
LAMP = """
# What a lamp understands.
turn (on | off) the <lamp> [please]   # one line, one phrase
<lamp> = [kitchen | bed room] (light | lamp)
"""


@st.composite
def ways(draw: st.DrawFn, depth: int = 3) -> tuple[str, Said]:
    """A piece of a grammar, and all that it can say."""
    kind = draw(st.sampled_from(["word", "all", "one", "may"] if depth else ["word"]))
    if kind == "word":
        word = draw(st.sampled_from(["a", "b", "c"]))
        return word, frozenset([(word,)])
    if kind == "may":
        text, said = draw(ways(depth - 1))
        return f"[{text}]", said | {()}
    parts = draw(st.lists(ways(depth - 1), min_size=1, max_size=3))
    if kind == "one":
        return f"({' | '.join(text for text, _ in parts)})", frozenset().union(*(said for _, said in parts))
    joined = (tuple(itertools.chain(*turn)) for turn in itertools.product(*(said for _, said in parts)))
    return " ".join(text for text, _ in parts), frozenset(joined)


def phrases(grammar: Grammar) -> dict[tuple[str, ...], float]:
    """Every phrase that the graph has, and its log-probability."""
    found: dict[tuple[str, ...], float] = {}
    left: list[tuple[tuple[str, ...], int, float]] = [((), grammar.start, 0.0)]
    words = np.arange(len(grammar.words), dtype=np.int32)
    while left:
        said, state, log_prob = left.pop()
        states = np.full(len(words), state)
        if math.isfinite(end := float(grammar.end(states[:1])[0])):
            found[said] = log_prob + end
        score, following = grammar.score(states, words)
        for i in np.flatnonzero(np.isfinite(score)):
            left.append(((*said, grammar.words[i]), int(following[i]), log_prob + float(score[i])))
    return found


@given(st.lists(ways(), min_size=1, max_size=3), ways(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_graph_has_the_phrases_of_the_text_and_no_others(
    lines: list[tuple[str, Said]], rule: tuple[str, Said], use: bool
) -> None:
    text = "\n".join(f"d {line}" + (" <rule>" if use else "") for line, _ in lines)
    expected = {
        ("d", *said, *after) for _, line in lines for said in line for after in (rule[1] if use else frozenset([()]))
    }
    grammar = Grammar.parse(f"{text}\n<rule> = {rule[0]}\n")
    found = phrases(grammar)
    assert found.keys() == expected
    assert sum(map(math.exp, found.values())) == pytest.approx(1.0, abs=1e-5)
    for said in expected:
        assert grammar.accepts(" ".join(said))


@given(st.lists(ways(), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_states_of_one_future_are_one(lines: list[tuple[str, Said]]) -> None:
    grammar = Grammar.parse("\n".join(f"d {line}" for line, _ in lines))

    def future(state: int) -> frozenset[tuple[str, ...]]:
        moved = Grammar(**{**vars_of(grammar), "start": state})
        return frozenset(phrases(moved))

    futures = [future(state) for state in range(len(grammar.ends))]
    assert len(set(futures)) == len(futures)
    assert all(futures)


def vars_of(grammar: Grammar) -> dict[str, object]:
    names = ("words", "unigram", "keys", "following", "each", "ends", "start", "unknown")
    return {name: getattr(grammar, name) for name in names}


def test_words_are_known_and_as_probable_as_where_they_are_likeliest() -> None:
    grammar = Grammar.parse(LAMP)
    assert grammar.words[0] == "<unk>"
    assert grammar.accepts("turn off the bed room lamp please")
    assert grammar.accepts("Turn on the light")
    for phrase in ("turn the light", "turn on the kitchen", "turn on the light please please", "", "dance"):
        assert not grammar.accepts(phrase)
    assert grammar.number("dance") == grammar.unknown == 0
    assert grammar.unigram[grammar.number("turn")] == 0.0
    assert grammar.unigram[grammar.number("off")] == pytest.approx(-math.log(2))
    assert grammar.unigram[grammar.number("light")] == pytest.approx(-math.log(2))
    assert grammar.unigram[0] == -math.inf


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("a (b | c", 1, "expected ) for the ("),
        ("a\n\nb [c", 3, "expected ] for the ["),
        ("a )", 1, "got ')' after 'a'"),
        ("a || b", 1, r"got '|' after 'a |'"),
        ("a\n()", 2, "got ')'"),
        ("a | ", 1, "got the end of the line"),
        ("a <b", 1, "expected a rule as <name>"),
        ("a <>", 1, "expected a rule as <name>"),
        ("a = b", 1, "got '=' after 'a'"),
        ("<a> =\n<a>", 1, "got the end of the line"),
        ("x <a>", 1, "got <a>, expected a rule that has a line"),
        ("x <a>\n<a> = y\n<a> = z", 3, "got <a> again"),
        ("x <a>\n<a> = y <b>\n<b> = [z <a>]", 3, "<a> -> <b> -> <a>"),
        ("x\n<a> = y <a>", 2, "<a> -> <a>"),
        ("x\n[a] <b>\n<b> = [c]", 2, "may be empty"),
        ("x\n" + 200 * "(" + "a" + 200 * ")", 2, "brackets"),
    ],
)
def test_errors_name_the_line_what_was_got_and_what_was_expected(text: str, line: int, got: str) -> None:
    with pytest.raises(BundleError) as caught:
        Grammar.parse(text, "lamp.grammar")
    assert str(caught.value).startswith(f"lamp.grammar, line {line}: "), caught.value
    assert got in str(caught.value)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_grammar_without_phrases_or_of_too_many_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="got no phrase"):
        Grammar.parse("# nothing\n<a> = b\n")
    monkeypatch.setattr(module, "MOST_STATES", 20)
    with pytest.raises(BundleError, match="more than 20 states"):
        Grammar.parse(" ".join("abcdefghijklmnopqrstuvwxyz"))
    monkeypatch.setattr(module, "MOST_PLACES", 500)
    doubled = "\n".join(f"<r{i}> = <r{i + 1}> <r{i + 1}>" for i in range(12))
    with pytest.raises(BundleError, match="more than 500 places"):
        Grammar.parse(f"<r0>\n{doubled}\n<r12> = a")
    with pytest.raises(StreamasrError, match="cannot be read"):
        Grammar.open(tmp_path / "none.grammar")
    (tmp_path / "bom").write_text("# from a word processor\nlight on", encoding="utf-8-sig")
    assert "light" in Grammar.open(tmp_path / "bom").words
    deep = "".join(f"<r{i}> = {'a | b [' * 19} <r{i + 1}> {']' * 19}\n" for i in range(18))
    with pytest.raises(BundleError, match="too deep in each other"):
        Grammar.parse(f"<r0>\n{deep}<r18> = a")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(StreamasrError, match="UTF-8"):
        Grammar.open(tmp_path / "latin")


def letters(text: str, most_lost: float = 0.7, config: BeamConfig | None = None) -> GrammarSearch:
    """A search whose words are spelled in the letters a, b, c."""
    tokens = ("-", "a", "b", "c")
    plain = Spellings.of([b"\x01"], [1])
    speller = Speller(lambda word: [], tokens, None)
    vocabulary = Vocabulary(MadeUpLm(1), plain, speller, config or BeamConfig(width=30.0, token_width=30.0))
    return GrammarSearch(vocabulary, Grammar.parse(text), most_lost, {})


ORDER = "ab [ca] (cc | bab)"


def heard(search: GrammarSearch, rows: np.ndarray, state: GrammarState | None = None) -> GrammarState:
    state = search.start() if state is None else state
    for row in rows:
        state = search.step(row, state)
    return state


@given(st.integers(0, 10**6), st.integers(0, 25))
@settings(max_examples=60, deadline=None)
def test_only_phrases_are_found(seed: int, frames: int) -> None:
    search = letters(ORDER, most_lost=math.inf)
    state = heard(search, emissions(seed, frames))
    found = search.final(state).text
    assert found in ("", OTHER) or search.grammar.accepts(found)
    best, _ = search.phrase(state)
    assert not best.words or search.grammar.accepts(best.text)
    for text, log_prob in search.n_best(state, 10):
        assert text == OTHER or search.grammar.accepts(text)
        assert math.isfinite(log_prob)


def test_a_phrase_is_found_with_its_frames() -> None:
    search = letters(ORDER)
    state = heard(search, certain("--a-b--c-a-bab--"))
    found = search.final(state)
    assert [(word.text, word.first_frame, word.last_frame) for word in found.words] == [
        ("ab", 2, 4),
        ("ca", 7, 9),
        ("bab", 11, 13),
    ]
    assert search.n_best(state, 1)[0][0] == "ab ca bab"
    assert search.lost(state) < 0.1
    spoken = search.spoken(state)
    assert spoken is not None
    assert (spoken.first_frame, spoken.quiet_frames) == (2, 2)
    assert search.hypothesis(state).text == "ab ca bab"
    assert search.hypothesis(state).stable == 0


@pytest.mark.parametrize("tokens", ["--bcbcbac--", "-ab-ca-", "-abc-ccab-ccc-b-", "-abcac-c-abcac-c-"])
def test_other_speech_is_answered_as_such(tokens: str) -> None:
    search = letters(ORDER)
    state = heard(search, certain(tokens))
    (word,) = search.final(state).words
    spoken = [i for i, token in enumerate(tokens) if token != "-"]
    assert (word.text, word.first_frame, word.last_frame) == (OTHER, spoken[0], spoken[-1])
    assert word.evidence.mean_log_prob == pytest.approx(math.log(0.997))
    silence = [float(row[0]) for row in certain(tokens)[spoken[0] : spoken[-1] + 1]]
    assert word.evidence.blank_log_prob == pytest.approx(sum(silence) / len(silence))
    assert search.n_best(state, 3) == [(OTHER, pytest.approx(len(tokens) * math.log(0.997)))]
    after = search.next_utterance(state)
    assert search.spoken(after) is None
    later = heard(search, certain("-----abc-c--"), after)
    assert search.final(later).text == "ab cc"
    assert search.final(later).words[0].first_frame == len(tokens) + 5


def test_nothing_is_shown_while_nothing_is_plausible() -> None:
    search = letters(ORDER)
    assert search.hypothesis(heard(search, certain("-bcbcb-"))).words == ()


def test_silence_and_a_click_are_no_speech() -> None:
    search = letters(ORDER)
    state = heard(search, certain("-" * 40))
    assert search.spoken(state) is None
    assert search.final(state).words == ()
    assert search.n_best(state, 3) == []
    assert search.final(heard(search, certain("---b-----"))).words == ()


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 30), st.booleans())
@settings(max_examples=40, deadline=None)
def test_state_survives_json(seed: int, frames: int, cut: int, end: bool) -> None:
    search = letters(ORDER, most_lost=2.0, config=BeamConfig(hypotheses=20, width=12.0))
    rows = emissions(seed, frames)
    before = heard(search, rows[:cut])
    before = search.next_utterance(before) if end else before
    frozen = json.dumps(search.pack(before))
    whole = heard(search, rows[cut:], before)
    assert json.dumps(search.pack(before)) == frozen  # nothing is changed in place
    half = heard(search, rows[cut:], search.unpack(json.loads(frozen)))
    assert search.pack(half) == search.pack(whole)
    assert search.final(half) == search.final(whole)
    assert search.hypothesis(half) == search.hypothesis(whole)


def test_a_state_of_another_grammar_is_refused() -> None:
    packed = letters(ORDER).pack(letters(ORDER).start())
    assert letters(ORDER).unpack(packed).tokens == 0
    with pytest.raises(StreamError, match="taken with other words; load the language model or grammar"):
        letters("ab [ca] (cc | cab)").unpack(packed)


def test_a_word_that_cannot_be_spelled_is_refused() -> None:
    with pytest.raises(BundleError, match="'xyz' cannot be spelled"):
        letters("ab xyz")
