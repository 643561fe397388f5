"""Debian's flite, whose synthetic voices belong to nobody."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from streamasr.errors import StreamasrError


def speak(text: str, voice: str, wav: Path, slowness: float | None = None) -> None:
    """Write the text, spoken, its sounds `slowness` times as long; the same flite gives the same bytes again."""
    if not shutil.which("flite"):
        raise StreamasrError("the program flite is not there; install it with: apt-get install flite")
    stretched = [] if slowness is None else ["--setf", f"duration_stretch={slowness:g}"]
    done = subprocess.run(["flite", "-voice", voice, *stretched, "-t", text, "-o", str(wav)])
    if done.returncode:
        raise StreamasrError(f"flite ended with exit code {done.returncode} at {text!r}")
