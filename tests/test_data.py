"""What is trained on: manifests checked, epochs planned, audio changed, batches laid out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tones import HEADS, LETTERS, LEXICON, PLAIN, RATE, corpus, write_corpus  # noqa: E402

from recipes.mini.data import noise_files, speech_sources  # noqa: E402
from recipes.mini.pieces import word_pieces  # noqa: E402
from streamasr.errors import ManifestError, StreamasrError  # noqa: E402
from streamasr.manifest import Utterance, read_manifest  # noqa: E402
from streamasr.training.augment import AugmentConfig, reverberate  # noqa: E402
from streamasr.training.config import TrainConfig  # noqa: E402
from streamasr.training.data import AudioCache, BatchConfig, BatchDataset, encode_text, plan_epoch  # noqa: E402
from streamasr.training.loop import Trainer  # noqa: E402

# Manifests


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record.pop(key)


BAD_LINES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing audio": (lambda r: r.update(audio="gone.wav"), r"gone\.wav: no such file"),
    "foreign letter": (
        lambda r: r.update(text="ab ß7"),
        r"the text holds '7', 'ß', outside the model's alphabet; spell",
    ),
    "upper case": (lambda r: r.update(text="Ab"), "the text holds 'A'"),
    "no time": (lambda r: r.update(seconds=0), "'seconds' is 0; expected a length above 0"),
    "time that is none": (lambda r: r.update(seconds=float("nan")), "'seconds' is nan; expected a length above 0"),
    "text for a number": (lambda r: r.update(seconds="3"), "'seconds' is '3', which is not of the right type"),
    **{f"no {key}": (without(key), f"no '{key}'; a line needs") for key in ("audio", "text", "speaker", "seconds")},
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_by_its_number(name: str, tmp_path: Path) -> None:
    edit, complaint = BAD_LINES[name]
    manifest = write_corpus(tmp_path, ["ab", "ba", "a"])
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    edit(records[1])
    manifest.write_text("\n\n".join(json.dumps(record) for record in records))
    with pytest.raises(ManifestError, match=rf"train\.jsonl, line 3: .*{complaint}") as caught:
        read_manifest(manifest, LETTERS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{}\n", "line 1: no 'audio'"),
        (b"\n{audio", "line 2: not JSON"),
        (b"[1]", "line 1: expected a JSON object, got list"),
        (b"\n \n", "holds no utterances"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_manifest_that_is_none(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"m\.jsonl.*{complaint}"):
        read_manifest(tmp_path / "m.jsonl", LETTERS)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.jsonl: cannot be read: No such file"):
        read_manifest(tmp_path / "gone.jsonl", LETTERS)


def test_audio_lies_relative_to_the_manifest(tmp_path: Path) -> None:
    utterances = read_manifest(write_corpus(tmp_path / "a" / "b", ["ab"]), LETTERS)
    assert utterances == [Utterance(tmp_path / "a/b/train-0.wav", "ab", "tone", pytest.approx(0.56), "")]


def test_an_unreadable_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"no audio")
    with pytest.raises(ManifestError, match=r"x\.wav: cannot be read as audio"):
        AudioCache([tmp_path / "x.wav"], tmp_path / "cache")


def test_a_recording_made_again_under_its_name_is_heard_again(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        soundfile.write(tmp_path / "x.wav", np.zeros(int(seconds * RATE)), RATE)
        assert AudioCache([tmp_path / "x.wav"], tmp_path / "cache").seconds(0) == seconds


def test_half_a_cache_is_not_left_behind(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    (tmp_path / "b.wav").write_bytes(b"no audio")
    with pytest.raises(ManifestError, match=r"b\.wav: cannot be read as audio"):
        AudioCache([tmp_path / "a.wav", tmp_path / "b.wav"], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_noise_may_be_of_any_kind(tmp_path: Path) -> None:
    names = ["1-1-A.wav", "2-1-A.flac", "3-1-A.opus", "4-1-A.OGG", "README.md"]
    for name in names:
        (tmp_path / "noise").mkdir(exist_ok=True)
        (tmp_path / "noise" / name).touch()
    found = [*noise_files(tmp_path, held_out=False), *noise_files(tmp_path, held_out=True)]
    assert sorted(path.name for path in found) == names[:4]


# Batches


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.lists(st.floats(0.2, 35.0), min_size=1, max_size=60),
    glue=st.floats(0.0, 1.0),
    noise=st.floats(0.0, 0.5),
    seed=st.integers(0, 1000),
)
def test_an_epoch_uses_every_utterance_once(seconds: list[float], glue: float, noise: float, seed: int) -> None:
    config = BatchConfig(batch_s=40.0, glue_probability=glue, glue_s=15.0, noise_only=noise)
    batches = plan_epoch(seconds, config, np.random.default_rng(seed))
    items = list(itertools.chain.from_iterable(batches))
    assert sorted(i for item in items for i in item.utterances) == list(range(len(seconds)))
    assert all(batches)
    for item in items:
        if item.utterances:
            assert item.seconds == pytest.approx(sum(seconds[i] for i in item.utterances))
            assert len(item.utterances) == 1 or item.seconds <= 15.0 + 1e-9
    for batch in batches:  # items are ordered by length within 5 %, so the last need not be the longest
        assert len(batch) == 1 or len(batch) * max(item.seconds for item in batch) <= 40.0 * 1.05 / 0.95 + 1e-6
    assert plan_epoch(seconds, config, np.random.default_rng(seed)) == batches


def dataset(folder: Path, texts: list[str], seed: int = 1, **batch: Any) -> BatchDataset:
    utterances = corpus(folder, texts).train
    cache = AudioCache([u.audio for u in utterances], folder / "cache")
    config = BatchConfig(**{"batch_s": 4.0, "noise_only": 0.3, **batch})
    return BatchDataset(
        utterances, cache, AudioCache([], folder / "cache"), HEADS, LEXICON, config, AugmentConfig(), (seed, 0)
    )


def test_a_room_adds_echoes_and_changes_neither_place_nor_loudness() -> None:
    audio = np.random.default_rng(1).standard_normal(4000).astype(np.float32)
    np.testing.assert_allclose(reverberate(audio, np.ones(1, np.float32)), audio, atol=1e-5)
    response = np.zeros(1001, np.float32)
    response[[0, 1000]] = 1.0, 0.5
    echoed = reverberate(audio, response)
    expected = audio.copy()
    expected[1000:] += 0.5 * audio[:-1000]
    expected *= np.sqrt(np.mean(audio**2) / np.mean(expected**2))
    np.testing.assert_allclose(echoed, expected, atol=1e-5)
    assert not reverberate(np.zeros(10, np.float32), response).any()


def test_rooms_are_heard_as_often_as_was_asked_for(tmp_path: Path) -> None:
    response = np.zeros(400, np.float32)
    response[[0, 399]] = 0.9
    soundfile.write(tmp_path / "room.wav", response, RATE)
    plain = dataset(tmp_path, ["ab", "cab", "ba"], noise_only=0.0)
    rooms = AudioCache([tmp_path / "room.wav"], tmp_path / "cache")
    for probability in (0.0, 1.0):
        plain.rooms, plain.augmentation = None, replace(PLAIN, room_probability=probability)
        dry = plain[0].audio
        plain.rooms = rooms
        assert torch.equal(plain[0].audio, dry) == (probability == 0.0)
    config = TrainConfig(augment=AugmentConfig(room_probability=0.5))
    with pytest.raises(StreamasrError, match="room_probability needs rooms"):
        Trainer(config, HEADS, corpus(tmp_path, ["ab"]), tmp_path)


def test_same_seed_same_batches(tmp_path: Path) -> None:
    texts = ["ab", "ba", "cab", "abc abc", "c", "b a"]
    first, second, other = (dataset(tmp_path, texts, seed) for seed in (1, 1, 2))
    assert len(first) == len(second) > 1
    for i in reversed(range(len(first))):  # in any order
        a, b = first[i], second[i]
        assert torch.equal(a.audio, b.audio)
        assert torch.equal(a.lengths, b.lengths)
        assert [None if t is None else t.tolist() for t in a.targets["letters"]] == [
            None if t is None else t.tolist() for t in b.targets["letters"]
        ]
    assert not torch.equal(first[0].audio, other[0].audio)


def test_a_batch_is_padded_with_zeros_and_knows_its_lengths(tmp_path: Path) -> None:
    for batch in map(dataset(tmp_path, ["ab", "ba", "cab", "a"]).__getitem__, range(2)):
        assert batch.audio.shape[1] == int(batch.lengths.max())
        for row, length in zip(batch.audio, batch.lengths, strict=True):
            assert (row[length:] == 0.0).all()
            assert row.abs().max() <= 1.0


def test_glued_texts_have_a_space_between_and_no_phones_where_a_word_is_unknown(tmp_path: Path) -> None:
    batches = dataset(tmp_path, ["ab", "cab"], glue_probability=1.0, noise_only=0.0)
    targets = batches[0].targets
    spelled = "".join(HEADS["letters"][k] for k in targets["letters"][0])
    assert spelled in ("ab cab", "cab ab")
    assert targets["phones"] == [None]
    assert encode_text("ab ba", HEADS, LEXICON)["phones"] == [1, 2, 2, 1]


def test_word_pieces_are_what_is_written_often_and_the_longest_is_said() -> None:
    texts = ["abab cab", "abab b"]
    assert word_pieces(texts, 2) == ["ab", "abab"]
    assert word_pieces(texts, 9) == ["ab", "abab", "cab"], "no more than there are"
    assert encode_text("abab abc", {"letters": ["<blank>", " ", "a", "b", "c", "ab", "abab"]}, {}) == {
        "letters": [6, 1, 5, 4]
    }
    with pytest.raises(KeyError, match="x"):
        encode_text("x", {"letters": ["<blank>", " ", "a"]}, {})


def test_the_card_names_sources_that_nobody_has_stated() -> None:
    heard = {"mine": 1800.0, "": 1800.0, "ls-x": 900.0, "ls-y": 900.0, "flite": 3600.0}
    found = {source.name: (source.licence, source.hours) for source in speech_sources(heard)}
    assert found["mine"] == found["speech of a source that is not named"] == ("not stated", 0.5)
    assert ("CC BY 4.0", 0.5) in found.values()
    assert next(length for name, (_, length) in found.items() if name.startswith("flite")) == 1.0
