"""Microphones, through PortAudio, at their own rate and whatever channels they have."""

from __future__ import annotations

import importlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.errors import AudioError, DeviceError
from streamasr.sources.gaps import Block, GapFinder, Lost
from streamasr.sources.samples import as_mono_float, check_rate

BLOCK_MS = 40  # at 20 ms PulseAudio was seen to lose audio
QUEUE_S = 10.0  # a recogniser that falls further behind loses audio, and is told so
STALL_S = 2.0  # without a block for so long, the device is gone
START_S = 5.0  # the first block may take longer: Bluetooth
WAIT_S = 0.1

NO_MICROPHONE = "no microphone was found; plug one in, and look whether the system lists it"
_NO_PORTAUDIO = (
    "PortAudio was not found; install it: apt-get install libportaudio2 (Debian, Ubuntu, Raspberry Pi OS), "
    "dnf install portaudio (Fedora), brew install portaudio (macOS)"
)


@dataclass(frozen=True)
class Device:
    """A microphone as the system names it."""

    index: int
    name: str
    rate: int
    channels: int

    def __str__(self) -> str:
        return f"{self.index}: {self.name} ({self.rate} Hz, {self.channels} ch)"


def list_devices(backend: Any = None) -> list[Device]:
    """All devices that can record. `backend` stands in for the sounddevice module."""
    backend = backend or _import_backend()
    try:
        found = list(backend.query_devices())
    except backend.PortAudioError as error:
        raise DeviceError(
            f"the sound devices cannot be listed: {_line(error)}; is the sound system running?"
        ) from error
    return [
        Device(index, str(d["name"]), int(d["default_samplerate"]), int(d["max_input_channels"]))
        for index, d in enumerate(found)
        if d["max_input_channels"] > 0
    ]


def open_microphone(device: int | str | None = None, backend: Any = None, stall_s: float = STALL_S) -> Microphone:
    """Start recording from a device: its number, part of its name, or None for the system's default.

    `backend` stands in for the sounddevice module; `stall_s` is how long a running device may say nothing.
    """
    backend = backend or _import_backend()
    return Microphone(_choose(device, list_devices(backend), backend), backend, stall_s)


class Microphone:
    """A recording in progress: iterate for samples (frames,) float32 and Lost, in order, until `close`.

    A device that vanishes raises DeviceError, after everything that it delivered.
    """

    def __init__(self, device: Device, backend: Any, stall_s: float = STALL_S):
        self.name = device.name
        self.rate = check_rate(device.rate, f"microphone '{device.name}'")
        block = self.rate * BLOCK_MS // 1000
        self._stall_s = stall_s
        self._queue: queue.Queue[Block] = queue.Queue(int(QUEUE_S * 1000 / BLOCK_MS))
        self._dropped = 0  # samples that found the queue full; written by the callback only
        self._closed = False
        self._stopping = False
        self._gaps = GapFinder(self.rate, block)
        self._stream = self._open(device, block, backend)

    def close(self) -> None:
        """Stop recording; the iteration ends after what has come already."""
        if not self._closed:
            self._closed = True
            self._stream.close(ignore_errors=True)

    def stop(self) -> None:
        """Ask the iteration to close. For signal handlers: takes no lock."""
        self._stopping = True

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[NDArray[np.float32] | Lost]:
        silent_s = 0.0  # counted in waits, not by a clock: a process or a computer that slept has missed nothing
        patience_s = max(START_S, self._stall_s)
        while True:
            if self._stopping:
                self.close()
            # looked at before the queue: what came before the stream died is in the queue by then
            over = self._closed or not self._stream.active
            try:
                block = self._queue.get(timeout=0 if over else WAIT_S)
            except queue.Empty:
                silent_s += WAIT_S
                if not over and silent_s < patience_s:
                    continue
                yield from self._unpack(self._gaps.finish())
                if self._dropped:
                    yield Lost(self._dropped)
                if self._closed:
                    return
                self.close()
                why = "the device stopped" if over else f"nothing came for {silent_s:.1f} s"
                raise DeviceError(f"microphone '{self.name}' is gone: {why}; plug it in again and restart") from None
            silent_s, patience_s = 0.0, self._stall_s
            yield from self._unpack(self._gaps.push(block))

    def _unpack(self, items: list[Block | Lost]) -> Iterator[NDArray[np.float32] | Lost]:
        for item in items:
            if isinstance(item, Lost):
                yield item
                continue
            try:
                samples = as_mono_float(item.samples, f"microphone '{self.name}'")
            except AudioError:  # a driver's slip, no number: that block never arrived
                yield Lost(len(item.samples))
            else:
                yield samples

    def _callback(self, samples: NDArray[np.generic], frames: int, times: Any, status: Any) -> None:
        """Runs in PortAudio's thread, which must never wait: it only copies."""
        block = Block(
            samples.copy(), times.inputBufferAdcTime, times.currentTime, bool(status.input_overflow), self._dropped
        )
        try:
            self._queue.put_nowait(block)
            self._dropped = 0
        except queue.Full:
            self._dropped += frames

    def _open(self, device: Device, block: int, backend: Any) -> Any:
        """Mono if the device can, else all its channels; the first format that it takes."""
        for channels in dict.fromkeys((1, device.channels)):
            for dtype in ("float32", "int16"):
                stream = None
                try:
                    stream = backend.InputStream(
                        samplerate=self.rate,
                        blocksize=block,
                        device=device.index,
                        channels=channels,
                        dtype=dtype,
                        callback=self._callback,
                    )
                    stream.start()
                    return stream
                except backend.PortAudioError as error:
                    problem = _line(error)
                    if stream is not None:
                        stream.close(ignore_errors=True)
        raise DeviceError(
            f"microphone '{device.name}' cannot be opened at {self.rate} Hz: {problem}; close the program that "
            "uses it, or choose another"
        )


def _choose(wanted: int | str | None, devices: list[Device], backend: Any) -> Device:
    if not devices:
        raise DeviceError(NO_MICROPHONE)
    known = "; ".join(map(str, devices))
    if wanted is None:
        index = int(backend.default.device[0])
        found = [d for d in devices if d.index == index]
        problem = "there is no default microphone"
    elif isinstance(wanted, int) or wanted.strip().isdecimal():
        found = [d for d in devices if d.index == int(wanted)]
        problem = f"no microphone has the number {wanted}"
    else:
        name = wanted.strip().casefold()
        exact = [d for d in devices if d.name.casefold() == name]
        found = exact or [d for d in devices if name in d.name.casefold()]
        problem = f"no microphone is named like '{wanted}'"
    if len(found) > 1:
        raise DeviceError(f"'{wanted}' fits several microphones; choose one number of: {'; '.join(map(str, found))}")
    if not found:
        raise DeviceError(f"{problem}; choose one of: {known}")
    return found[0]


def _import_backend() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except OSError as error:
        raise DeviceError(_NO_PORTAUDIO) from error
    except ImportError as error:
        raise DeviceError("sounddevice is not installed; install it: pip install sounddevice") from error


def _line(error: Exception) -> str:
    """PortAudio's message without line breaks."""
    return " ".join(str(error).split())
