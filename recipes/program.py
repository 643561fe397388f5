"""How every recipe ends: in one line where something is wrong, never in a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from streamasr.errors import StreamasrError


def run(main: Callable[[], None], interrupted: str = "interrupted; call the same command to go on") -> None:
    """Call main; exit 1 with one line for what a person can mend, 130 for Ctrl-C, after saying `interrupted`."""
    try:
        main()
    except (StreamasrError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
