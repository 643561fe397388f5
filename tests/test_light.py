"""The run time stays light: what a fresh interpreter loads, and what the package shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import streamasr

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchaudio", "librosa", "matplotlib", "sounddevice", "av", "onnx", "jiwer", "pocketsphinx", "scipy")


def loaded(code: str) -> set[str]:
    """Which heavy modules a fresh interpreter holds after this code."""
    code += f"\nimport sys\nprint('loaded:', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_import_is_light() -> None:
    assert loaded("import streamasr") == set()


def test_transcribing_is_light() -> None:
    code = f"""
import streamasr
recognizer = streamasr.load({str(DATA / "toy")!r})
assert recognizer.transcribe({str(DATA / "sample.wav")!r}).finals
"""
    assert loaded(code) == set()


def test_the_command_line_is_light() -> None:
    arguments = ["transcribe", "--model", str(DATA / "toy"), str(DATA / "sample.wav")]
    assert loaded(f"from streamasr.cli import main\nassert main({arguments!r}) == 0") == set()


def test_the_run_time_never_imports_what_trains() -> None:
    package, inside = ROOT / "streamasr", ("nn", "training")
    foreign = re.compile(r"^\s*(?:from|import) (?:streamasr\.(?:nn|training)|torch|recipes|export)\b", re.MULTILINE)
    files = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in inside]
    assert len(files) > 40
    assert [str(path) for path in files if foreign.search(path.read_text(encoding="utf-8"))] == []
    assert foreign.search((package / "training" / "loop.py").read_text(encoding="utf-8"))


def test_a_heavy_module_would_be_seen() -> None:
    assert loaded("import sys, types\nsys.modules['torch'] = types.ModuleType('torch')") == {"torch"}


def test_public_names_are_those_of_all() -> None:
    assert dir(streamasr) == sorted(streamasr.__all__)
    assert len(streamasr.__all__) == len(set(streamasr.__all__))
    with pytest.raises(AttributeError, match="module 'streamasr' has no attribute 'annotations'"):
        streamasr.annotations  # noqa: B018


def test_public_names_come_from_the_package_and_are_described() -> None:
    for name in set(streamasr.__all__) - {"__version__", "Event"}:  # Event is a union of three
        value = getattr(streamasr, name)
        assert value.__module__.startswith("streamasr."), name
        assert value.__doc__, name
