"""Speech that nobody said, for training to hear other words: python -m recipes.mini.synthetic [--hours 1]

Debian's flite reads transcripts of ../shared/text, in which nothing of dev and test is, in its four voices of 16 kHz,
each as throats of many lengths would sound. Of the transcripts it takes those with words that training seldom hears;
called again with more hours, it goes on after those that it has said.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from recipes.flite import speak
from recipes.lm.text import CORPORA, read_lines
from recipes.mini.data import LETTERS, SYNTHETIC
from recipes.program import run
from streamasr.bundle import write_whole
from streamasr.manifest import read_manifest
from streamasr.training.lexicon import read_lexicon

RATE = 16000
VOICES = ("awb", "kal16", "rms", "slt")
SHORTEST, LONGEST = 20, 200  # letters
SELDOM = (3, 6, 12, 24)  # a word heard less often is wanted; the next number when there are no such texts any more
WANTED = 6  # one in so many words is, at least
THROAT = (0.87, 1.15)  # frequencies times this
SLOWNESS = (0.85, 1.25)  # lengths of sounds times this


def sentences(shared: Path) -> Iterator[str]:
    """Transcripts in an order of their own, all in CMUdict (flite says its words as that does), with words wanted."""
    lines = [line.strip() for line in read_lines(shared / "text" / CORPORA[0][1])]
    heard = Counter(word for u in read_manifest(shared / "speech" / "train.jsonl", LETTERS) for word in u.text.split())
    lexicon = read_lexicon(shared / "lexicon" / "cmudict.dict")
    order = np.random.default_rng(0).permutation(len(lines)).tolist()
    order = [i for i in order if SHORTEST <= len(lines[i]) <= LONGEST and all(w in lexicon for w in lines[i].split())]
    for seldom in SELDOM:
        left = []
        for i in order:
            words = lines[i].split()
            if WANTED * sum(heard[word] < seldom for word in words) >= len(words):
                heard.update(words)
                yield lines[i]
            else:
                left.append(i)
        order = left


def say(number: int, text: str, folder: Path, scratch: Path) -> dict[str, str | float]:
    """Write utterance number `number` to the folder; returns its line of the manifest."""
    rng = np.random.default_rng((0, number))
    voice, wav, flac = VOICES[number % len(VOICES)], scratch / f"{number}.wav", f"{number:05}.flac"
    throat, slowness = rng.uniform(*THROAT), rng.uniform(*SLOWNESS)
    speak(text, voice, wav, slowness * throat)
    audio, rate = soundfile.read(wav, dtype="float32")
    wav.unlink()
    audio = soxr.resample(audio, rate * throat, RATE)
    soundfile.write(folder / flac, np.clip(audio, -1.0, 1.0), RATE)
    seconds = round(len(audio) / RATE, 3)
    return {"audio": flac, "text": text, "speaker": voice, "source": "flite", "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--hours", type=float, default=1.0)
    arguments = parser.parse_args()
    folder = SYNTHETIC.parent
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in SYNTHETIC.read_text().splitlines()] if SYNTHETIC.exists() else []
    seconds, cores = sum(line["seconds"] for line in lines), os.cpu_count() or 1
    if seconds >= arguments.hours * 3600.0:
        print(f"{SYNTHETIC}: holds {seconds / 3600.0:.2f} hours, which stay; remove {folder} to begin with fewer")
    texts = itertools.islice(enumerate(sentences(arguments.shared)), len(lines), None)
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=round(arguments.hours * 3600.0), initial=round(seconds), unit=" s") as bar,
        ThreadPoolExecutor(cores) as pool,
    ):
        while seconds < arguments.hours * 3600.0 and (some := list(itertools.islice(texts, 2 * cores))):
            for line in pool.map(lambda pair: say(*pair, folder, Path(scratch)), some):
                if seconds < arguments.hours * 3600.0:
                    lines.append(line)
                    seconds += float(line["seconds"])
                    bar.update(round(float(line["seconds"])))
    write_whole(SYNTHETIC, "".join(json.dumps(line) + "\n" for line in lines).encode())


if __name__ == "__main__":
    run(main)
