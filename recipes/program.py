"""How every recipe ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from export import program


def run(main: Callable[[], None], interrupted: str = "interrupted; call the same command to go on") -> None:
    """As export.program.run, under the path that was called."""
    program.run(main, sys.argv[0], interrupted)
