"""`streamasr live`: partial text that settles into final text, on a terminal or in a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from streamasr.bundle import EndpointRule
from streamasr.events import Event, Final, Gap, Partial
from streamasr.recognizer import Recognizer
from streamasr.signals import heard_by
from streamasr.sources import Lost, Microphone

CLEAR = "\r\x1b[K"
DIM, NORMAL = "\x1b[2m", "\x1b[0m"  # what may still be taken back, and what not


class Screen:
    """Finals go to `out`, a line each; partials rewrite the last line where `out` is a terminal."""

    def __init__(self, out: TextIO, notes: TextIO) -> None:
        self._out = out
        self._notes = notes
        self._live = out.isatty()
        self._open = False  # a partial stands on the line,
        self._partial: Partial | None = None  # this one

    def show(self, events: Sequence[Event]) -> None:
        """Print what is new."""
        for event in events:
            if isinstance(event, Final):
                self._clear()
                self._partial = None
                self._out.write(event.text + "\n")
            elif isinstance(event, Gap):
                self._clear()
                self._notes.write(f"[{event.end_s - event.start_s:.2f} s of sound lost at {event.start_s:.1f} s]\n")
                self._notes.flush()
                self._draw()
            elif isinstance(event, Partial) and self._live:
                self._clear()
                self._partial = event
                self._draw()
        self._out.flush()

    def _draw(self) -> None:
        if self._partial is None:
            return
        width = max(shutil.get_terminal_size().columns - 1, 8)
        text, sure = self._partial.text, len(self._partial.stable)
        if len(text) > width:  # the end is what changes
            text, sure = "…" + text[1 - width :], max(sure - (len(text) - width), 0)
        self._out.write(text[:sure] + (DIM + text[sure:] + NORMAL if text[sure:] else ""))
        self._open = True

    def close(self) -> None:
        """Leave the terminal on a clean line."""
        self._clear()
        self._out.flush()

    def _clear(self) -> None:
        if self._open:
            self._out.write(CLEAR)
            self._open = False


@contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and a termination call `stop`, so that the last words can be printed; a second one interrupts at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop()

    with heard_by(ask, even_ignored=True):  # nothing else would end what runs in the background
        yield


def run(
    recognizer: Recognizer,
    microphone: Microphone,
    endpoint: Sequence[EndpointRule] | None = None,
    hotwords: Mapping[str, float] | None = None,
) -> int:
    """Listen until asked to stop or until the microphone is gone; the last words are always printed.

    endpoint: rules in place of the model's.
    """
    screen = Screen(sys.stdout, sys.stderr)
    stream = recognizer.stream(endpoint=endpoint, hotwords=hotwords)
    try:
        with microphone, stop_signals(microphone.stop):
            try:
                for number, item in enumerate(microphone):
                    if number == 0 and sys.stderr.isatty():  # not before: sound servers take their time to start
                        print(f"Listening to {microphone.name} at {microphone.rate} Hz; Ctrl-C ends.", file=sys.stderr)
                    if isinstance(item, Lost):
                        screen.show(stream.lost(item.samples, microphone.rate))
                    else:
                        screen.show(stream.accept(item, microphone.rate))
            finally:
                screen.show(stream.finish())
    finally:
        screen.close()
    return 0
