import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamasr.errors import AudioError, StreamError
from streamasr.sources import Resampler, as_mono_float

MODEL_RATE = 16000
RATES = [4000, 8000, 11025, 16000, 22050, 44099, 44100, 48000, 192000]


def noise(n, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def run(resampler, samples, cuts):
    pieces = np.split(samples, sorted(cuts))
    return np.concatenate([*(resampler.push(p) for p in pieces), resampler.finish()])


@pytest.mark.parametrize("rate", RATES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_cutting_changes_nothing(rate, data):
    n = data.draw(st.integers(0, rate // 3))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=20))
    samples = noise(n)
    whole = run(Resampler(rate, MODEL_RATE), samples, [])
    assert np.array_equal(run(Resampler(rate, MODEL_RATE), samples, cuts), whole)
    assert abs(len(whole) - n * MODEL_RATE / rate) <= 1


def test_single_samples_change_nothing():
    samples = noise(3000)
    whole = run(Resampler(44100, MODEL_RATE), samples, [])
    assert np.array_equal(run(Resampler(44100, MODEL_RATE), samples, range(3000)), whole)


@pytest.mark.parametrize("rate", RATES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_restored_goes_on(rate, data):
    n = data.draw(st.integers(1, 3 * rate))
    at = data.draw(st.integers(0, n))
    cuts = data.draw(st.lists(st.integers(0, at), max_size=6))
    samples = noise(n)
    whole = run(Resampler(rate, MODEL_RATE), samples, [])
    resampler = Resampler(rate, MODEL_RATE)
    before = [resampler.push(p) for p in np.split(samples[:at], sorted(cuts))]
    snapshot = resampler.snapshot()
    restored = np.concatenate([*before, run(Resampler.restore(snapshot), samples[at:], [])])
    assert restored.shape == whole.shape
    assert np.max(np.abs(restored - whole), initial=0) < 1e-6
    # taking it changed nothing
    assert np.array_equal(np.concatenate([*before, run(resampler, samples[at:], [])]), whole)


@pytest.mark.parametrize("rate", [11025, 44099, 48000])
def test_restored_again_and_again(rate):
    samples = noise(4 * rate)
    whole = run(Resampler(rate, MODEL_RATE), samples, [])
    resampler, parts = Resampler(rate, MODEL_RATE), []
    for piece in np.array_split(samples, 25):
        parts.append(resampler.push(piece))
        resampler = Resampler.restore(Resampler.restore(resampler.snapshot()).snapshot())
    parts.append(resampler.finish())
    found = np.concatenate(parts)
    assert found.shape == whole.shape
    assert np.abs(found - whole).max() < 1e-6


def test_snapshot_is_short_and_its_own():
    resampler = Resampler(48000, MODEL_RATE)
    for _ in range(30):
        resampler.push(noise(48000))
    snapshot = resampler.snapshot()
    assert 24000 <= len(snapshot["history"]) <= 24003
    kept = snapshot["history"].copy()
    resampler.push(noise(48000, 1))
    assert np.array_equal(snapshot["history"], kept)


def test_a_tone_stays_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(run(Resampler(48000, MODEL_RATE), tone, [])[200:-200] - expected[200:-200]).max() < 1e-3


def test_refuses():
    with pytest.raises(AudioError, match="3000 Hz; expected 4000 to 192000 Hz"):
        Resampler(3000, MODEL_RATE)
    resampler = Resampler(8000, MODEL_RATE)
    snapshot = resampler.snapshot()
    resampler.finish()
    with pytest.raises(StreamError):
        resampler.push(noise(1))
    with pytest.raises(StreamError):
        Resampler.restore({"rate": 8000})
    with pytest.raises(StreamError):
        Resampler.restore({**snapshot, "delivered": -1})


def test_read_only_and_strided_input():
    samples = noise(1000)
    samples.setflags(write=False)
    whole = run(Resampler(8000, MODEL_RATE), samples, [])
    assert np.array_equal(run(Resampler(8000, MODEL_RATE), np.repeat(samples, 2)[::2], [5]), whole)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int16, [0, 16384, -32768], [0, 0.5, -1]),
        (">i2", [0, 16384, -32768], [0, 0.5, -1]),
        (np.int32, [0, 2**30, -(2**31)], [0, 0.5, -1]),
        (np.uint8, [128, 192, 0], [0, 0.5, -1]),
        (np.float32, [0, 0.5, -1], [0, 0.5, -1]),
        (np.float64, [0, 0.5, -1], [0, 0.5, -1]),
    ],
)
def test_kinds_of_samples(dtype, values, expected):
    samples = np.array(values, dtype)
    mono = as_mono_float(samples)
    assert mono.dtype == np.float32
    assert mono.tolist() == expected
    assert as_mono_float(np.stack([samples, samples], 1)).tolist() == expected
    assert not np.shares_memory(mono, samples)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 200), st.data())
def test_mixing_is_done_sample_by_sample(channels, n, data):
    samples = np.random.default_rng(n).uniform(-1, 1, (n, channels)).astype(np.float32)
    cut = data.draw(st.integers(0, n))
    whole = as_mono_float(samples)
    assert np.array_equal(whole, np.concatenate([as_mono_float(samples[:cut]), as_mono_float(samples[cut:])]))
    assert np.array_equal(whole, as_mono_float(np.asfortranarray(samples)))
    assert np.allclose(whole, samples.mean(1), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(5, np.int64), "int64"),
        (np.zeros(5, bool), "bool"),
        (np.zeros(5, np.complex64), "complex64"),
        (["a"], "type"),
        (np.zeros((2, 2, 2), np.float32), "shape"),
        (np.float32(0), "shape"),
        (np.zeros((2, 16000), np.float32), "transpose"),
        (np.array([0, np.nan], np.float32), "sample 1 is nan"),
        (np.array([0, 0, -np.inf]), "sample 2 is -inf"),
        (np.array([1e300]), "inf"),
        (np.array([0.0, 12000.0]), r"sample 1 is 12000; expected numbers in \[-1, 1\]"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_refused_samples(samples, message):
    with pytest.raises(AudioError, match=message) as caught:
        as_mono_float(samples)
    assert "\n" not in str(caught.value)
