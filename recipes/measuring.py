"""The command line of the recipes that measure a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamasr.recognizer import BUNDLED


def measuring(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that they share; each may add its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    return parser
