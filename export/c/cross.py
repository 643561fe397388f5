"""The recogniser built for other processors and run in QEMU: python -m export.c.cross FOLDER AUDIO...

Each is compared with the one of this machine: integers, words and times, log-probabilities.
FOLDER: as written by python -m export.c. AUDIO: files at the model's rate, or manifests (.jsonl) of such files.
Needs Debian's cross compilers and qemu-user: apt-get install gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf
gcc-arm-linux-gnueabi qemu-user. What is not installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from export.program import run
from streamasr.errors import StreamasrError

CHECK = Path(__file__).parent / "check.c"


@dataclass(frozen=True)
class Target:
    """A processor: how to compile for it, and what runs its programs here."""

    name: str
    compiler: str
    flags: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()


HERE = Target("this machine", "cc")
OTHERS = (
    Target("aarch64", "aarch64-linux-gnu-gcc", (), ("qemu-aarch64",)),
    Target("armhf (v7, NEON)", "arm-linux-gnueabihf-gcc", ("-mfpu=neon",), ("qemu-arm",)),
    Target(
        "armv6 (VFP)",  # the first Raspberry Pi, and the Zero; Debian's libc is for processors without VFP
        "arm-linux-gnueabi-gcc",
        ("-march=armv6", "-marm", "-mfpu=vfp", "-mfloat-abi=softfp"),
        ("qemu-arm", "-cpu", "arm1176"),
    ),
)


@dataclass(frozen=True)
class Heard:
    """What a build said."""

    products: str  # hash of many integer products
    words: list[list[tuple[str, ...]]]  # start, end and text of each word of each recording
    log_probs: list[np.ndarray]
    size: int  # of the program, in bytes


def hear(target: Target, folder: Path, recordings: list[bytes], work: Path) -> Heard:
    """Build everything for a target and let it hear the recordings."""
    shutil.copytree(folder, work, ignore=shutil.ignore_patterns("*.o", "streamasr"))
    flags = ["-O3", *target.flags]
    call(["make", "-s", "-C", str(work), f"CC={target.compiler}", f"CFLAGS={' '.join(flags)}", "LDFLAGS=-static"])
    run = [*target.emulator, str(build_check(work, target.compiler, *flags, "-static"))]
    said = [call([*target.emulator, str(work / "streamasr"), "-t"], audio).decode() for audio in recordings]
    return Heard(
        products=call([*run, "products"]).decode().split()[0],
        words=[[(w[0], w[1], w[3]) for line in text.splitlines() if (w := line.split())] for text in said],
        log_probs=[np.frombuffer(call([*run, "log_probs"], audio), dtype=np.float32) for audio in recordings],
        size=(work / "streamasr").stat().st_size,
    )


def build_check(folder: Path, compiler: str, *flags: str) -> Path:
    """check.c with what make has left in the folder."""
    objects = [str(path) for path in sorted(folder.glob("*.o")) if path.name != "main.o"]
    made = folder / "check"
    strict = ["-std=c99", "-ffp-contract=off"]
    call([compiler, *strict, *flags, f"-I{folder}", "-o", str(made), str(CHECK), *objects, "-lm"])
    return made


def call(command: list[str], audio: bytes = b"") -> bytes:
    """Its standard output; a StreamasrError with its last line of complaint."""
    done = subprocess.run(command, input=audio, capture_output=True)
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").strip().splitlines() or ["no word of why"]
        raise StreamasrError(f"{command[0]}: exit code {done.returncode}: {complaint[-1]}")
    return done.stdout


def _listed(manifest: Path) -> list[Path]:
    files = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                files.append(manifest.parent / json.loads(line)["audio"])
            except (ValueError, KeyError, TypeError) as error:
                raise StreamasrError(f'{manifest}:{number}: expected a JSON object with the key "audio"') from error
    return files


def read(paths: list[Path]) -> list[bytes]:
    """16-bit samples of each recording, which must be of one channel."""
    files: list[Path] = []
    for path in paths:
        files += _listed(path) if path.suffix == ".jsonl" else [path]
    recordings = []
    for file in files:
        try:
            audio, _ = soundfile.read(file, dtype="int16", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise StreamasrError(f"cannot be read as audio: {error}") from error
        if audio.shape[1] != 1:
            raise StreamasrError(f"{file}: got {audio.shape[1]} channels, expected 1")
        recordings.append(audio.astype("<i2").tobytes())
    return recordings


def row(target: Target, found: Heard, expected: Heard) -> str:
    """One line of the table."""
    same = sum(a == b for a, b in zip(found.words, expected.words, strict=True))
    off = max(float(np.abs(a - b).max()) for a, b in zip(found.log_probs, expected.log_probs, strict=True))
    products = "equal" if found.products == expected.products else "DIFFER"
    return f"| {target.name} | {products} | {same} of {len(found.words)} | {off:.1e} | {found.size / 1e6:.2f} MB |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m export.c.cross", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("audio", type=Path, nargs="+", metavar="AUDIO")
    parser.add_argument("--most", type=int, help="so many recordings at most")
    arguments = parser.parse_args()
    recordings = read(arguments.audio)[: arguments.most]
    with tempfile.TemporaryDirectory() as work:
        expected = hear(HERE, arguments.folder, recordings, Path(work) / "here")
        print("| processor | integer products | same words and times | log-probabilities off by | static program |")
        print("|---|---|---|---|---|")
        print(row(HERE, expected, expected))
        for i, target in enumerate(OTHERS):
            if missing := [need for need in (target.compiler, target.emulator[0]) if not shutil.which(need)]:
                print(f"| {target.name} | left out: no {', no '.join(missing)} | | | |")
            else:
                found = hear(target, arguments.folder, recordings, Path(work) / str(i))
                print(row(target, found, expected), flush=True)
                if found.products != expected.products:
                    raise StreamasrError(f"{target.name}: other integer products than on this machine")


if __name__ == "__main__":
    run(main, "export.c.cross")
