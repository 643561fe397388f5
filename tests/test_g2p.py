"""Letters to phones: a toy language learnt here, and the model that is shipped where it has been made."""

from __future__ import annotations

import pickle
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.g2p.align import CODES, N_PHONES, align
from recipes.g2p.train import Shape, decode, split, train
from streamasr.decoding.g2p import ALPHABET, MAGIC, G2p, fold
from streamasr.errors import BundleError
from streamasr.training.lexicon import PHONES

ROOT = Path(__file__).parents[1]

# A language in which every spelling has one sound, but "c", "e" and "sh" depend on what stands beside them.
CONSONANTS = {"b": "B", "d": "D", "f": "F", "k": "K", "l": "L", "m": "M", "n": "N", "p": "P", "t": "T", "v": "V"}
VOWELS = {"a": "AE", "i": "IH", "o": "AA", "u": "AH"}


def spoken(syllables: list[str]) -> list[str]:
    """How the toy language says syllables of a consonant ("sh", "c", "x" among them) and a vowel."""
    phones: list[str] = []
    for syllable in syllables:
        onset, vowel = syllable[:-1], syllable[-1]
        soft = vowel == "i"
        special = {"sh": ["SH"], "s": ["S"], "c": ["S"] if soft else ["K"], "x": ["K", "S"]}
        phones += special.get(onset) or [CONSONANTS[onset]]
        phones.append(VOWELS[vowel])
    return phones


@pytest.fixture(scope="module")
def words() -> dict[str, list[list[str]]]:
    rng = random.Random(0)
    onsets = [*CONSONANTS, "sh", "s", "c", "x"]
    lexicon = {}
    for _ in range(400):
        syllables = [rng.choice(onsets) + rng.choice(list(VOWELS)) for _ in range(rng.randint(1, 4))]
        lexicon["".join(syllables)] = [spoken(syllables)]
    return lexicon


@pytest.fixture(scope="module")
def toy(words: dict[str, list[list[str]]]) -> G2p:
    return train(words, [Shape(order=4, threshold=0.0)])[0]


@pytest.fixture(scope="module")
def every_letter(words: dict[str, list[list[str]]]) -> G2p:
    """A toy that knows all letters, some of them silent."""
    phone = dict(zip(ALPHABET[1:], PHONES, strict=False))
    more = {first + second: [[phone[first], phone[second]]] for first in phone for second in phone}
    silent = {f"{word}'{letter}": variants for word, variants in list(words.items())[:40] for letter in "eh"}
    return train(words | more | silent, [Shape(order=4, threshold=0.5)])[0]


@pytest.fixture(scope="module")
def english() -> G2p:
    found = [ROOT / "work" / "g2p" / "en.g2p", *sorted((ROOT / "streamasr" / "models").glob("*/*.g2p"))]
    for path in reversed(found):
        if path.exists():
            return G2p.open(path)
    pytest.skip("no English model: python -m recipes.g2p.train")


def test_words_it_has_not_seen(toy: G2p, words: dict[str, list[list[str]]]) -> None:
    for syllables in (["sho", "ci", "ba"], ["xa", "ca", "shi"], ["fu", "so", "ci", "ca", "lo"], ["vi", "xu"]):
        assert "".join(syllables) not in words
        assert toy.pronounce("".join(syllables)) == [spoken(syllables)]


def test_words_it_has_learnt(toy: G2p, words: dict[str, list[list[str]]]) -> None:
    assert [toy.pronounce(word) for word in words] == list(words.values())


def test_an_alignment_gives_back_letters_and_phones(words: dict[str, list[list[str]]]) -> None:
    entries = [(word, phones) for word, variants in words.items() for phones in variants]
    aligned = align([*entries[:50], ("b", ["B", "IY", "IY"]), ("b2b", ["B", "B"]), *entries[50:]])
    assert len(aligned) == len(entries)  # without the two that cannot be aligned
    for (word, phones), units in zip(entries, aligned, strict=True):
        assert "".join(ALPHABET[unit // CODES] for unit in units) == word
        assert [PHONES[phone] for unit in units for phone in decode(unit % CODES)] == phones


def test_codes_are_phones() -> None:
    assert decode(0) == ()
    assert decode(N_PHONES) == (N_PHONES - 1,)
    assert decode(CODES - 1) == (N_PHONES - 1, N_PHONES - 1)


def test_probabilities_sum_to_one(every_letter: G2p) -> None:
    model = every_letter
    first = 1 + np.concatenate([[0], np.cumsum(model.children, dtype=np.int64)])
    root = np.exp(-model.step * model.cost[first[0] : first[1]].astype(np.float64))
    assert root.sum() == pytest.approx(1.0, abs=0.1)  # costs are rounded
    for node in range(1, 1 + len(model.units)):  # contexts of one unit
        children = np.arange(first[node], first[node + 1])
        own = np.exp(-model.step * model.cost[children].astype(np.float64)).sum()
        others = np.delete(root, model.unit[children]).sum() * np.exp(-model.step * float(model.backoff[node]))
        assert own + others == pytest.approx(1.0, abs=0.2)


def test_a_file_gives_the_same_model(toy: G2p, tmp_path: Path) -> None:
    toy.save(tmp_path / "toy.g2p")
    again = G2p.open(tmp_path / "toy.g2p")
    assert (again.phones, again.units, again.step) == (toy.phones, toy.units, toy.step)
    for word in ("shoci", "baxa", "cica"):
        assert again.scored(word, 5) == toy.scored(word, 5)
    again.save(tmp_path / "again.g2p")
    assert (tmp_path / "again.g2p").read_bytes() == (tmp_path / "toy.g2p").read_bytes()


def test_training_is_deterministic(toy: G2p, words: dict[str, list[list[str]]], tmp_path: Path) -> None:
    toy.save(tmp_path / "one.g2p")
    train(words, [Shape(order=4, threshold=0.0)])[0].save(tmp_path / "two.g2p")
    assert (tmp_path / "one.g2p").read_bytes() == (tmp_path / "two.g2p").read_bytes()


def test_a_model_can_be_sent_to_another_process(toy: G2p) -> None:
    toy.pronounce("ba")
    assert pickle.loads(pickle.dumps(toy)).pronounce("shoci") == toy.pronounce("shoci")


@pytest.mark.parametrize("damage", ["empty", "foreign", "cut", "flipped", "header", "missing", "folder"])
def test_a_damaged_file_is_one_clear_error(toy: G2p, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "toy.g2p"
    toy.save(path)
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "foreign": b"PK\x03\x04" + content,
        "cut": content[: len(content) // 2],
        "flipped": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        "header": content[: len(MAGIC) + 2],
    }
    if damage in damaged:
        path.write_bytes(damaged[damage])
    wrong = {"missing": tmp_path / "none.g2p", "folder": tmp_path}.get(damage, path)
    with pytest.raises(BundleError) as caught:
        G2p.open(wrong)
    message = str(caught.value)
    assert message.startswith(f"{wrong}: ")
    assert "copy" in message
    assert "\n" not in message


def test_folding() -> None:
    assert fold("Zürich") == "zurich"
    assert fold("CAFÉ") == fold(unicodedata.normalize("NFD", "Café")) == "cafe"
    assert fold("Straße") == "strasse"
    assert fold("Øresund") == "oresund"
    assert fold("don’t") == "don't"


@pytest.mark.parametrize(
    ("word", "named"),
    [("b2b", "'2'"), ("ice-cream", "'-'"), ("two words", "' '"), ("дом", "'д'"), ("", "''"), ("''", "'''")],
)
def test_what_cannot_be_spoken_is_named(toy: G2p, word: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"cannot pronounce|has no letter") as caught:
        toy.pronounce(word)
    assert named in str(caught.value)


def test_a_letter_that_was_never_seen_is_named(toy: G2p) -> None:
    with pytest.raises(ValueError, match="never seen the letter 'z'"):
        toy.pronounce("zaba")


def test_a_letter_that_is_always_silent_is_no_word(words: dict[str, list[list[str]]]) -> None:
    model = train({**words, **{word + "e": variants for word, variants in words.items()}}, [Shape(order=3)])[0]
    assert model.pronounce("bae") == [["B", "AE"]]
    with pytest.raises(ValueError, match="'ee': every letter is silent"):
        model.pronounce("ee")


def test_the_best_are_different_and_sorted(every_letter: G2p) -> None:
    found = every_letter.scored("shocixa", 8)
    scores = [score for _, score in found]
    assert len({tuple(phones) for phones, _ in found}) == len(found) > 1
    assert scores == sorted(scores, reverse=True)
    assert every_letter.pronounce("shocixa", 8) == [phones for phones, _ in found]
    assert every_letter.pronounce("shocixa") == [found[0][0]]


@settings(deadline=None)
@given(word=st.text(ALPHABET, min_size=1, max_size=30).filter(lambda word: word.strip("'")), n=st.integers(1, 6))
def test_every_word_can_be_spoken(every_letter: G2p, word: str, n: int) -> None:
    found = every_letter.pronounce(word, n)
    assert 1 <= len(found) <= n
    assert all(phones and set(phones) <= set(PHONES) for phones in found)
    assert every_letter.pronounce(word.upper(), n) == found


def test_a_very_long_word(every_letter: G2p) -> None:
    assert len(every_letter.pronounce("bashoxi" * 100)[0]) == 700


def test_the_split_is_stable(words: dict[str, list[list[str]]]) -> None:
    parts = split(words)
    assert {word for part in parts.values() for word in part} == set(words)
    assert parts["dev"].keys() == split(dict(reversed(words.items())))["dev"].keys()
    assert 0.02 < len(parts["dev"]) / len(words) < 0.09


def test_english(english: G2p) -> None:
    assert english.pronounce("word") == [["W", "ER", "D"]]
    assert english.pronounce("Zürich") == english.pronounce("zurich")
    said = {word: " ".join(english.pronounce(word)[0]) for word in ("blicker", "shoplift", "phonetic")}
    assert said == {"blicker": "B L IH K ER", "shoplift": "SH AA P L IH F T", "phonetic": "F AH N EH T IH K"}


@settings(deadline=None, max_examples=50)
@given(word=st.text(ALPHABET, min_size=1, max_size=20).filter(lambda word: word.strip("'")))
def test_english_speaks_every_word(english: G2p, word: str) -> None:
    found = english.pronounce(word, 3)
    assert found
    assert all(phones and set(phones) <= set(PHONES) for phones in found)


def test_what_is_heard_can_be_written(toy: G2p) -> None:
    for syllables in (["ba", "fi"], ["shu", "lo", "ma"], ["ka"]):
        phones = spoken(syllables)
        ways = toy.write(phones, 3)
        assert 1 <= len(set(ways)) == len(ways) <= 3
        assert toy.pronounce(ways[0])[0] == phones
    assert toy.write(spoken(["shu", "lo", "ma"])) == ["shuloma"]
