"""The bundled model: on the committed sample, on real speech where it is there, and where nobody speaks."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import streamasr
from streamasr.events import Event, Final
from tests.law import check_law
from tests.test_stream import events_of, subject

SAMPLE = Path(__file__).parent / "data" / "sample.wav"
SIBLING = Path(__file__).parents[1] / "recipes" / "tiny" / "en-tiny"
SILENCE = np.zeros(16000, np.float32)


@pytest.fixture(scope="module")
def recognizer() -> streamasr.Recognizer:
    return streamasr.load()


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return soundfile.read(SAMPLE, dtype="float32")[0]


@pytest.fixture(scope="module")
def speech(shared: Path) -> list[tuple[np.ndarray, str]]:
    """Some dev utterances with their texts."""
    lines = (shared / "speech" / "dev.jsonl").read_text().splitlines()[::60]
    records = [json.loads(line) for line in lines]
    return [(soundfile.read(shared / "speech" / r["audio"], dtype="float32")[0], r["text"]) for r in records]


def letters(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Final)).replace(" ", "")


def test_the_sample_is_made_again_to_the_byte(tmp_path):
    from recipes.sample.make import make

    if not shutil.which("flite"):
        pytest.skip("the program flite is not there")
    make(tmp_path / "sample.wav")
    for suffix in (".wav", ".txt"):
        assert (tmp_path / "sample").with_suffix(suffix).read_bytes() == SAMPLE.with_suffix(suffix).read_bytes()


def test_the_sample_is_recognisable(recognizer):
    jiwer = pytest.importorskip("jiwer")
    found = recognizer.transcribe(SAMPLE).text.replace("\n", " ")
    wrong = jiwer.cer((SAMPLE.parent / "sample.txt").read_text().strip(), found)
    assert wrong < 0.35, f"{100 * wrong:.0f} % of the letters are wrong: {found}"


@pytest.mark.parametrize("greedy", [False, True])
def test_the_sibling_hears_the_sample_however_it_is_cut(sample, greedy):
    jiwer = pytest.importorskip("jiwer")
    sibling = streamasr.load(SIBLING, greedy=greedy)
    events = events_of(sibling, sample, [10**9])
    assert events_of(sibling, sample, [441]) == events
    said = (SAMPLE.parent / "sample.txt").read_text().strip().replace(" ", "")
    assert jiwer.cer(said, letters(events)) < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [False, True])
def test_words_are_said_before_a_gap_or_after_it(sample, greedy):
    recognizer = streamasr.load(greedy=greedy)
    for cut, more in itertools.product(range(16000, 64000, 8000), (1200, 4000)):
        stream = recognizer.stream()
        events = stream.accept(sample[:cut]) + stream.lost(160_000)
        (gap,) = (event for event in events if isinstance(event, streamasr.Gap))
        again = sample[cut : cut + more]  # and a second gap, while frames of this are still on their way
        events += stream.accept(again) + stream.lost(160_000) + stream.accept(sample[cut:]) + stream.finish()
        second = max((event for event in events if isinstance(event, streamasr.Gap)), key=lambda gap: gap.start_s)
        assert (gap.start_s, gap.end_s, second.end_s) == (cut / 16000, cut / 16000 + 10.0, (cut + more) / 16000 + 20.0)
        words = [word for event in events if isinstance(event, Final) for word in event.words]
        assert {"before", "after"} == {
            "before" if word.start_s < gap.start_s + 0.5 else "after" if word.start_s >= gap.end_s else word.text
            for word in words
        }
        said = [word for word in words if word.start_s >= second.start_s]
        assert said[0].start_s >= second.end_s
        assert said[-1].end_s <= second.end_s + (len(sample) - cut) / 16000 + 1e-9


def test_a_snapshot_goes_on_with_the_words_it_was_taken_with(recognizer, sample, tmp_path):
    from streamasr.cli import main

    assert main(["lm", str(SAMPLE.parent / "example.arpa"), str(tmp_path / "my.lm")]) == 0
    mine = streamasr.load(lm=tmp_path / "my.lm")
    for one, other in ((recognizer, mine), (mine, recognizer)):
        stream = one.stream()
        stream.accept(sample[:32000])
        with pytest.raises(streamasr.StreamError, match="taken with other words; load the language model"):
            other.stream(stream.snapshot())


def test_the_law(recognizer, sample):
    def speak(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        start = int(rng.integers(len(sample)))
        return np.resize(np.roll(sample, -start), shape[1])[None]

    check_law(subject(recognizer, speak))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 44100])
def test_real_speech_resampled_and_cut(recognizer, speech, rate):
    soxr = pytest.importorskip("soxr")
    for audio, _ in speech[:3]:
        other = soxr.resample(audio, 16000, rate)
        assert events_of(recognizer, other, [777], rate) == events_of(recognizer, other, [10**9], rate)


@pytest.mark.slow
def test_real_speech_from_int16_in_small_pieces(recognizer, speech):
    for audio, _ in speech[:5]:
        samples = np.rint(audio * 32767).astype(np.int16)
        assert events_of(recognizer, samples, [160]) == events_of(recognizer, samples, [10**9])


@pytest.mark.slow
def test_real_speech_is_recognised(recognizer, speech):
    jiwer = pytest.importorskip("jiwer")
    found = [recognizer.transcribe(audio).text.replace("\n", " ") for audio, _ in speech]
    assert jiwer.cer([text for _, text in speech], found) < 0.40


def loud_part(sample: np.ndarray) -> np.ndarray:
    """Speech that begins with the very first sample and ends with the very last one."""
    loud = np.flatnonzero(np.abs(sample) > 0.02)
    return sample[loud[0] : loud[-1] + 1]


def assert_all_heard(finals: list[Final], expected: str, start_s: float, end_s: float) -> None:
    """Words from the beginning to the end of the speech, and about the letters that are expected."""
    jiwer = pytest.importorskip("jiwer")
    assert finals[0].start_s < start_s + 0.5, "the first word is missing"
    assert finals[-1].end_s > end_s - 0.5, "the last word is missing"
    assert jiwer.cer(expected, letters(finals)) < 0.2


def test_the_first_and_the_last_word_are_heard_without_silence_around_them(recognizer, sample):
    tight = loud_part(sample)
    expected = letters([*recognizer.transcribe(np.concatenate([SILENCE, tight, SILENCE])).finals])
    finals = [event for event in events_of(recognizer, tight, [640]) if isinstance(event, Final)]
    assert_all_heard(finals, expected, 0.0, len(tight) / 16000)


def test_the_first_word_after_an_endpoint_is_heard(recognizer, sample):
    """Two utterances: the second begins while the network still remembers the first."""
    tight = loud_part(sample)
    length_s = len(tight) / 16000
    expected = letters([*recognizer.transcribe(tight).finals])
    twice = np.concatenate([tight, SILENCE, SILENCE, tight])
    finals = [event for event in events_of(recognizer, twice, [640]) if isinstance(event, Final)]
    second = [final for final in finals if final.start_s > length_s + 1.0]
    assert len(finals) > len(second) > 0, "no endpoint in two seconds of silence"
    assert_all_heard(second, expected, length_s + 2.0, 2.0 * length_s + 2.0)


def test_almost_no_words_where_nobody_speaks(recognizer):
    rng = np.random.default_rng(0)
    for level in (0.0, 1e-4, 3e-3):
        audio = (rng.standard_normal(16000 * 30) * level).astype(np.float32)
        assert len(recognizer.transcribe(audio).words) <= 1, f"at level {level}"


@pytest.mark.slow
def test_an_hour_costs_no_more_memory_than_a_minute_and_ends_as_it_began(recognizer, sample):
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    stream, rng = recognizer.stream(), np.random.default_rng(0)
    hiss = (rng.standard_normal(16000 * 60) * 1e-4).astype(np.float32)
    after_a_minute = 0
    for minute in range(60):
        stream.accept(hiss)
        if minute == 0:
            after_a_minute = process.memory_info().rss
    assert process.memory_info().rss - after_a_minute < 5e6
    assert len(stream.snapshot()) < 200_000
    finals = [event for event in [*stream.accept(sample), *stream.finish()] if isinstance(event, Final)]
    assert_all_heard(
        finals[-1:], letters([*recognizer.transcribe(sample).finals]), 3600.0, 3600.0 + len(sample) / 16000
    )


@pytest.mark.slow
def test_faster_than_speech(recognizer, sample):
    """Not a benchmark: only that something is not ten times slower than it should be."""
    started = time.process_time()
    recognizer.transcribe(np.tile(sample, 5))
    assert time.process_time() - started < 0.2 * 5 * len(sample) / 16000
