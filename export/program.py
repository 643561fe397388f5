"""How every program of the checkout ends: in one line where something is wrong, never in a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from streamasr.errors import StreamasrError


def run(main: Callable[[], None], name: str, interrupted: str = "interrupted") -> None:
    """Call main; exit 1 with `name` and one line for what a person can mend, 130 for Ctrl-C, after `interrupted`."""
    try:
        main()
    except (StreamasrError, OSError) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
