"""Our search beside flashlight-text's, which nobody here wrote: what either finds, scored by one function."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recipes.mini.listen import read_16k
from recipes.mini.oracle import WIDE, Flashlight, ctc_sum, ours, score, write_arpa
from streamasr.decoding.arpa import read_arpa, write_ngram
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.speller import Speller
from streamasr.decoding.spellings import Spellings
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.recognizer import BUNDLED, load
from streamasr.words import spell_like
from tests.lm import made_up_arpa
from tests.test_beam import SPELLED, ctc, emissions
from tests.test_beam import WIDE as TOY

TOY_WORDS = ("a", "ab", "b", "cc")
CLOSE = 1e-3  # the language model's log-probabilities are float32 with us, and have seven digits in the file


def opened(arpa: Path) -> Ngram:
    """The model of an ARPA file, not quantised."""
    write_ngram(read_arpa(arpa), arpa.with_suffix(".lm"), quantise=False)
    return Ngram.open(arpa.with_suffix(".lm"))


def toy(folder: Path, seed: int) -> tuple[Vocabulary, Path]:
    arpa = made_up_arpa(seed, folder / "toy.arpa", (10, 15), TOY_WORDS)
    lm = opened(arpa)
    names = ("", *TOY_WORDS)
    spellings = Spellings.of([s for s, _ in SPELLED], [lm.number(names[w]) for _, w in SPELLED])
    return Vocabulary(lm, spellings, Speller(lambda word: [], ("-", "a", "b", "c"), None), TOY), arpa


@pytest.mark.parametrize("seed", range(6))
def test_the_sum_is_over_all_alignments_of_all_spellings(seed: int) -> None:
    rng = random.Random(seed)
    ways = [[bytes(rng.choices((1, 2, 3), k=rng.randint(1, 3))) for _ in range(rng.randint(1, 3))] for _ in range(seed)]
    rows = emissions(seed, 9)
    expected = np.logaddexp.reduce([ctc(rows, b"".join(parts)) for parts in itertools.product(*ways)])
    assert ctc_sum(rows, ways) == pytest.approx(expected, abs=1e-9)


def test_an_arpa_file_is_written_as_it_was_read(tmp_path: Path) -> None:
    model = read_arpa(made_up_arpa(3, tmp_path / "one.arpa"))
    write_arpa(model, tmp_path / "two.arpa")
    again = read_arpa(tmp_path / "two.arpa")
    assert again.words == model.words
    for one, two in zip(model.levels, again.levels, strict=True):
        assert np.array_equal(one.keys, two.keys)
        assert np.allclose(one.log_prob, two.log_prob, atol=1e-7)
        assert np.allclose(one.backoff, two.backoff, atol=1e-7)


def test_language_models_score_alike(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    vocabulary, arpa = toy(tmp_path, 1)
    theirs, rows = kenlm.Model(str(arpa)), emissions(0, 12)
    for words in itertools.product(TOY_WORDS, repeat=3):
        numbers = [vocabulary.lm.number(word) for word in words]
        ctc = ctc_sum(rows, [vocabulary.spellings.of_word(number) for number in numbers])
        lm = theirs.score(" ".join(words)) * np.log(10.0)
        expected = ctc + TOY.lm_weight * lm + TOY.word_bonus * 3
        assert score(rows, numbers, vocabulary) == pytest.approx(expected, abs=CLOSE)


def said(seed: int, sure: float) -> np.ndarray:
    """Noise in which some words are said; 0.0: in which nothing is."""
    rng, rows = random.Random(seed), emissions(seed, 14).astype(np.float64)
    text = b"".join(b"\0" + b"\0".join(bytes([x]) for x in rng.choice(SPELLED)[0]) for _ in range(4))
    rows[np.arange(min(14, len(text))), list(text[:14])] += sure
    return (rows - np.log(np.exp(rows).sum(1, keepdims=True))).astype(np.float32)


@pytest.mark.parametrize("sure", [6.0, 0.0])
def test_ours_is_not_below_theirs_on_toys(sure: float, tmp_path: Path) -> None:
    # Many histories of one future: with few, the alignments of a text that is not among the best for a while are lost.
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    gains = []
    for seed in range(4):
        vocabulary, arpa = toy(tmp_path, seed)
        vocabulary = replace(vocabulary, config=replace(TOY, hypotheses=3000, histories=100))
        search = ours(vocabulary)
        theirs = [Flashlight(vocabulary, arpa, 4, again, beam=500, threshold=50.0) for again in (False, True)]
        for i in range(8):
            rows = said(100 * seed + i, sure)
            best = max(score(rows, one(rows), vocabulary) for one in theirs)
            gains.append(score(rows, search(rows), vocabulary) - best)
    assert min(gains) >= -CLOSE


@pytest.mark.slow
def test_ours_is_not_below_theirs_on_speech(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    recognizer = load(BUNDLED)
    if not isinstance(recognizer.decoder, BeamSearch):
        pytest.skip(f"{BUNDLED} has no words")
    known = recognizer.decoder.vocabulary
    frequent = np.argsort(-known.lm.unigram, kind="stable")[:320]
    names = [known.lm.words[i] for i in frequent if not known.lm.words[i].startswith("<")][:300]
    arpa = made_up_arpa(0, tmp_path / "few.arpa", (1500, 1000), names)
    lm = opened(arpa)
    config = replace(WIDE, lm_weight=known.config.lm_weight, word_bonus=known.config.word_bonus)
    vocabulary = Vocabulary(lm, spell_like(recognizer.bundle, lm.words), known.speller, config)
    files = sorted((shared / "speech" / "dev").rglob("*.opus"))
    tokens, search = len(recognizer.tokens), ours(vocabulary)
    theirs = [Flashlight(vocabulary, arpa, tokens, again, beam=200) for again in (False, True)]
    for file in files[:: len(files) // 8][:8]:
        rows = recognizer.acoustic.whole(read_16k(file)[: 16000 * 8])[:, recognizer.head]
        found = score(rows, search(rows), vocabulary)
        for one in theirs:
            assert found >= score(rows, one(rows), vocabulary) - CLOSE, file
