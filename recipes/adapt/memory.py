"""Memory against length: python -m recipes.adapt.memory [--bundle BUNDLE] [--shared FOLDER] [--write]

What a pass needs at its peak beyond what was there before it, for recordings of 2 to 128 s: RTRL, back-propagation
truncated to windows, and back-propagation through all of it. Linux only: the kernel counts the resident pages.
"""

from __future__ import annotations

import ctypes
import gc
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from export.restore import restore
from recipes.adapt.gradient import (
    Label,
    Recording,
    by_back_propagation,
    errors,
    second_pass,
    truncated_pass,
)
from recipes.adapt.network import Adaptive
from recipes.finetune.measure import most_heard
from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import read_bundle
from streamasr.manifest import read_manifest
from streamasr.training.data import RATE, AudioCache
from streamasr.training.evaluation import collapse
from streamasr.training.loop import start_processes

HERE = Path(__file__).parent
LENGTHS_S = (2, 8, 32, 128)
WINDOWS_S = (1, 2, 4)
LABEL_S = 8  # of audio for each label: the lattice of CTC, frames x tokens, is of one utterance
M_MMAP_THRESHOLD = -3


def peak(work: Callable[[], object], warm: Callable[[], object]) -> int:
    """Bytes that `work` needs at its peak, in a process of its own that has done `warm` before, the same in little.

    Without that, pages of libraries count, too, which a new process touches for its first time.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            warm()
            give_back()
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            before = _status("VmRSS")
            work()
            os.write(writer, str(_status("VmHWM") - before).encode())
        finally:
            os._exit(0)  # what the parent does next is none of the child's business
    os.close(writer)
    with os.fdopen(reader) as answer:
        found = answer.read()
    os.waitpid(child, 0)
    if not found:
        raise OSError("a measurement came to nothing: too little memory for it")
    return int(found)


def _status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def give_back() -> None:
    """Large tensors get pages of their own from now on, and free ones go back: so the kernel's count is ours."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    gc.collect()
    libc.malloc_trim(0)


def labels(model: Adaptive, log_probs: Tensor) -> tuple[Label, ...]:
    """Its own greedy tokens: for memory it does not matter who is right."""
    step = LABEL_S * RATE // model.model.stride
    made = []
    for begin in range(0, len(log_probs), step):
        end = min(begin + step, len(log_probs))
        heads = model.model.split_heads(log_probs[begin:end])
        made.append(Label(begin, end, {head: collapse(rows.argmax(1).tolist()) for head, rows in heads.items()}))
    return tuple(made)


def passes(model: Adaptive, one: Recording, wrong: Tensor) -> dict[str, Callable[[], object]]:
    """What is measured of one recording."""
    frames = RATE // model.model.stride
    return {
        "network": lambda: [None for _ in one.pieces()],
        "first pass": lambda: errors(model, model.log_probs(one.pieces), one.labels),
        "RTRL": lambda: second_pass(model, one.pieces, wrong),
        **{f"{w} s": lambda w=w: truncated_pass(model, one.pieces, wrong, w * frames) for w in WINDOWS_S},  # type: ignore[misc]
        "whole": lambda: by_back_propagation(model, one),
    }


def plot(rows: Sequence[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="tight")
    axes = figure.subplots()
    for name in rows[0]:
        axes.plot(LENGTHS_S, [row[name] for row in rows], marker="o", label=name)
    axes.set(xlabel="seconds of audio", ylabel="MB beyond the model", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    arguments = measuring(__doc__).parse_args()
    start_processes()
    bundle = read_bundle(arguments.bundle)
    model = Adaptive(restore(bundle))
    model.piece = bundle.graphs["fp32"].block  # as the run time hears it: a second at once would hide the rest
    dev = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    (speaker,) = most_heard(dev, 1)
    with tempfile.TemporaryDirectory() as folder:
        audio = AudioCache([u.audio for u in dev if u.speaker == speaker], Path(folder))
        little: dict[str, Callable[[], object]] = {}
        rows: list[dict[str, float]] = []
        for length_s in LENGTHS_S:
            pieces = model.hear(audio.pcm[: length_s * RATE])
            log_probs = model.log_probs(pieces)
            one = Recording(pieces, labels(model, log_probs))
            _, wrong = errors(model, log_probs, one.labels)
            work = passes(model, one, wrong)
            little = little or work
            rows.append({name: peak(each, little[name]) / 1e6 for name, each in work.items()})
            print(length_s, {name: round(value, 1) for name, value in rows[-1].items()}, flush=True)
    names = list(rows[0])
    count = sum(weights.numel() for weights in model.adapter.parameters())
    lines = [
        f"The adapter has {count} parameters ({4 * count / 1e6:.1f} MB); MB at the peak, beyond what the model takes:",
        "",
        "| audio (s) | " + " | ".join(f"truncated, {n}" if n.endswith(" s") else n for n in names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {length} | " + " | ".join(f"{row[name]:.1f}" for name in names) + " |"
            for length, row in zip(LENGTHS_S, rows, strict=True)
        ),
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        plot(rows, HERE / "memory.png")
        write_section(HERE / "RESULTS.md", "memory", text + "\n\n![The same as a picture](memory.png)")


if __name__ == "__main__":
    run(main, "interrupted")
