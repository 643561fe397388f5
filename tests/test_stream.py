"""Whole streams under the law: the same events for any cutting, live or whole, saved or not."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamasr
from streamasr.bundle import Tuning
from streamasr.endpoint import LAST_RESORT
from streamasr.events import Event, Final, Gap, Partial
from tests.law import Subject, check_law

TOY = Path(__file__).parent / "data" / "toy"


@pytest.fixture(scope="session", params=["beam", "greedy"])
def toy(request: pytest.FixtureRequest) -> streamasr.Recognizer:
    return streamasr.load(TOY, greedy=request.param == "greedy")


def subject(recognizer: streamasr.Recognizer, make: Any = None, **options: Any) -> Subject:
    """A stream that is saved and continued elsewhere after every piece. options: as it begins with."""

    def step(x: Any, state: bytes) -> tuple[list[Event], bytes]:
        stream = recognizer.stream(state)
        return stream.accept(x[0]), stream.snapshot()

    return Subject(
        zero=lambda batch: recognizer.stream(**({"n_best": 2} | options)).snapshot(),
        step=step,
        stride=509,
        batch=False,
        finish=lambda state: recognizer.stream(state).finish(),
        freeze=lambda state: state,
        thaw=lambda data: data,
        make=make,
    )


def noise(seed: int, seconds: float, rate: int = 16000) -> np.ndarray:
    """Bursts of noise with pauses, so that the toy says something and endpoints come."""
    rng = np.random.default_rng(seed)
    samples = int(seconds * rate)
    level = 10.0 ** rng.uniform(-5.0, -0.5, samples // 4000 + 1).repeat(4000)[:samples]
    return (rng.standard_normal(samples) * level).clip(-1, 1).astype(np.float32)


def events_of(recognizer: streamasr.Recognizer, audio: np.ndarray, cuts: list[int], rate: int | None = None) -> list:
    stream, events, start, turn = recognizer.stream(), [], 0, 0
    while start < len(audio):
        size = cuts[turn % len(cuts)]
        events += stream.accept(audio[start : start + size], rate)
        start, turn = start + size, turn + 1
    return events + stream.finish()


def test_the_toy_says_enough_to_prove_anything(toy):
    events = events_of(toy, noise(0, 20.0), [10**9])
    finals = [event for event in events if isinstance(event, Final)]
    assert len(finals) > 1
    assert len({word.text for final in finals for word in final.words}) > 4
    assert any(isinstance(event, Partial) for event in events)


def test_the_law_for_float(toy):
    check_law(subject(toy))


def test_the_law_for_int16(toy):
    check_law(subject(toy, lambda rng, shape: rng.integers(-20000, 20000, shape).astype(np.int16)))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("cuts", [[1], [17], [509], [640], [44100], [1, 9999, 3]])
def test_any_cutting_at_any_rate(toy, rate, cuts):
    audio = noise(1, 0.3 if cuts == [1] else 3.0, rate)
    assert events_of(toy, audio, cuts, rate) == events_of(toy, audio, [10**9], rate)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=30), length=st.integers(0, 20000))
def test_hypothesis_finds_no_cutting_that_matters(toy, cuts, length):
    audio = noise(length, 2.0)[:length]
    assert events_of(toy, audio, cuts) == events_of(toy, audio, [max(length, 1)])


def test_int16_and_its_float_are_the_same(toy):
    audio = (noise(2, 2.0) * 32767).astype(np.int16)
    assert events_of(toy, audio, [4000]) == events_of(toy, audio.astype(np.float32) / 32768, [4000])


def test_stereo_is_mixed(toy):
    audio = noise(3, 2.0)
    stereo = np.stack([audio, audio], axis=1)
    assert events_of(toy, stereo, [4000]) == events_of(toy, audio, [4000])


def test_a_resampled_stream_is_continued_elsewhere(toy):
    audio = noise(4, 4.0, 44100)
    stream = toy.stream()
    events = stream.accept(audio[:90001], 44100)
    moved = toy.stream(stream.snapshot())
    events += moved.accept(audio[90001:], 44100) + moved.finish()
    expected = events_of(toy, audio, [10**9], 44100)
    assert [type(e) for e in events] == [type(e) for e in expected]
    for found, wanted in zip(events, expected, strict=True):
        assert found.text == wanted.text
        assert (found.start_s, found.end_s) == (wanted.start_s, wanted.end_s)


def test_times_are_in_order_and_inside_the_audio(toy):
    audio = noise(5, 30.0)
    words = toy.transcribe(audio).words
    assert words
    edges = [edge for word in words for edge in (word.start_s, word.end_s)]
    assert all(before <= after + 1e-9 for before, after in itertools.pairwise(edges))
    assert edges[0] >= 0.0
    assert edges[-1] <= 30.0
    assert all(0.0 <= word.confidence <= 1.0 for word in words)


def test_partials_grow_into_the_final(toy):
    """What is called stable begins all that is shown after it, the Final too."""
    stable, were_stable = "", 0
    for event in events_of(toy, noise(6, 30.0), [640]):
        if isinstance(event, Partial | Final):
            assert event.text.startswith(stable)
        if isinstance(event, Partial):
            assert event.text.startswith(event.stable)
            assert event.stable.startswith(stable)
            stable = event.stable
            were_stable += bool(stable)
        elif isinstance(event, Final):
            stable = ""
    assert were_stable


def test_who_does_not_read_along_misses_nothing_else(toy):
    """Also where somebody begins to read along in the middle."""
    audio = noise(6, 30.0)
    quiet, half = toy.stream(partials=False), toy.stream(partials=False)
    finals = [event for event in events_of(toy, audio, [640]) if isinstance(event, Final)]
    assert len(finals) > 1
    assert [*quiet.accept(audio), *quiet.finish()] == finals
    events = half.accept(audio[: len(audio) // 2])
    assert all(isinstance(event, Final) for event in events)
    half.partials = True
    rest = [*half.accept(audio[len(audio) // 2 :]), *half.finish()]
    assert any(isinstance(event, Partial) for event in rest)
    assert [event for event in (*events, *rest) if isinstance(event, Final)] == finals


@pytest.mark.slow
def test_speech_without_a_pause_ends_and_its_stream_does_not_grow(toy):
    stream = toy.stream(endpoint=[LAST_RESORT])
    sizes, longest = [], 0.0
    for minute in range(4):
        events = stream.accept(noise(minute, 60.0))
        longest = max([longest, *(event.end_s - event.start_s for event in events if isinstance(event, Final))])
        sizes.append(len(stream.snapshot()))
    assert 0.0 < longest <= LAST_RESORT.utterance_s + 1.0
    assert max(sizes) < 3 * sizes[0]


def test_endpoint_rules_can_change_while_a_stream_runs(toy):
    audio = noise(7, 20.0)
    stream = toy.stream(endpoint=())
    events = stream.accept(audio)
    assert not any(isinstance(event, Final) for event in events)
    stream.endpoint = (streamasr.EndpointRule(0.0),)
    assert any(isinstance(event, Final) for event in stream.accept(audio))


def test_a_snapshot_keeps_the_rules(toy):
    stream = toy.stream(endpoint=(streamasr.EndpointRule(0.3, 2.0),))
    assert toy.stream(stream.snapshot()).endpoint == stream.endpoint
    assert toy.stream(stream.snapshot(), endpoint=()).endpoint == ()


def test_no_partial_speaks_of_time_past_the_end(toy):
    for length in (1, 640, 5000, 12345):
        events = events_of(toy, noise(15, 1.0)[:length], [10**9])
        assert all(event.end_s <= -(-length // 640) * 640 / 16000 for event in events)


def test_cutting_utterances_loses_no_letter(toy):
    audio = noise(8, 20.0)
    whole = "".join(f.text for f in events_of_rules(toy, audio, ()))
    cut = "".join(f.text for f in events_of_rules(toy, audio, (streamasr.EndpointRule(0.12),)))
    if toy.tokens == toy.bundle.head("letters")[1]:  # words depend on those before them, letters do not
        assert cut.replace(" ", "") == whole.replace(" ", "")
    assert len(cut) >= 0.7 * len(whole)


def events_of_rules(toy: streamasr.Recognizer, audio: np.ndarray, rules: tuple) -> list[Final]:
    stream = toy.stream(endpoint=rules)
    return [event for event in [*stream.accept(audio), *stream.finish()] if isinstance(event, Final)]


def test_a_gap_moves_the_clock(toy):
    audio = noise(9, 3.0)
    stream = toy.stream()
    events = stream.accept(audio)
    gap = stream.lost(16000 * 3600)
    assert gap[0] == Gap(3.0, 3603.0)
    events += gap[1:] + stream.accept(audio) + stream.finish()
    finals = [event for event in events if isinstance(event, Final)]
    assert finals[0].start_s < 3.1
    assert 3602.0 < finals[-1].end_s <= 3606.0 + 1e-9


def test_a_short_gap_is_heard_as_silence(toy):
    audio = noise(10, 2.0)
    stream = toy.stream()
    events = stream.accept(audio) + [e for e in stream.lost(3000) if not isinstance(e, Gap)]
    events += stream.accept(audio) + stream.finish()
    glued = np.concatenate([audio, np.zeros(3000, np.float32), audio])
    assert events == events_of(toy, glued, [10**9])


def test_gaps_at_another_rate_keep_the_count(toy):
    stream = toy.stream()
    stream.accept(noise(11, 1.0, 44100), 44100)
    assert stream.lost(441000)[0] == Gap(1.0, 11.0)
    assert stream.lost(44100)[0] == Gap(11.0, 12.0)


def test_no_word_lasts_as_long_as_a_gap(toy):
    audio = noise(9, 4.0)
    for cut in range(8000, 48000, 4000):
        stream = toy.stream()
        events = stream.accept(audio[:cut]) + stream.lost(16000 * 3600) + stream.accept(audio[cut:]) + stream.finish()
        words = [word for event in events if isinstance(event, Final) for word in event.words]
        assert all(word.end_s - word.start_s < 3.0 for word in words)


def test_a_rate_is_any_whole_number(toy):
    audio = noise(15, 1.0, 8000)
    for rate in (8000.0, np.int64(8000), np.float32(8000)):
        stream = toy.stream()
        events = stream.accept(audio, rate)
        stream = toy.stream(stream.snapshot())
        events += stream.finish()
        assert [e.text for e in events] == [e.text for e in events_of(toy, audio, [10**9], 8000)]
    for rate in ("8000", 8000.5, 3000, 0, float("nan")):
        with pytest.raises(streamasr.AudioError, match="Hz"):
            toy.stream().accept(audio, rate)
    with pytest.raises(streamasr.AudioError, match="whole number"):
        toy.stream().lost(1600.5)


def test_many_gaps_cost_no_memory(toy):
    stream = toy.stream()
    for _ in range(100):
        stream.lost(16000 * 60)
        stream.accept(noise(0, 0.5))
    assert stream.lost(0)[0].start_s == 100 * 60.5
    assert len(stream._state.jumps) < 70


def test_two_streams_of_one_recogniser_do_not_meet(toy):
    a, b = noise(12, 3.0), noise(13, 3.0)
    streams, events = [toy.stream(), toy.stream()], [[], []]
    for start in range(0, len(a), 700):
        for i, audio in enumerate((a, b)):
            events[i] += streams[i].accept(audio[start : start + 700])
    for i, audio in enumerate((a, b)):
        assert events[i] + streams[i].finish() == events_of(toy, audio, [10**9])


def test_streams_that_are_stepped_together_hear_what_each_hears_alone(toy):
    audio = [noise(seed, seconds) for seed, seconds in ((1, 3.0), (2, 5.0), (3, 4.1))]
    streams = [toy.stream() for _ in audio]
    found: list[list] = [[] for _ in audio]
    for start in range(0, 80000, 3000):  # ever other numbers of blocks are ready, at last of one stream alone
        pieces = [a[start : start + 3000 - 700 * i] for i, a in enumerate(audio)]
        for events, new in zip(found, toy.accept(streams, pieces), strict=True):
            events += new
    for i, (stream, events, whole) in enumerate(zip(streams, found, audio, strict=True)):
        heard = np.concatenate([whole[start : start + 3000 - 700 * i] for start in range(0, 80000, 3000)])
        expected = events_of(toy, heard, [len(heard)])
        found_now = events + stream.finish()
        shown = [(type(e), e.text, e.start_s, e.end_s) for e in found_now if isinstance(e, Final)]
        assert shown == [(type(e), e.text, e.start_s, e.end_s) for e in expected if isinstance(e, Final)]


def test_only_streams_of_one_recogniser_are_stepped_together(toy):
    other = streamasr.load(TOY)
    with pytest.raises(streamasr.StreamError, match="different streams of one recogniser"):
        toy.accept([toy.stream(), other.stream()], [noise(0, 1.0)] * 2)
    stream = toy.stream()
    with pytest.raises(streamasr.StreamError, match="different streams of one recogniser"):
        toy.accept([stream, stream], [noise(0, 1.0)] * 2)
    with pytest.raises(streamasr.StreamError, match="0 pieces for 1 streams"):
        toy.accept([stream], [])
    assert toy.accept([], []) == []


def test_nothing_in_nothing_out(toy):
    stream = toy.stream()
    assert stream.accept(np.zeros(0, np.float32)) == []
    assert stream.finish() == []
    assert toy.stream().finish() == []


def test_misuse_is_refused_in_words(toy):
    stream = toy.stream()
    stream.accept(np.zeros(100, np.float32), 8000)
    with pytest.raises(streamasr.AudioError, match="got audio of 16000 Hz in a stream of 8000 Hz"):
        stream.accept(np.zeros(100, np.float32), 16000)
    with pytest.raises(streamasr.AudioError, match="nan"):
        stream.accept(np.full(10, np.nan, np.float32))
    with pytest.raises(streamasr.AudioError, match="-1"):
        stream.lost(-1)
    stream.finish()
    for call in (lambda: stream.accept(np.zeros(1)), stream.finish, stream.snapshot, lambda: stream.lost(1)):
        with pytest.raises(streamasr.StreamError, match="finished"):
            call()
    for junk in (b"", b"junk", toy.stream().snapshot()[:-100]):
        with pytest.raises(streamasr.StreamError, match="not a snapshot"):
            toy.stream(junk)


def test_a_piece_that_is_refused_is_refused_for_all(toy):
    audio = noise(14, 1.0)
    one, other = toy.stream(), toy.stream()
    before = one.snapshot()
    for pieces, rate, says in (
        ([audio], None, "1 pieces for 2 streams"),
        ([audio, np.full(3, np.nan)], None, "nan"),
        ([audio, audio], 100, "Hz"),
    ):
        with pytest.raises(streamasr.StreamasrError, match=says):
            toy.accept([one, other], pieces, rate)
        assert one.snapshot() == before
    other.finish()
    with pytest.raises(streamasr.StreamError, match="finished"):
        toy.accept([one, other], [audio, audio])
    assert one.snapshot() == before


def test_letters_take_no_language_model(toy):
    with pytest.raises(streamasr.BundleError, match=r"only letters; do without my\.lm"):
        streamasr.Recognizer(dataclasses.replace(toy.bundle, search=None), lm=Path("my.lm"))


def test_a_refused_piece_leaves_the_stream_as_it_was(toy):
    audio = noise(14, 2.0)
    stream = toy.stream()
    events = stream.accept(audio[:10000])
    with pytest.raises(streamasr.AudioError):
        stream.accept(np.array([np.inf], np.float32))
    events += stream.accept(audio[10000:]) + stream.finish()
    assert events == events_of(toy, audio, [10**9])


def test_an_utterance_that_nobody_said_is_taken_back(toy):
    tuning = {name: Tuning(silence=-1e9) for name in toy.bundle.tuning}  # nothing is that far from silence
    bundle = dataclasses.replace(toy.bundle, tuning=tuning)
    doubtful = streamasr.Recognizer(bundle, greedy=toy.tokens == bundle.head("letters")[1])
    events = events_of(doubtful, noise(0, 20.0), [640])
    assert not any(isinstance(event, Final) for event in events)
    partials = [event for event in events if isinstance(event, Partial)]
    assert partials
    assert partials[-1].text == ""
    assert not any(event.stable for event in partials)
    finals = [event for event in events_of(toy, noise(0, 20.0), [640]) if isinstance(event, Final)]
    assert sum(event.text == "" for event in partials) == len(finals)
