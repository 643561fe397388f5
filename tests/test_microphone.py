"""Microphones with a paced fake in place of PortAudio, and the finding of gaps without any clock."""

import itertools
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamasr.cli import main
from streamasr.errors import DeviceError
from streamasr.sources import Lost, list_devices, open_microphone
from streamasr.sources.gaps import CONFIRM_BLOCKS, Block, GapFinder


class PortAudioError(Exception):
    pass


class FakeStream:
    """Calls back with counting samples, `speed` times faster than real time, as the script says block by block."""

    def __init__(self, backend, *, samplerate, blocksize, channels, dtype, callback, device):
        backend.opened.append((device, samplerate, channels, dtype))
        if (channels, dtype) not in backend.takes:
            raise PortAudioError("Invalid number\n of channels")
        self.backend, self.callback = backend, callback
        self.shape, self.dtype, self.rate = (blocksize, channels), dtype, samplerate
        self.active = self.closed = False

    def start(self):
        self.active = True
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        position = self.sent = 0
        for step in self.backend.script:
            if self.closed:
                break
            position += step.get("gap", 0)
            frames = np.arange(position, position + self.shape[0])
            scale = 2**15 if self.dtype == "int16" else 1
            samples = np.repeat((frames % 1000)[:, None] / 1000 * scale, self.shape[1], 1).astype(self.dtype)
            adc = 100 + position / self.rate + step.get("late", 0)
            times = SimpleNamespace(inputBufferAdcTime=adc + step.get("adc", 0), currentTime=adc + 0.1)
            if "nan" in step:
                samples[: step["nan"]] = np.nan
            self.callback(samples, self.shape[0], times, SimpleNamespace(input_overflow=step.get("overflow", False)))
            samples[:] = 77  # PortAudio uses its buffer again
            position += self.shape[0]
            self.sent += 1
            time.sleep(self.shape[0] / self.rate / self.backend.speed)
        self.active = self.backend.stays_active and not self.closed

    def close(self, ignore_errors=True):
        self.closed = True
        self.active = False
        self.thread.join()


class Fake:
    PortAudioError = PortAudioError
    devices = (
        ("Monitor", 0, 48000.0),
        ("USB Microphone", 1, 48000.0),
        ("Built-in Microphone", 2, 44100.0),
        ("Webcam", 2, 16000.0),
    )

    def __init__(self, script=(), default=3, takes=((1, "float32"),), speed=200, stays_active=False):
        self.script, self.takes, self.speed, self.stays_active = script, takes, speed, stays_active
        self.default = SimpleNamespace(device=[default, 0])
        self.opened = []

    def query_devices(self):
        return [{"name": n, "max_input_channels": c, "default_samplerate": r} for n, c, r in self.devices]

    def InputStream(self, **options):  # noqa: N802
        return FakeStream(self, **options)


def listen(fake, device=None, **options):
    """All items until the fake's script is over."""
    items = []
    with open_microphone(device, fake, **options) as microphone, pytest.raises(DeviceError, match="is gone") as caught:
        items.extend(microphone)
    assert "\n" not in str(caught.value)
    return items


def samples_of(items):
    return np.concatenate([i for i in items if not isinstance(i, Lost)])


def test_devices():
    found = list_devices(Fake())
    assert [d.index for d in found] == [1, 2, 3]
    assert str(found[0]) == "1: USB Microphone (48000 Hz, 1 ch)"


@pytest.mark.parametrize(
    ("wanted", "index"), [(None, 3), (2, 2), ("2", 2), ("usb", 1), (" WEBCAM ", 3), ("built-in mic", 2)]
)
def test_choice(wanted, index):
    fake = Fake([{}])
    listen(fake, wanted)
    rate = int(Fake.devices[index][2])
    assert fake.opened == [(index, rate, 1, "float32")]  # at its own rate


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("microphone", "fits several microphones.*1: USB Microphone.*2: Built-in"),
        ("piano", "named like 'piano'.*1: USB Microphone.*3: Webcam"),
        (0, "has the number 0.*1: USB"),
        ("17", "has the number 17"),
    ],
)
def test_choice_that_fits_none_or_many(wanted, message):
    with pytest.raises(DeviceError, match=message):
        open_microphone(wanted, Fake())


def test_no_devices():
    fake = Fake(default=-1)
    with pytest.raises(DeviceError, match="no default microphone; choose one of: 1: USB"):
        open_microphone(None, fake)
    fake.devices = ()
    with pytest.raises(DeviceError, match="no microphone was found"):
        open_microphone(None, fake)


def test_the_list_of_no_devices_is_no_success(monkeypatch, capsys):
    monkeypatch.setattr("streamasr.sources.list_devices", list)
    assert main(["devices"]) == 1
    assert "no microphone was found; plug one in" in capsys.readouterr().err


@pytest.mark.parametrize("takes", [(1, "float32"), (1, "int16"), (2, "float32"), (2, "int16")])
def test_formats(takes):
    items = listen(Fake([{}] * 5, takes=[takes]))
    expected = np.arange(5 * 640) % 1000 / 1000
    assert samples_of(items).dtype == np.float32
    assert np.abs(samples_of(items) - expected).max() < 1e-4
    assert not any(isinstance(i, Lost) for i in items)


def test_device_that_cannot_be_opened():
    with pytest.raises(DeviceError, match="'Webcam' cannot be opened at 16000 Hz: Invalid number of channels"):
        open_microphone(None, Fake(takes=[]))


def test_jitter_and_leaping_converter_clock_are_no_gap():
    late = [0.0] * 10 + [0.3, 0.26, 0.22, 0.1, 0.0] + [0.0] * 5  # a late process, then a burst
    script = [{"late": x} for x in late] + [{"adc": 0.19}] * 20  # PulseAudio shortens its buffer
    items = listen(Fake(script))
    assert not any(isinstance(i, Lost) for i in items)
    assert len(samples_of(items)) == 40 * 640


def test_gap_without_flag_is_found_where_it_is():
    items = listen(Fake([{}] * 10 + [{"gap": 10528}] + [{}] * 10))  # 658 ms
    assert [i for i, item in enumerate(items) if isinstance(item, Lost)] == [10]
    assert abs(items[10].samples - 10528) < 160
    assert len(samples_of(items)) == 21 * 640


def test_a_block_that_holds_no_numbers_is_lost():
    items = listen(Fake([{}] * 5 + [{"nan": 3}] + [{}] * 5))
    assert [i for i, item in enumerate(items) if isinstance(item, Lost)] == [5]
    assert items[5] == Lost(640)


def test_overflow_flag():
    items = listen(Fake([{}] * 10 + [{"overflow": True, "gap": 800}] + [{}] * 10))
    assert [i for i, item in enumerate(items) if isinstance(item, Lost)] == [10]
    assert abs(items[10].samples - 800) < 160


def test_slow_reader_is_told_what_it_lost():
    fake = Fake([{}] * 300, speed=2000)
    with open_microphone(None, fake) as microphone:
        microphone._stream.thread.join()
        items = []
        with pytest.raises(DeviceError):
            items.extend(microphone)
    assert len(samples_of(items)) == 250 * 640  # ten seconds wait
    assert items[-1] == Lost(50 * 640)


def test_slow_reader_that_catches_up():
    hurry = threading.Event()

    def script():
        yield from [{}] * 260
        hurry.wait(5)
        yield from [{}] * 20

    fake = Fake(script(), speed=2000)
    with open_microphone(None, fake) as microphone:
        while microphone._dropped < 10 * 640:
            time.sleep(0.01)
        iterator = iter(microphone)
        items = list(itertools.islice(iterator, 100))
        hurry.set()
        with pytest.raises(DeviceError):
            items.extend(iterator)
    assert items[250] == Lost(10 * 640)
    assert len(items) == 250 + 1 + 20


def test_silent_device():
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"'Webcam' is gone: nothing came for 0\.\d s; plug it in again"):
        list(_first_then_all(Fake([{}] * 3, stays_active=True)))
    assert time.monotonic() - started < 3


def _first_then_all(fake):
    with open_microphone(None, fake, stall_s=0.3) as microphone:
        yield from microphone


def test_close_ends_the_iteration():
    with open_microphone(None, Fake(itertools.repeat({}), speed=10)) as microphone:
        threading.Timer(0.1, microphone.close).start()
        items = list(microphone)
    assert len(items) == microphone._stream.sent


def test_without_portaudio(tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import streamasr.sources as s\n"
        "assert not {'sounddevice', 'av', 'torch'} & set(sys.modules)\n"
        "try: s.list_devices()\nexcept s.microphone.DeviceError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "apt-get install libportaudio2" in done.stdout


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_gap_finder_keeps_every_block_in_order(data):
    finder, out = GapFinder(16000, 640), []
    n = data.draw(st.integers(0, 40))
    for k in range(n):
        clock = data.draw(st.floats(0, 10))
        block = Block(
            np.full(640, k),
            clock,
            clock + data.draw(st.floats(0, 1)),
            data.draw(st.booleans()),
            data.draw(st.sampled_from([0, 0, 640])),
        )
        out += finder.push(block)
        assert len(finder._held) < CONFIRM_BLOCKS
    out += finder.finish()
    assert [int(b.samples[0]) for b in out if isinstance(b, Block)] == list(range(n))
    assert all(b.samples > 0 for b in out if isinstance(b, Lost))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(1500, 50000), st.floats(-5e-4, 5e-4))
def test_gap_finder_with_drift_and_jitter(seed, gap, drift):
    rng = np.random.default_rng(seed)
    finder, out, position = GapFinder(16000, 640), [], 0
    at = int(rng.integers(100, 900))
    for k in range(1000):
        position += gap if k == at else 0
        now = 50 + position / 16000 * (1 + drift)
        out += finder.push(Block(np.full(640, k), now + rng.uniform(0, 0.02), now + rng.uniform(0, 0.05), False, 0))
        position += 640
    lost = [i for i, item in enumerate(out) if isinstance(item, Lost)]
    assert lost == [at] if gap > 1280 + 500 else len(lost) <= 1
    if lost == [at]:
        assert abs(out[at].samples - gap) < 640
