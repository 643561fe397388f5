"""`streamasr bench` on the toy bundle: every row is there and says a number. No times are judged."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from streamasr import bench, footprint
from streamasr.cli import main
from streamasr.errors import BundleError

DATA = Path(__file__).parent / "data"
ALWAYS = (
    "real-time factor, whole utterances",
    *(f"real-time factor, pieces of {ms} ms" for ms in (40, 160, 640)),
    *(f"a piece of {ms} ms, {name} (ms)" for ms in (40, 160, 640) for name in ("median", "99 %")),
    "algorithmic latency (ms)",
    *(f"fp32 network: {what}" for what in ("real-time factor", "80 ms, median (ms)", "80 ms, 99 % (ms)", "file (MB)")),
    "cold start of the command (ms)",
    "peak memory, 3 minutes (MB)",
    "install size without model (MB)",
    "model size (MB)",
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """The sample twice: with a text that is wrong in one word, so that nobody is faultless, and with none."""
    text = (DATA / "sample.txt").read_text(encoding="utf-8").strip().replace("old", "young")
    line = {"audio": str(DATA / "sample.wav"), "speaker": "rms", "seconds": 5.6}
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps({**line, "text": t}) + "\n" for t in (text, "")), encoding="utf-8")
    return path


def numbers(page: str) -> dict[str, list[float]]:
    """The table's rows: name -> its numbers."""
    lines = page.split("\n\n", 1)[1].splitlines()[1:]
    return {line[:38].strip(): [math.nan if n == "-" else float(n) for n in line[38:].split()] for line in lines}


def installed() -> bool:
    try:
        metadata.distribution("streamasr")
    except metadata.PackageNotFoundError:
        return False
    return True


def check_rows(rows: dict[str, list[float]]) -> None:
    for name in ALWAYS:
        value = rows[name][0]
        assert math.isfinite(value) or (name.startswith("install") and not installed()), name
        assert not value <= 0.0, name
    assert rows["texts that depend on the pieces"] == [0.0]


Absent = Callable[..., None]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Absent:
    """Make packages look as if they were not installed."""

    def hide(*names: str) -> None:
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def test_synthetic_audio(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", str(DATA / "toy"), "--utterances", "1"]) == 0
    page = capsys.readouterr().out
    rows = numbers(page)
    check_rows(rows)
    assert "synthetic" in page
    assert "word error rate (%)" not in rows
    assert rows["algorithmic latency (ms)"] == [160.0]
    assert rows["model size (MB)"][0] == pytest.approx(0.736, abs=0.01)


def test_manifest(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jiwer")
    assert main(["bench", "--model", str(DATA / "toy"), "--manifest", str(manifest)]) == 0
    page = capsys.readouterr().out
    rows = numbers(page)
    check_rows(rows)
    assert "2 utterances" in page
    ours = rows["word error rate (%)"]
    assert 50.0 < ours[0] < 200.0  # the toy understands nothing
    try:
        import pocketsphinx  # noqa: F401
    except (ImportError, OSError):
        assert "pocketsphinx: not installed; to hear" in page
    else:
        assert len(ours) == 3
        assert 0.0 < ours[1] < 60.0
        assert ours[2] == pytest.approx(ours[0] / ours[1], rel=0.01)
        assert len(rows["real-time factor, whole utterances"]) == 3


def test_without_peer_and_jiwer(manifest: Path, capsys: pytest.CaptureFixture[str], absent: Absent) -> None:
    absent("jiwer", "pocketsphinx")
    assert bench.run(DATA / "toy", manifest, 1) == 0
    page = capsys.readouterr().out
    assert "pip install jiwer" in page
    assert "pip install 'streamasr[bench]'" in page
    check_rows(numbers(page))


def test_wrong_model_and_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError):
        bench.run(tmp_path, None, 1)
    assert main(["bench", "--model", str(DATA / "toy"), "--manifest", str(tmp_path / "none.jsonl")]) == 1
    assert capsys.readouterr().err.startswith(f"streamasr: {tmp_path / 'none.jsonl'}: ")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind to a core")
def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with footprint.one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_peak_memory_is_the_childs_own() -> None:
    """A parent of 300 MB must not make its child look large."""
    code = (
        "import subprocess, sys; ballast = bytearray(b'1' * 300_000_000)\n"
        "child = 'from streamasr.footprint import peak_bytes; print(peak_bytes())'\n"
        "print(subprocess.run([sys.executable, '-c', child], capture_output=True, text=True, check=True).stdout)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert 10e6 < float(done.stdout) < 250e6
