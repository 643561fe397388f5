"""Speech that nobody said, for training to hear other words: python -m recipes.mini.synthetic [--hours 1]

Debian's flite reads transcripts of ../shared/text, in which nothing of dev and test is, in its four voices of 16 kHz.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from recipes.flite import speak
from recipes.lm.text import CORPORA, read_lines
from recipes.mini.data import SYNTHETIC
from recipes.program import run

VOICES = ("awb", "kal16", "rms", "slt")
SHORTEST, LONGEST = 20, 200  # letters


def sentences(shared: Path) -> Iterator[str]:
    """The transcripts in an order of their own."""
    lines = [line.strip() for line in read_lines(shared / "text" / CORPORA[0][1])]
    for i in np.random.default_rng(0).permutation(len(lines)):
        if SHORTEST <= len(lines[i]) <= LONGEST:
            yield lines[i]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--hours", type=float, default=1.0)
    arguments = parser.parse_args()
    folder = SYNTHETIC.parent
    folder.mkdir(parents=True, exist_ok=True)
    lines, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=round(arguments.hours * 3600.0), unit=" s") as bar:
        for number, text in enumerate(sentences(arguments.shared)):
            if seconds >= arguments.hours * 3600.0:
                break
            voice, wav, flac = VOICES[number % len(VOICES)], Path(scratch) / "said.wav", f"{number:05}.flac"
            speak(text, voice, wav)
            audio, rate = soundfile.read(wav, dtype="int16")
            soundfile.write(folder / flac, audio, rate)
            own = round(len(audio) / rate, 3)
            lines.append({"audio": flac, "text": text, "speaker": voice, "source": "flite", "seconds": own})
            seconds += own
            bar.update(round(own))
    SYNTHETIC.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    run(main)
