"""`streamasr live` with a microphone that is played: what stands on the screen, and what happens when it vanishes."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import streamasr
from streamasr import terminal
from streamasr.events import Final, Gap, Partial
from streamasr.signals import heard_by
from streamasr.sources import Lost
from tests.test_stream import noise, toy  # noqa: F401


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Played:
    """A microphone that yields what it is given, and then does `at_end`."""

    name, rate = "played", 16000

    def __init__(self, items: list, at_end=None) -> None:
        self.items, self.at_end, self.closed = items, at_end, False

    def __enter__(self):
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator:
        for item in self.items:
            if self.closed:
                return
            yield item
        if self.at_end:
            self.at_end()

    def close(self) -> None:
        self.closed = True

    stop = close


def pieces(audio: np.ndarray) -> list[np.ndarray]:
    return [audio[i : i + 640] for i in range(0, len(audio), 640)]


def test_finals_in_a_pipe_are_the_file_s(toy, capsys):  # noqa: F811
    audio = noise(0, 8.0)
    assert terminal.run(toy, Played(pieces(audio))) == 0
    assert capsys.readouterr().out == toy.transcribe(audio).text + "\n"


def test_partials_are_rewritten_on_a_terminal_and_finals_stay():
    out, notes = Terminal(), io.StringIO()
    screen = terminal.Screen(out, notes)
    screen.show([Partial("he", 0.0, 0.1), Partial("hello", 0.0, 0.4)])
    screen.show([Final("hello you", (), 0.0, 1.0), Gap(1.0, 1.5)])
    screen.close()
    assert out.getvalue() == "\x1b[2mhe\x1b[0m\r\x1b[K\x1b[2mhello\x1b[0m\r\x1b[Khello you\n"
    assert notes.getvalue() == "[0.50 s of sound lost at 1.0 s]\n"


def test_a_partial_stands_again_after_a_gap_but_not_after_its_final():
    out = Terminal()
    screen = terminal.Screen(out, io.StringIO())
    screen.show([Partial("he", 0.0, 0.1, stable="he"), Gap(0.1, 0.2)])
    assert out.getvalue() == "he\r\x1b[Khe"
    screen.show([Final("he", (), 0.0, 0.1), Gap(1.0, 1.5)])
    assert out.getvalue() == "he\r\x1b[Khe\r\x1b[Khe\n"


def test_a_long_partial_shows_its_end(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    screen = terminal.Screen(out, io.StringIO())
    screen.show([Partial("a very long sentence that goes on and on", 0.0, 9.0)])
    assert out.getvalue() == "\x1b[2m…hat goes on and on\x1b[0m"  # one column stays free for the cursor
    screen.close()
    assert out.getvalue().endswith("\r\x1b[K")


def test_what_is_certain_is_not_dimmed(monkeypatch):
    out = Terminal()
    terminal.Screen(out, io.StringIO()).show([Partial("he is here", 0.0, 1.0, stable="he")])
    assert out.getvalue() == "he\x1b[2m is here\x1b[0m"
    monkeypatch.setenv("COLUMNS", "10")
    out = Terminal()
    terminal.Screen(out, io.StringIO()).show([Partial("he is here today", 0.0, 1.0, stable="he is here")])
    assert out.getvalue() == "…re\x1b[2m today\x1b[0m"


def test_lost_audio_is_reported(toy, capsys):  # noqa: F811
    audio = noise(1, 2.0)
    assert terminal.run(toy, Played([Lost(8000), *pieces(audio), Lost(16000)])) == 0
    errors = capsys.readouterr().err
    assert "[0.50 s of sound lost at 0.0 s]" in errors
    assert "[1.00 s of sound lost at 2.5 s]" in errors


def test_a_microphone_that_vanishes_leaves_the_last_words(toy, capsys):  # noqa: F811
    def vanish() -> None:
        raise streamasr.DeviceError("microphone 'played' is gone: the device stopped; plug it in again and restart")

    audio = noise(2, 4.0)
    with pytest.raises(streamasr.DeviceError):
        terminal.run(toy, Played(pieces(audio), vanish))
    assert capsys.readouterr().out == toy.transcribe(audio).text + "\n"


def test_an_interrupt_stops_listening_and_prints_the_last_words(toy, capsys):  # noqa: F811
    audio = noise(3, 2.0)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.05)

    before = signal.getsignal(signal.SIGINT)
    assert terminal.run(toy, Played(pieces(audio), interrupt)) == 0
    assert capsys.readouterr().out == toy.transcribe(audio).text + "\n"
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("even_ignored", [False, True])
def test_an_interrupt_that_a_shell_ignores_for_what_runs_beside_it(even_ignored):
    asked = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard_by(lambda number, frame: asked.append(number), even_ignored):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert asked == [signal.SIGINT, signal.SIGTERM][not even_ignored :]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
