"""Numbers in documents: each stands between markers, and the script that measured it writes it there."""

from __future__ import annotations

import re
from pathlib import Path


def write_section(path: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- NAME --> and <!-- /NAME --> in a Markdown file."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    document = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"{path}: has no section {begin} ... {end}")
    replacement = f"{begin}\n{text.strip()}\n{end}"
    path.write_text(pattern.sub(lambda _: replacement, document), encoding="utf-8")
