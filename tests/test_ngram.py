"""The n-gram language model: against KenLM, against itself, damaged, pruned."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamasr.cli import main
from streamasr.decoding.arpa import LN10, read_arpa, write_ngram
from streamasr.decoding.backoff import Arpa, describe
from streamasr.decoding.ngram import HEADER, MAGIC, Header, Ngram
from streamasr.errors import BundleError
from streamasr.lm import add_parser
from streamasr.recognizer import load

WORDS = ["wa", "wab", "wabe", "wacke", "wade", "wage", "wait", "wake", "walk", "wall", "want", "warm"]


def arpa_text(order: int, seed: int, density: float = 0.3, vocabulary: int = len(WORDS), closed: bool = False) -> str:
    """A made-up model whose probabilities sum to one: back-off weights are what the seen words leave.

    `closed`: an n-gram's last words are an n-gram too, as KenLM would have it.
    """
    rng = np.random.default_rng(seed)
    words = ["<unk>", "</s>", *WORDS[:vocabulary]]
    first = rng.dirichlet(np.ones(len(words)))
    grams: list[dict[tuple[str, ...], float]] = [{(w,): float(p) for w, p in zip(words, first, strict=True)}]
    weights: list[dict[tuple[str, ...], float]] = [{}]

    def prob(gram: tuple[str, ...]) -> float:
        if len(gram) <= len(grams) and gram in grams[len(gram) - 1]:
            return grams[len(gram) - 1][gram]
        return weights[len(gram) - 2].get(gram[:-1], 1.0) * prob(gram[1:])

    contexts: list[tuple[str, ...]] = [("<s>",), *((w,) for w in WORDS[:vocabulary])]
    for _ in range(1, order):
        grams.append({})
        weights.append({})
        for context in contexts:
            seen = [w for w in words if rng.random() < density][: len(words) - 2]
            if closed and len(context) > 1:
                seen = [w for w in seen if (*context[1:], w) in grams[-2]]
            if not seen:
                continue
            shares = rng.dirichlet(np.ones(len(seen))) * rng.uniform(0.3, 0.9)
            left = 1.0 - sum(prob((*context[1:], w)) for w in seen)
            grams[-1] |= {(*context, w): float(p) for w, p in zip(seen, shares, strict=True)}
            weights[len(context) - 1][context] = (1.0 - float(sum(shares))) / left
        contexts = [gram for gram in grams[-1] if gram[-1] not in ("</s>", "<unk>")]
    grams[0][("<s>",)] = 0.0
    lines = ["\\data\\", *(f"ngram {n}={len(level)}" for n, level in enumerate(grams, 1)), ""]
    for n, level in enumerate(grams, 1):
        lines.append(f"\\{n}-grams:")
        for gram, p in level.items():
            line = f"{math.log10(p) if p else -99.0:.9f}\t{' '.join(gram)}"
            lines.append(line + (f"\t{math.log10(weights[n - 1].get(gram, 1.0)):.9f}" if n < order else ""))
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def make(folder: Path, text: str, **options: bool) -> tuple[Arpa, Ngram]:
    path = folder / "lm.arpa"
    path.write_text(text)
    arpa = read_arpa(path)
    write_ngram(arpa, folder / "lm.bin", **options)
    return arpa, Ngram.open(folder / "lm.bin")


def test_a_word_is_known_in_whatever_letters_the_model_has_it(tmp_path: Path) -> None:
    lines = [
        "\\data\\",
        "ngram 1=6",
        "",
        "\\1-grams:",
        *(f"-1 {w}" for w in ("<unk>", "<s>", "</s>", "da", "Bern", "LOUD")),
    ]
    _, lm = make(tmp_path, "\n".join([*lines, "", "\\end\\", ""]))
    assert [lm.words[lm.number(word)] for word in ("DA", "Bern", "loud")] == ["da", "Bern", "LOUD"]
    assert lm.number("bern") == lm.number("x") == lm.unknown


def walk(lm: Ngram, sentence: list[str]) -> tuple[list[float], list[int]]:
    """Natural-log probabilities of the words and of the end, and the states before each."""
    state, scores, states = np.array([lm.start]), [], []
    for word in sentence:
        states.append(int(state[0]))
        score, state = lm.score(state, np.array([lm.number(word)], dtype=np.int32))
        scores.append(float(score[0]))
    return [*scores, float(lm.end(state)[0])], [*states, int(state[0])]


def totals(lm: Ngram, states: list[int]) -> np.ndarray:
    """Sum over the vocabulary and </s> in each state."""
    every = np.arange(len(lm.words), dtype=np.int32)
    return np.array(
        [
            np.exp(lm.score(np.full(len(every), state), every)[0].astype(np.float64)).sum()
            + np.exp(float(lm.end(np.array([state]))[0]))
            for state in states
        ]
    )


def sentences(seed: int, n: int = 40) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [rng.choice([*WORDS, "nobody", "knows"], rng.integers(0, 9)).tolist() for _ in range(n)]


@pytest.mark.parametrize("order", [2, 3, 4])
def test_as_kenlm(tmp_path: Path, order: int) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed: nothing to compare with")
    _, lm = make(tmp_path, arpa_text(order, seed=order, density=0.6, closed=True), quantise=False)
    reference = kenlm.LanguageModel(str(tmp_path / "lm.arpa"))
    assert lm.order == order
    futures: dict[int, list[float]] = {}
    for sentence in sentences(order):
        scores, states = walk(lm, sentence)
        expected = [score * LN10 for score, _, _ in reference.full_scores(" ".join(sentence))]
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        theirs = kenlm.State()
        reference.BeginSentenceWrite(theirs)
        for word, state in zip([*sentence, ""], states, strict=True):
            future = [reference.BaseScore(theirs, next_word, kenlm.State()) for next_word in (*WORDS, "nobody", "</s>")]
            np.testing.assert_allclose(futures.setdefault(state, future), future, atol=1e-5)
            following = kenlm.State()
            reference.BaseScore(theirs, word, following)
            theirs = following
    assert len(futures) > 10


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_sums_to_one(tmp_path: Path, order: int) -> None:
    arpa, lm = make(tmp_path, arpa_text(order, seed=7), quantise=False)
    states = sorted({state for sentence in sentences(1) for state in walk(lm, sentence)[1]} | {lm.empty})
    np.testing.assert_allclose(totals(lm, states), 1.0, atol=1e-5)
    np.testing.assert_allclose(lm.unigram, arpa.levels[0].log_prob[:-2], rtol=1e-6)


def test_equal_futures_are_equal_states(tmp_path: Path) -> None:
    _, lm = make(tmp_path, arpa_text(3, seed=3, density=0.1))
    unknown = np.array([lm.unknown], dtype=np.int32)
    assert lm.score(np.array([lm.start]), unknown)[1][0] == lm.empty
    seen: dict[bytes, int] = {}
    every = np.arange(len(lm.words), dtype=np.int32)
    for pair in itertools.product(WORDS, repeat=2):
        state = walk(lm, list(pair))[1][-1]
        scores, following = lm.score(np.full(len(every), state), every)
        assert seen.setdefault(scores.tobytes() + following.tobytes(), state) == state


def test_many_at_once(tmp_path: Path) -> None:
    """A batch is its members alone."""
    _, lm = make(tmp_path, arpa_text(4, seed=5))
    rng = np.random.default_rng(0)
    states = np.array([state for sentence in sentences(2) for state in walk(lm, sentence)[1]])
    words = rng.integers(0, len(lm.words), len(states)).astype(np.int32)
    score, following = lm.score(states, words)
    alone = [lm.score(states[i : i + 1], words[i : i + 1]) for i in range(len(states))]
    assert score.tolist() == [float(one[0]) for one, _ in alone]
    assert following.tolist() == [int(one[0]) for _, one in alone]
    assert (score.dtype, following.dtype) == (np.float32, np.int64)
    assert len(lm.score(states[:0], words[:0])[0]) == len(lm.end(states[:0])) == 0


def test_quantised(tmp_path: Path) -> None:
    """Within what the codebook's bins allow; exact where there are no more than 256 values."""
    text = arpa_text(3, seed=11, density=0.9)
    _, exact = make(tmp_path, text, quantise=False)
    arpa, lm = make(tmp_path, text)
    assert arpa.counts[2] > 256
    assert (tmp_path / "lm.bin").stat().st_size == describe(arpa).offsets()[""]
    steps = [np.ptp(arpa.levels[2].log_prob) / 254, *(np.ptp(level.backoff) / 253 for level in arpa.levels[1:2])]
    for sentence in sentences(3):
        ours, plain = walk(lm, sentence)[0], walk(exact, sentence)[0]
        np.testing.assert_allclose(ours, plain, atol=sum(steps) / 2 + 1e-5)
    np.testing.assert_allclose(lm.unigram, exact.unigram, rtol=1e-6)


def test_backoffs_are_of_their_own_order(tmp_path: Path) -> None:
    """Fewer values than a codebook holds, and the first 2-gram is a context: none may be looked up in another book."""
    text = arpa_text(3, seed=1, density=0.6)
    _, exact = make(tmp_path, text, quantise=False)
    _, lm = make(tmp_path, text)
    assert exact.contexts[lm.header.words + 2] > 0
    np.testing.assert_array_equal(lm.contexts, exact.contexts)
    np.testing.assert_allclose(lm.backoff, exact.backoff, rtol=1e-6)


@pytest.mark.parametrize("quantise", [True, False])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_pruned(tmp_path: Path, order: int, quantise: bool) -> None:
    arpa, whole = make(tmp_path, arpa_text(order, seed=2, density=0.8), quantise=quantise)
    size = (tmp_path / "lm.bin").stat().st_size
    words = describe(arpa, quantise)
    for limit in (size, size - 1, size - size // 20, size - (size - HEADER) // 10):
        kept = write_ngram(arpa, tmp_path / "small.bin", limit, quantise=quantise)
        small = Ngram.open(tmp_path / "small.bin")
        assert (tmp_path / "small.bin").stat().st_size <= limit
        assert small.words == whole.words
        if limit == size:
            assert kept is arpa
        elif not quantise:
            states = sorted({state for sentence in sentences(1) for state in walk(small, sentence)[1]})
            np.testing.assert_allclose(totals(small, states), 1.0, atol=1e-5)
    with pytest.raises(BundleError, match="cannot hold the 13 words"):
        write_ngram(arpa, tmp_path / "small.bin", HEADER + words.text_bytes, quantise=quantise)


def test_pruning_drops_what_says_least(tmp_path: Path) -> None:
    """A bigram that the back-off says as well goes first."""
    text = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-0.60206 </s>
-99 <s> 0
-0.60206 a 0
-0.60206 b -0.30103
-0.60206 <unk>

\\2-grams:
-0.60206 a b
-0.20411998 b a

\\end\\
"""
    arpa, _ = make(tmp_path, text)
    kept = write_ngram(arpa, tmp_path / "small.bin", describe(arpa, False).offsets()[""] - 1, quantise=False)
    small = Ngram.open(tmp_path / "small.bin")
    assert kept.counts == (5, 1)
    b, a = (np.array([small.number(word)], dtype=np.int32) for word in "ba")
    after = small.score(np.array([small.empty]), b)[1]
    assert small.score(after, a)[0][0] == pytest.approx(-0.20411998 * LN10, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    order=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    density=st.floats(0.0, 1.0),
    vocabulary=st.integers(1, 5),
    part=st.floats(0.0, 1.0),
)
def test_any_model(
    tmp_path_factory: pytest.TempPathFactory, order: int, seed: int, density: float, vocabulary: int, part: float
) -> None:
    """Written, read, pruned to any size: what is kept sums to one, and no file is larger than allowed."""
    folder = tmp_path_factory.mktemp("lm")
    arpa, lm = make(folder, arpa_text(order, seed, density, vocabulary), quantise=False)
    grams = {()} | {tuple(pair) for pair in itertools.product(["nobody", *WORDS[:vocabulary]], repeat=2)}
    states = [walk(lm, list(gram))[1][-1] for gram in grams]
    np.testing.assert_allclose(totals(lm, states), 1.0, atol=1e-4)
    whole = describe(arpa, False).offsets()[""]
    nothing = describe(Arpa(arpa.words, arpa.levels[:1]), False).offsets()[""] + 8 * 4
    limit = int(nothing + part * max(whole - nothing, 0))
    write_ngram(arpa, folder / "small.bin", limit, quantise=False)
    assert (folder / "small.bin").stat().st_size <= max(limit, 0)
    small = Ngram.open(folder / "small.bin")
    np.testing.assert_allclose(totals(small, [walk(small, list(gram))[1][-1] for gram in grams]), 1.0, atol=1e-4)


def test_mapped(tmp_path: Path) -> None:
    """Probabilities stay in the file: a view of a memory map."""
    _, lm = make(tmp_path, arpa_text(3, seed=1))
    base: object = lm.prob
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not lm.prob.flags.writeable


def test_words(tmp_path: Path) -> None:
    _, lm = make(tmp_path, arpa_text(2, seed=1))
    assert lm.words[0] == "<unk>"
    assert list(lm.words[1:]) == sorted(WORDS)
    assert [lm.number(word) for word in lm.words] == list(range(len(lm.words)))
    assert lm.number("nobody") == lm.number("") == lm.number("</s>") == lm.unknown == 0


def damage(content: bytes, how: str) -> bytes:
    header = json.loads(content[len(MAGIC) : HEADER])
    if how == "header":
        return content[: len(MAGIC)] + b"{" + content[len(MAGIC) :]
    if how == "format":
        header["format"] = 99
    elif how == "key":
        header["colour"] = "blue"
    elif how == "sizes":
        header["ngrams"] = []
    elif how in ("first", "inner"):
        body = bytearray(content)
        place = Header(**header).offsets()[how]
        body[place : place + 4] = b"\xff\xff\0\0"
        header["crc32"] = zlib.crc32(bytes(body[HEADER:]))
        content = bytes(body)
    elif how == "bit":
        return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    elif how == "short":
        return content[:-8]
    elif how == "head only":
        return content[:100]
    elif how == "foreign":
        return b"\\data\\\n" + content
    return (MAGIC + json.dumps(header).encode()).ljust(HEADER) + content[HEADER:]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("header", "header is damaged"),
        ("format", "format 99"),
        ("key", "unknown key 'colour'"),
        ("sizes", "sizes that cannot be"),
        ("first", "do not share its n-grams out"),
        ("inner", "do not share its n-grams out"),
        ("bit", "checksum"),
        ("short", "bytes, expected"),
        ("head only", "100 bytes, expected"),
        ("foreign", "not a language model"),
    ],
)
def test_damaged(tmp_path: Path, how: str, says: str) -> None:
    make(tmp_path, arpa_text(3, seed=1))
    path = tmp_path / "lm.bin"
    path.write_bytes(damage(path.read_bytes(), how))
    with pytest.raises(BundleError, match=says) as caught:
        Ngram.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Ngram.open(tmp_path / "nothing")
    with pytest.raises(BundleError, match="cannot be read"):
        read_arpa(tmp_path / "nothing")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, arpa_text(3, seed=6, density=0.9))
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    size = (tmp_path / "lm.bin").stat().st_size
    options = ["lm", str(tmp_path / "lm.arpa"), str(tmp_path / "out" / "en.lm"), "--max-mb", str((size - 1000) / 1e6)]
    arguments = parser.parse_args(options)
    assert arguments.run(arguments) == 0
    assert (tmp_path / "out" / "en.lm").stat().st_size <= size - 1000
    read, wrote = capsys.readouterr().out.splitlines()
    assert "13 words" in read
    assert wrote.endswith(" MB")
    with pytest.raises(SystemExit):
        parser.parse_args([*options[:-1], "-1"])


def test_a_model_and_its_spellings_belong_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.arpa").write_text(arpa_text(2, seed))
        assert main(["lm", str(tmp_path / f"{name}.arpa"), str(tmp_path / f"{name}.lm")]) == 0
    shutil.copy(tmp_path / "b.lex", tmp_path / "a.lex")
    with pytest.raises(BundleError, match=r"a\.lex: spells another language model's words; make both"):
        load(lm=tmp_path / "a.lm")
    arpa, before = str(tmp_path / "a.arpa"), sorted(tmp_path.iterdir())
    (tmp_path / "foreign.arpa").write_text(arpa_text(1, 3).replace("\tw", "\tщ"))
    capsys.readouterr()
    for arguments, says in (
        (["lm", arpa, str(tmp_path / "x.lex")], "expected the name of a file"),
        (["lm", arpa, str(tmp_path)], "expected the name of a file"),
        (["lm", arpa, "."], "expected the name of a file"),
        (["lm", arpa, str(tmp_path / "x.lm"), "--model", "/nowhere"], "/nowhere"),
        (["lm", str(tmp_path / "foreign.arpa"), str(tmp_path / "x.lm")], "none of its words can be spelled"),
        (["transcribe", "--lm", ".", "a.wav"], "cannot be read: Is a directory"),
    ):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "foreign.arpa"])
