"""How steady partial text is: python -m recipes.mini.flicker [--write]

Every eighth utterance of dev in pieces of 80 ms. A word is taken back when the next text has another at its
place, or none; it is certain when it stands in `stable`. A line for each length of time that the search waits
before it shows a word (BeamConfig.settle).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import Bundle, WordSearch, read_bundle
from streamasr.events import Final, Partial
from streamasr.manifest import read_manifest
from streamasr.recognizer import Recognizer
from streamasr.words import word_search

PIECE = 1280  # samples
SETTLE = (0, 2, 5, 10)  # frames


def watch(recognizer: Recognizer, files: list[Path]) -> tuple[int, int, int, list[float]]:
    """Words shown, of them taken back, certain words taken back, seconds from shown to certain."""
    shown_count, back, broken, waits = 0, 0, 0, []
    for path in files:
        audio, stream = read_16k(path), recognizer.stream()
        shown: list[tuple[str, float]] = []  # words on the screen, since when
        certain = 0
        for start in range(0, len(audio) + PIECE, PIECE):
            piece = audio[start : start + PIECE]
            now_s = (start + len(piece)) / recognizer.bundle.sample_rate
            for event in stream.accept(piece) if len(piece) else stream.finish():
                if not isinstance(event, Partial | Final):
                    continue
                words = event.text.split()
                kept = next((i for i, (w, _) in enumerate(shown) if i >= len(words) or words[i] != w), len(shown))
                back += len(shown) - kept
                broken += max(0, certain - kept)
                shown_count += len(words) - kept
                shown = [*shown[:kept], *((word, now_s) for word in words[kept:])]
                sure = len(words) if isinstance(event, Final) else len(event.stable.split())
                waits += [now_s - since for _, since in shown[certain:sure]]
                certain = max(certain, sure)
                if isinstance(event, Final):
                    shown, certain = [], 0
    return shown_count, back, broken, waits


def _settling(bundle: Bundle, search: WordSearch, settle: int) -> Bundle:
    return replace(bundle, search=replace(search, beam=replace(search.beam, settle=settle)))


def main() -> None:
    arguments = measuring(__doc__).parse_args()
    files = [u.audio for u in read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)[::8]]
    lines = ["| decoder | words shown | taken back % | certain words taken back | shown to certain, median s | 90 % |"]
    lines.append("|---|---|---|---|---|---|")
    bundle = read_bundle(arguments.bundle)
    search = word_search(bundle)
    frame_ms = 1000 * bundle.graphs[bundle.default].stride // bundle.sample_rate
    trials = {
        f"beam, shown {settle * frame_ms} ms after it ends": Recognizer(_settling(bundle, search, settle))
        for settle in SETTLE
    }
    for name, recognizer in {**trials, "greedy": Recognizer(bundle, greedy=True)}.items():
        shown, back, broken, waits = watch(recognizer, files)
        median, late = np.percentile(waits, [50, 90])
        lines.append(f"| {name} | {shown} | {100 * back / shown:.1f} | {broken} | {median:.2f} | {late:.2f} |")
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "flicker", text)


if __name__ == "__main__":
    run(main)
