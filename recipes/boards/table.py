"""Every way to run the bundled model, beside each other and PocketSphinx: python -m recipes.boards.table [--write]

One core, the same recordings of test, one after the other through all of them. Greedy letters, which all of them have;
the last but one line adds the words of the bundle.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import tqdm

from export.c.__main__ import write_c
from export.c.cross import HERE, build_check, call
from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.program import run
from recipes.sections import write_section
from streamasr.bench import CLOCK, PIECES_MS, Tally, hear_pieces, normalise, pocketsphinx
from streamasr.bundle import read_bundle
from streamasr.errors import StreamasrError
from streamasr.footprint import cold_start_s, one_core, processor_name, transcribing_bytes
from streamasr.manifest import read_manifest, spread
from streamasr.recognizer import load

RESULTS = Path(__file__).with_name("RESULTS.md")
RATE = 16000
MEMORY_S = 60  # of audio, while the most memory is looked for

Pcm = NDArray[np.int16]


@dataclass
class Contestant:
    """One line of the table: how it hears pieces of so many samples (0: all at once), and what it costs at rest."""

    hear: Callable[[Pcm, int, Tally], None]
    file_mb: float = float("nan")
    memory_mb: float = float("nan")
    cold_ms: float = float("nan")
    tallies: dict[int, Tally] = field(default_factory=dict)


def python(bundle: Path, long: Pcm, graph: str, greedy: bool) -> Contestant:
    """The run time with one of the bundle's graphs."""
    recognizer = load(bundle, graph, greedy=greedy)

    def hear(pcm: Pcm, piece: int, tally: Tally) -> None:
        hear_pieces(recognizer, pcm.astype(np.float32) / np.float32(32768.0), piece, tally)

    options = ["--graph", graph, *(["--greedy"] if greedy else [])]
    audio = long.astype(np.float32) / np.float32(32768.0)
    search = recognizer.bundle.search
    files = [recognizer.acoustic.graph.file, *(search.files if search and not greedy else ())]
    return Contestant(
        hear,
        sum((bundle / file).stat().st_size for file in files) / 1e6,
        transcribing_bytes(bundle, audio, RATE, *options) / 1e6,
        1e3 * cold_start_s(bundle, audio[: RATE // 2], RATE, *options),
    )


def c_program(bundle: Path, long: Pcm, work: Path) -> Contestant:
    """The recogniser in C, built here."""
    write_c(bundle, work)
    call(["make", "-s", "-C", str(work)])
    check = str(build_check(work, HERE.compiler, "-O3"))
    program = work / "streamasr"

    def hear(pcm: Pcm, piece: int, tally: Tally) -> None:
        times = [float(line) for line in call([check, "pieces", str(piece)], pcm.tobytes()).split()]
        tally.pieces_s += times[:-1]  # the last one is the end
        tally.cost_s += sum(times)
        tally.texts.append(normalise(call([str(program)], pcm.tobytes()).decode()))

    starts = []
    for _ in range(20):
        begin = time.perf_counter()
        call([str(program)], long[: RATE // 2].tobytes())
        starts.append(time.perf_counter() - begin)
    return Contestant(hear, program.stat().st_size / 1e6, resident_mb(program, long), 1e3 * float(np.median(starts)))


def resident_mb(program: Path, audio: Pcm) -> float:
    """The most memory a program has had, having heard the audio and waiting for more."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(audio.tobytes())
        process.stdin.flush()
        time.sleep(1.0)  # what lies in the pipe is a second's work at most
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.stdin.close()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / 1e6


def peer() -> Contestant:
    """PocketSphinx, which hears each utterance in one piece."""
    listen = pocketsphinx(load(greedy=True))
    if listen is None:
        raise StreamasrError("PocketSphinx is not installed: pip install 'streamasr[bench]'")

    def hear(pcm: Pcm, piece: int, tally: Tally) -> None:
        begin = CLOCK()
        tally.texts.append(normalise(listen(pcm.astype(np.float32) / np.float32(32768.0))))
        tally.cost_s += CLOCK() - begin

    return Contestant(hear)


def line(name: str, contestant: Contestant, references: list[str], seconds: float) -> str:
    """Of the table."""
    numbers = [f"{v:.{d}f}" if np.isfinite(v) else "-" for v, d in (
        (contestant.file_mb, 1), (contestant.memory_mb, 0), (contestant.cold_ms, 0))]  # fmt: skip
    pieces = []
    for ms in PIECES_MS:
        tally = contestant.tallies.get(ms)
        pieces.append("-" if tally is None else "{:.2f}, {:.2f}".format(*1e3 * np.percentile(tally.pieces_s, [50, 99])))
    tally = contestant.tallies[max(contestant.tallies)]
    wer = 100.0 * jiwer.wer(references, tally.texts)
    return f"| {name} | {' | '.join(pieces)} | {tally.cost_s / seconds:.4f} | {' | '.join(numbers)} | {wer:.1f} |"


def main() -> None:
    parser = measuring(__doc__)
    parser.add_argument("--clips", type=int, default=60)
    arguments = parser.parse_args()
    utterances = read_manifest(arguments.shared / "speech" / "test.jsonl", LETTERS)
    chosen = spread(utterances, arguments.clips)
    clips: list[Pcm] = [soundfile.read(u.audio, dtype="int16")[0] for u in chosen]
    long = np.resize(np.concatenate(clips), MEMORY_S * RATE)
    references = [normalise(u.text) for u in chosen]
    seconds = sum(map(len, clips)) / RATE
    bundle = read_bundle(arguments.bundle)
    with tempfile.TemporaryDirectory() as work, one_core():
        contestants = {
            f"{graph}, letters": python(arguments.bundle, long, graph, greedy=True) for graph in sorted(bundle.graphs)
        }
        contestants["C, int8, letters"] = c_program(arguments.bundle, long, Path(work) / "c")
        contestants["int8, words"] = python(arguments.bundle, long, "int8", greedy=False)
        contestants["PocketSphinx"] = peer()
        for clip in tqdm(clips):
            for name, contestant in contestants.items():
                for ms in PIECES_MS if name != "PocketSphinx" else (0,):
                    contestant.hear(clip, RATE * ms // 1000, contestant.tallies.setdefault(ms, Tally()))
    lines = [
        f"{bundle.name} {bundle.version}, {len(clips)} recordings of test, {seconds / 60:.0f} minutes, one core of "
        f"{processor_name()}. Pieces: median "
        "and 99 % of their cost in ms; real-time factor and errors in pieces of 640 ms. fp32's file is stored as fp16.",
        "",
        "| | " + " | ".join(f"{ms} ms" for ms in PIECES_MS) + " | RTF | file MB | memory MB | cold start ms | WER % |",
        "|---|" + "---|" * (len(PIECES_MS) + 5),
        *(line(name, contestant, references, seconds) for name, contestant in contestants.items()),
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section(RESULTS, "table", "\n".join(lines))


if __name__ == "__main__":
    run(main)
