"""README's commands do what it says: each code block is run, or says why it cannot be.

The line above every fence is `<!-- test -->` or `<!-- skip: reason -->`. In ```console blocks the lines
that start with `$ ` are run by bash, with their continuations; ```python blocks run as programs. All blocks
share one copy of the checkout, in the order of the page, as a reader's would.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NOT_COPIED = (".git", ".venv*", "work", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Block:
    """A fenced block: its first line's number, language, the comment above it, and the text."""

    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.language or 'no language'}"


def blocks(page: str) -> Iterator[Block]:
    """All fenced blocks of a page."""
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        opening = re.fullmatch(r"\s*(`{3,}|~{3,})\s*(\S*).*", lines[number])
        if opening:
            start, mark = number, lines[number - 1].strip() if number else ""
            body = []
            number += 1
            while number < len(lines) and lines[number].strip() != opening[1]:
                body.append(lines[number])
                number += 1
            yield Block(start + 1, opening[2], mark, "\n".join(body) + "\n")
        number += 1


def commands(text: str) -> str:
    """The lines after `$ ` of a console block, continuations with them."""
    script, continued = [], False
    for line in text.splitlines():
        if line.startswith("$ ") or continued:
            script.append(line.removeprefix("$ ") if not continued else line.removeprefix("> "))
            continued = line.endswith("\\")
    return "\n".join(script) + "\n"


PAGE = list(blocks(README.read_text(encoding="utf-8"))) if README.is_file() else []
TESTED = [block for block in PAGE if block.mark == "<!-- test -->"]


def test_there_is_something_to_test() -> None:
    assert README.is_file(), f"{README} is not there"
    assert TESTED, "README.md has no block under <!-- test -->"


def test_every_block_is_tested_or_says_why_not() -> None:
    silent = [
        str(block)
        for block in PAGE
        if block.mark != "<!-- test -->" and not re.fullmatch(r"<!-- skip: \S.* -->", block.mark)
    ]
    assert not silent, f"README.md, {'; '.join(silent)}: put <!-- test --> or <!-- skip: reason --> on the line above"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to work in, with ../shared beside it where the real one has it."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*NOT_COPIED))
    if (ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
    return folder / "checkout"


@pytest.mark.parametrize("block", TESTED, ids=str)
def test_block(block: Block, checkout: Path) -> None:
    if block.language == "console":
        script = commands(block.text)
        assert script.strip(), f"README.md, {block}: no line starts with '$ '"
        command = ["bash", "-euo", "pipefail", "-c", script]
    else:
        assert block.language == "python", f"README.md, {block}: only console and python blocks can be tested"
        command = [sys.executable, "-c", block.text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, f"README.md, {block}:\n{block.text}\n{done.stdout}\n{done.stderr}"


def test_blocks_and_commands_are_read_as_meant() -> None:
    page = "a\n<!-- test -->\n```console\n$ one \\\n> two\nshown\n$ three\n```\n```python\nx = 1\n```\n"
    first, second = blocks(page)
    assert (first.line, first.language, first.mark) == (3, "console", "<!-- test -->")
    assert commands(first.text) == "one \\\ntwo\nthree\n"
    assert (second.language, second.mark, second.text) == ("python", "```", "x = 1\n")
