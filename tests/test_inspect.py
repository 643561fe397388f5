"""`streamasr inspect`: a picture of what the model hears."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamasr.cli import main

DATA = Path(__file__).parent / "data"
ARGUMENTS = ["inspect", str(DATA / "sample.wav"), "--model", str(DATA / "toy"), "-o"]


@pytest.mark.slow
def test_a_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("librosa")
    pytest.importorskip("matplotlib")
    assert main([*ARGUMENTS, str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert main([*ARGUMENTS, str(tmp_path / "x.txt")]) == 1
    assert "x.txt: cannot be written" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    assert main([*ARGUMENTS, str(tmp_path / "x.png")]) == 1
    assert capsys.readouterr().err == "streamasr: inspect needs librosa: pip install 'streamasr[plot]'\n"
