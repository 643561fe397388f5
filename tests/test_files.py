import contextlib
import io
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamasr.errors import AudioError
from streamasr.sources import files, open_file, open_stdin

RATE = 16000


def tone(seconds=1.0, channels=1, rate=RATE):
    t = np.arange(int(seconds * rate)) / rate
    samples = np.stack([0.3 * np.sin(2 * np.pi * (300 + 100 * c) * t) for c in range(channels)], 1)
    return samples.astype(np.float32)


def wav(samples=None, rate=RATE, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone() if samples is None else samples, rate, format="WAV", **options)
    return buffer.getvalue()


def read(source):
    with source:
        chunks = list(source.chunks())
    assert all(c.dtype == np.float32 and c.ndim == 1 for c in chunks)
    assert max(map(len, chunks)) <= max(source.rate * 2.0, 1)
    return np.concatenate(chunks), source


def refused(path):
    """What is said about a file that cannot be used: one line, that names it."""
    with pytest.raises(AudioError) as caught, open_file(path) as source:
        list(source.chunks())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def in_pipe(data):
    return io.BufferedReader(Trickle(data))


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time, and cannot seek."""

    def __init__(self, data, step=777):
        self.data, self.step = data, step

    def readable(self):
        return True

    def readinto(self, buffer):
        n = min(self.step, len(buffer), len(self.data))
        buffer[:n], self.data = self.data[:n], self.data[n:]
        return n


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_wav_as_libsndfile_reads_it(tmp_path, channels, subtype, form):
    if subtype == "IMA_ADPCM" and (channels > 2 or form == "WAVEX"):
        pytest.skip("libsndfile does not write it")
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5, channels), RATE, format=form, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].astype(float).mean(1).astype(np.float32)
    for source in (open_file(path), open_stdin(None, in_pipe(path.read_bytes()))):
        samples, source = read(source)
        assert (source.rate, source.seconds, source.warnings) == (RATE, len(expected) / RATE, [])
        assert np.allclose(samples, expected, atol=1e-7)
        if channels == 1:
            assert np.array_equal(samples, expected)


def test_a_pipe_is_not_waited_for():
    data = wav(tone(1.0))
    for source in (open_stdin(None, in_pipe(data)), open_stdin(RATE, in_pipe(data[44:]))):
        with source:
            assert max(map(len, source.chunks())) <= 0.2 * RATE


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.flac", {}),
        ("a.mp3", {}),
        ("a.ogg", {}),
        ("opus.ogg", {"format": "OGG", "subtype": "OPUS"}),
        ("a.aiff", {}),
        ("a.au", {}),
        ("a.caf", {}),
        ("a.w64", {}),
        ("a.rf64", {}),
    ],
)
def test_other_formats(tmp_path, name, options):
    path = tmp_path / name
    soundfile.write(path, tone(2, 2), RATE, **options)
    expected = soundfile.read(path, dtype="float32")[0].mean(1)
    for source in (open_file(str(path)), open_stdin(None, in_pipe(path.read_bytes()))):
        samples, source = read(source)
        assert source.warnings == []
        assert source.seconds == 2
        assert np.allclose(samples, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "mu.wav", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_files_are_read_as_far_as_they_go(tmp_path, name, part):
    path = tmp_path / name
    samples = tone(10) + np.random.default_rng(0).uniform(
        -0.1, 0.1, (10 * RATE, 1)
    )  # Ogg packs a mere tone in one page
    soundfile.write(path, samples, RATE, subtype="ULAW" if name == "mu.wav" else None)
    whole, _ = read(open_file(path))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    samples, source = read(open_file(path))
    assert 0.5 * part * len(whole) < len(samples) < len(whole)
    assert np.allclose(samples[:-2000], whole[: len(samples) - 2000], atol=1e-3)
    (warning,) = source.warnings
    length = "unknown length" if name == "a.ogg" else "10.00 s"
    assert warning.startswith(f"{path}: ends after {len(samples) / RATE:.2f} s of {length}")


def test_damage_in_the_middle(tmp_path):
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 5 * RATE)
    soundfile.write(path, noise, RATE)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = np.random.default_rng(1).bytes(20000)
    path.write_bytes(data)
    samples, source = read(open_file(path))
    assert len(samples) < 3 * RATE
    assert "of 5.00 s: truncated or damaged" in source.warnings[0]


def test_cut_wav_from_a_pipe():
    samples, source = read(open_stdin(None, in_pipe(wav()[:20001])))
    assert len(samples) == (20001 - 44) // 2
    assert source.warnings == ["standard input: ends after 0.62 s of 1.00 s: truncated or damaged"]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF - 36, 0x80000000])
def test_wav_of_unknown_length(tmp_path, size):
    data = bytearray(wav())
    data[40:44] = struct.pack("<I", size)
    samples, source = read(open_stdin(None, in_pipe(bytes(data))))
    assert (len(samples), source.seconds, source.warnings) == (RATE, None, [])
    path = tmp_path / "never finished.wav"
    path.write_bytes(data)
    samples, source = read(open_file(path))
    assert (len(samples), source.seconds, source.warnings) == (RATE, 1.0, [])


def test_chunks_around_the_samples():
    data = wav()
    extra = struct.pack("<4sI", b"LIST", 5) + b"hello\0"
    data = data[:12] + extra + data[12:] + extra
    samples, _ = read(open_stdin(None, in_pipe(data)))
    assert np.array_equal(samples, read(open_stdin(None, in_pipe(wav())))[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(1, 5000), st.sampled_from([4000, 44100, 192000]))
def test_pieces_of_a_pipe_change_nothing(step, frames, rate):
    samples = tone(1, 2)[:frames]
    expected, _ = read(open_stdin(None, in_pipe(wav(samples, rate, subtype="PCM_24"))))
    trickle = io.BufferedReader(Trickle(wav(samples, rate, subtype="PCM_24"), step))
    found, source = read(open_stdin(None, trickle))
    assert source.rate == rate
    assert np.array_equal(found, expected)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_headers_are_refused_or_read(tmp_path, data):
    damaged = bytearray(wav(tone(0.01)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 47))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.wav"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(AudioError), open_file(path) as source:
        list(source.chunks())


def test_raw_samples():
    values = np.arange(-RATE, RATE, dtype="<i2")
    samples, source = read(open_stdin(8000, in_pipe(values.tobytes() + b"x")))
    assert source.rate == 8000
    assert source.seconds is None
    assert np.array_equal(samples, values / np.float32(32768))
    with pytest.raises(AudioError, match="standard input: 3000 Hz"):
        open_stdin(3000, in_pipe(b""))
    with pytest.raises(AudioError, match="standard input: holds 0 samples"):
        read(open_stdin(8000, in_pipe(b"")))
    with pytest.raises(AudioError, match="standard input: is empty"):
        open_stdin(None, in_pipe(b""))
    with pytest.raises(AudioError, match="standard input: "):
        open_stdin(None, in_pipe(b"hello\n" * 1000))


@pytest.mark.parametrize("rate", [None, RATE])
def test_standard_input_is_passed_on_as_it_arrives(rate):
    receive, send = os.pipe()
    data = wav()
    with os.fdopen(send, "wb", buffering=0) as pipe:
        pipe.write(data[44 if rate else 0 : 44 + 640])
        with open_stdin(rate, os.fdopen(receive, "rb")) as source:
            chunks = source.chunks()
            assert len(next(chunks)) == 320  # while the other end is still open
            pipe.write(data[44 + 640 : 44 + 1280])
            assert len(next(chunks)) == 320


def test_real_standard_input():
    program = "from streamasr.sources import open_stdin as o; print(sum(map(len, o().chunks())))"
    done = subprocess.run([sys.executable, "-c", program], input=wav(), capture_output=True, check=True)
    assert done.stdout.split() == [b"16000"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(wav(),))
    thread.start()
    samples, source = read(open_file(path))
    thread.join()
    assert len(samples) == RATE
    assert source.name == str(path)


def test_what_is_no_audio(tmp_path):
    path = tmp_path / "a.wav"
    assert "no such file" in refused(path)
    assert "is a directory" in refused(tmp_path)
    path.write_bytes(b"")
    assert "is empty (0 bytes)" in refused(path)
    path.write_bytes(b"hello, world\n" * 500)
    refused(path)
    path.write_bytes(np.random.default_rng(0).bytes(30000))
    refused(path)
    path.write_bytes(wav(np.zeros(0)))
    assert "holds 0 samples" in refused(path)
    path.write_bytes(wav()[:44])
    assert "holds 0 samples" in refused(path)
    path.write_bytes(wav()[:30])
    assert "takes 10 bytes" in refused(path)
    path.write_bytes(wav()[:40])
    assert "ends before its samples" in refused(path)


@pytest.mark.parametrize("rate", [0, 3000, 3999, 192001])
@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_rates(tmp_path, rate, subtype):
    path = tmp_path / "a.wav"
    data = bytearray(wav(subtype=subtype))
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    assert refused(path).endswith(f"{rate} Hz; expected 4000 to 192000 Hz; resample it")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav())
    path.chmod(0)
    assert "cannot be read: Permission denied" in refused(path)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (-np.inf, "-inf"), (9000, "9000")])
def test_bad_samples(tmp_path, channels, value, word):
    samples = tone(2, channels)
    samples[20000:20010] = value
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert f"the sample at 1.2500 s is {word}; expected" in refused(path)


def test_loud_float_samples_are_kept(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone() * 5, RATE, subtype="FLOAT")
    assert read(open_file(tmp_path / "a.wav"))[0].max() > 1.4


class Interrupted(io.BytesIO):
    """Its reads go wrong from the nth on."""

    left, error = 0, None

    def readinto(self, buffer):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().readinto(buffer)


def interrupted(form, reads, error):
    """A minute of noise, of which so many pieces can be read."""
    file = Interrupted()
    samples = np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32) * 0.1
    soundfile.write(file, samples, RATE, format=form)
    file.seek(0)
    file.left, file.error = reads, error
    return file


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("reads", [0, 1, 9])
def test_an_interrupt_within_libsndfile_is_heeded(form, reads, capsys):
    """Its callbacks would lose it, and end the file there."""
    whole = sum(map(len, files._open_seekable(interrupted(form, 10**9, None), "a").chunks()))
    heard = []
    with pytest.raises(KeyboardInterrupt):
        heard.extend(map(len, files._open_seekable(interrupted(form, reads, KeyboardInterrupt()), "a").chunks()))
    assert sum(heard) < whole
    assert capsys.readouterr().err == ""


def test_a_medium_that_fails_within_libsndfile_is_named():
    file = interrupted("FLAC", 20, OSError(5, "Input/output error"))
    with pytest.raises(AudioError, match="a: cannot be read to its end: Input/output error"):
        list(files._open_seekable(file, "a").chunks())
