"""The recogniser in C against the int8 graph in ONNX Runtime: python -m recipes.boards.compare [--write]

The same recordings of test through both, greedy letters. Where words or times differ, the first frame whose best
letter is another, and by how much ONNX Runtime preferred its own there.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from export.c.__main__ import write_c
from export.c.cross import HERE, call, hear
from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import read_bundle
from streamasr.manifest import read_manifest, spread
from streamasr.recognizer import Recognizer

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = measuring(__doc__)
    parser.add_argument("--clips", type=int, default=100)
    arguments = parser.parse_args()
    bundle = read_bundle(arguments.bundle)
    utterances = read_manifest(arguments.shared / "speech" / "test.jsonl", LETTERS)
    chosen = spread(utterances, arguments.clips)
    clips = [soundfile.read(u.audio, dtype="int16")[0] for u in chosen]
    audio = [clip.astype("<i2").tobytes() for clip in clips]
    recognizer = Recognizer(bundle, "int8", greedy=True)
    with tempfile.TemporaryDirectory() as name:
        folder, built = Path(name) / "c", Path(name) / "built"
        write_c(arguments.bundle, folder)
        found = hear(HERE, folder, audio, built)
        seconds = sum(map(len, clips)) / bundle.sample_rate
        begin = time.perf_counter()
        call([str(built / "streamasr")], b"".join(audio))
        c_factor = (time.perf_counter() - begin) / seconds
    letters, _ = bundle.head("letters")
    rate = bundle.sample_rate
    same, notes, off, spent = 0, [], [], 0.0
    for i, clip in enumerate(tqdm(clips, "ONNX Runtime")):
        begin = time.process_time()
        words = recognizer.transcribe(clip, rate).words
        spent += time.process_time() - begin
        expected = [(f"{w.start_s:.3f}", f"{w.end_s:.3f}", w.text) for w in words]
        rows = recognizer.acoustic.whole(clip.astype(np.float32) / np.float32(32768.0))[:, letters]
        ours = found.log_probs[i].reshape(-1, rows.shape[1])[recognizer.acoustic.graph.delay :][: len(rows)]
        off.append(float(np.abs(ours - rows)[rows > -10.0].max()))
        if [tuple(word) for word in found.words[i]] == expected:
            same += 1
        else:
            notes.append(_difference(chosen[i].audio.name, rows, ours))
    lines = [
        f"{len(clips)} clips of test, {seconds / 60:.0f} minutes, {rate} Hz: words and times of {same} are equal. "
        f"Largest difference of log-probabilities above -10: median clip {np.median(off):.0e}, worst {max(off):.2f}.",
        f"Real-time factor: C {c_factor:.4f} by the clock, Python's whole greedy stream over the same graph "
        f"{spent / seconds:.4f} of processor time.",
        "",
        *notes,
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section(RESULTS, "compare", "\n".join(lines))


def _difference(name: str, rows: np.ndarray, ours: np.ndarray) -> str:
    """Where the best letter is another for the first time."""
    other = np.flatnonzero(rows.argmax(axis=1) != ours.argmax(axis=1))
    if not len(other):
        return f"- {name}: the same letters, other times or confidence"
    first = int(other[0])
    best, second = np.sort(rows[first])[[-1, -2]]
    return f"- {name}: frame {first}, where the best letter led by {best - second:.3f} (natural logarithm)"


if __name__ == "__main__":
    run(main)
