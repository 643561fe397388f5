"""Word times by forced alignment with PocketSphinx: python -m recipes.mini.align MANIFEST OUT.jsonl

A reference nobody here made. Utterances with a word outside its dictionary are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pocketsphinx import Decoder
from tqdm import tqdm

from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from streamasr.manifest import Utterance, read_manifest

FRAME_S = 0.01


def align(utterance: Utterance, decoder: Decoder) -> list[tuple[str, float, float]] | None:
    """[(word, start_s, end_s)] of an utterance, or None where PocketSphinx cannot align it."""
    words = utterance.text.split()
    if not words or any(decoder.lookup_word(word) is None for word in words):
        return None
    audio = np.clip(np.rint(32768.0 * read_16k(utterance.audio)), -32768, 32767).astype(np.int16)
    decoder.set_align_text(utterance.text)
    decode(decoder, audio.tobytes())
    found = [
        (segment.word.split("(")[0], segment.start_frame * FRAME_S, (segment.end_frame + 1) * FRAME_S)
        for segment in decoder.seg()
        if not segment.word.startswith(("<", "[", "("))
    ]
    return found if [word for word, _, _ in found] == words else None


def decode(decoder: Decoder, audio: bytes) -> None:
    """All of an utterance, 16-bit samples."""
    decoder.start_utt()
    decoder.process_raw(audio, full_utt=True)
    decoder.end_utt()


def read_alignments(path: Path) -> Iterator[tuple[str, list[tuple[str, float, float]]]]:
    """(audio path, words with times) of every aligned utterance."""
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        yield record["audio"], [(word, start, end) for word, start, end in record["words"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    utterances = read_manifest(arguments.manifest, LETTERS)
    decoder = Decoder(lm=None, loglevel="FATAL")
    aligned = 0
    with arguments.out.open("w", encoding="utf-8") as file:
        for utterance in tqdm(utterances):
            words = align(utterance, decoder)
            if words:
                aligned += 1
                file.write(json.dumps({"audio": str(utterance.audio), "words": words}) + "\n")
    print(f"{aligned} of {len(utterances)} utterances aligned")


if __name__ == "__main__":
    run(main)
