"""Ctrl-C and a termination, heard by somebody for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def heard_by(ask: Callable[[int, Any], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `ask`, but for one that is ignored; afterwards what they called before.

    In the main thread alone, as Python demands.
    """
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
