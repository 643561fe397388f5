"""The recogniser in rooms with an echo: python -m recipes.mini.reverberant [--bundle BUNDLE] [--write]

Every eighth utterance of dev, as it was recorded and as it sounds in each of the recorded rooms of ../shared, which no
training has heard.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from recipes.measuring import measuring
from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.mini.rooms import from_direct_sound
from recipes.program import run
from recipes.sections import write_section
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import load
from streamasr.training.augment import reverberate
from streamasr.training.evaluation import ErrorCount


def errors(bundle: Path, utterances: list[Utterance], room: Path | None) -> tuple[float, float]:
    """Word and letter error, from 0 to 1; room: None for speech as it was recorded."""
    recognizer = load(bundle)
    response = from_direct_sound(read_16k(room)) if room else None
    words, letters = ErrorCount(), ErrorCount()
    for utterance in utterances:
        audio = read_16k(utterance.audio)
        if response is not None:
            audio = reverberate(audio, response)
        heard = [word.text for word in recognizer.transcribe(audio, 16000).words]
        words.add(utterance.text.split(), heard)
        letters.add(list(utterance.text), list(" ".join(heard)))
    return words.rate, letters.rate


def main() -> None:
    arguments = measuring(__doc__).parse_args()
    utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)[::8]
    rooms = [None, *sorted((arguments.shared / "rooms").glob("*.flac"))]
    lines = ["| room | WER % | CER % |", "|---|---|---|"]
    with ProcessPoolExecutor(2) as pool:
        for room, (words, letters) in zip(
            rooms, pool.map(partial(errors, arguments.bundle, utterances), rooms), strict=True
        ):
            name = room.stem if room else "as it was recorded"
            lines.append(f"| {name} | {100 * words:.1f} | {100 * letters:.1f} |")
            print(lines[-1], flush=True)
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "reverberant", "\n".join(lines))


if __name__ == "__main__":
    run(main)
