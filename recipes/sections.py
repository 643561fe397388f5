"""Numbers in documents: each stands between markers, and the script that measured it writes it there."""

from __future__ import annotations

import re
from pathlib import Path


def read_section(path: Path, name: str) -> str:
    """What stands between <!-- NAME --> and <!-- /NAME --> in a Markdown file."""
    return _find(path, name)[1].strip()


def write_section(path: Path, name: str, text: str) -> None:
    """Replace what stands there; ValueError where the file has no such markers."""
    found = _find(path, name)
    path.write_text(f"{found.string[: found.start(1)]}{text.strip()}\n{found.string[found.end(1) :]}", encoding="utf-8")


def _find(path: Path, name: str) -> re.Match[str]:
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    found = re.search(f"{re.escape(begin)}\n(.*?){re.escape(end)}", path.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise ValueError(f"{path}: has no section {begin} ... {end}")
    return found
