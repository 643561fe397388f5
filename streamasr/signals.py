"""Ctrl-C and a termination, heard by somebody for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def heard_by(ask: Callable[[int, Any], None], even_ignored: bool = False) -> Iterator[None]:
    """SIGINT and SIGTERM call `ask`; afterwards what they called before. In the main thread alone, as Python demands.

    even_ignored: also one that the process was started to ignore, as a script's shell does to what runs beside it.
    """
    both = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, ask)
        for number in both
        if even_ignored or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
