"""What the program takes of a machine, seen from outside: processes, memory, disk. For `streamasr bench`."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamasr.errors import StreamasrError

PACKAGE = Path(__file__).parent
COLD_STARTS = 5


@contextmanager
def one_core() -> Iterator[None]:
    """This thread and the processes it starts stay on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cold_start_s(model: Path, audio: NDArray[np.float32], rate: int, *options: str) -> float:
    """By the clock, from the command to its end on a short recording: the median of some."""
    with _wav(audio, rate) as wav:
        times = []
        for _ in range(COLD_STARTS):
            begin = time.perf_counter()
            _child(["-m", "streamasr", "transcribe", "--model", str(model), *options, str(wav)])
            times.append(time.perf_counter() - begin)
    return float(np.median(times))


def transcribing_bytes(model: Path, audio: NDArray[np.float32], rate: int, *options: str) -> float:
    """The most memory that the command has resident while it transcribes this audio."""
    code = "import sys; from streamasr import cli, footprint; cli.main(sys.argv[1:]); print(footprint.peak_bytes())"
    with _wav(audio, rate) as wav:
        return float(_child(["-c", code, "transcribe", "--model", str(model), *options, str(wav)]).splitlines()[-1])


def peak_bytes() -> float:
    """The most memory this process has ever had resident. A child's getrusage would count its parent's before exec."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024.0
    except (OSError, IndexError):
        pass
    try:
        resource: Any = import_module("resource")
    except ImportError:
        return math.nan  # Windows
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024.0


def install_bytes() -> float:
    """All that `pip install streamasr` brings, without extras and models."""
    names, sizes = ["streamasr"], {}
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name == "streamasr":
                return math.nan  # run from a checkout; who knows what else lies in this environment
            continue  # needed elsewhere only: on another system, or by another Python
        files = {Path(str(file.locate())) for file in distribution.files or ()}
        if name == "streamasr":  # an editable installation lists none of the package's own files
            files |= set(PACKAGE.rglob("*.py"))
            files = {file for file in files if PACKAGE / "models" not in file.parents}
        sizes[name] = sum(file.stat().st_size for file in files if file.is_file())
        for requirement in distribution.requires or ():
            found = re.match(r"[\w.-]+", requirement)
            if found and "extra ==" not in requirement and re.sub(r"[-_.]+", "-", found[0]).lower() not in sizes:
                names.append(found[0])
    return float(sum(sizes.values()))


def folder_bytes(folder: Path) -> float:
    """Size of all files in it."""
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def processor_name() -> str:
    """As its maker calls it, where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


@contextmanager
def _wav(audio: NDArray[np.float32], rate: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio.wav"
        soundfile.write(path, audio, rate)
        yield path


def _child(arguments: list[str]) -> str:
    """Run Python on this very package, whatever lies in the current folder."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-P", *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise StreamasrError(f"bench: a child process ended with {done.returncode}: {last}")
    return done.stdout
