"""What hotwords win: python -m recipes.mini.hotwords [--write]

The names of every fourth utterance of dev, that is its words that the language model lacks, are given as hotwords
to all of them, as an address book is: how many are then found, how many are heard where nobody said them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jiwer
from tqdm import tqdm

from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from streamasr.events import Final
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import Recognizer, load
from streamasr.words import open_words

BONUSES = (0.0, 3.0, 5.0, 7.0, 9.0)  # 0: no hotwords at all


def listen(recognizer: Recognizer, utterance: Utterance, hotwords: dict[str, float]) -> list[str]:
    """The words of one recording."""
    stream = recognizer.stream(hotwords=hotwords)
    events = stream.accept(read_16k(utterance.audio)) + stream.finish()
    return [word for event in events if isinstance(event, Final) for word in event.text.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the bundled one")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    arguments = parser.parse_args()
    recognizer = load(arguments.bundle)
    utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)[::4]
    known = set(open_words(recognizer.bundle).lm.words)
    names = sorted({word for u in utterances for word in u.text.split()} - known)
    spoken = sum(word in names for u in utterances for word in u.text.split())
    lines = ["| bonus | names found % | names that nobody said | WER % |", "|---|---|---|---|"]
    for bonus in BONUSES:
        hotwords = dict.fromkeys(names, bonus) if bonus else {}
        heard = [listen(recognizer, u, hotwords) for u in tqdm(utterances, f"bonus {bonus:.0f}")]
        found = false = 0
        for u, words in zip(utterances, heard, strict=True):
            said = u.text.split()
            for name in {*words, *said} & set(names):
                found += min(words.count(name), said.count(name))
                false += max(0, words.count(name) - said.count(name))
        error = jiwer.wer([u.text for u in utterances], [" ".join(words) for words in heard])
        lines.append(
            f"| {f'{bonus:.0f}' if bonus else 'none'} | {100 * found / spoken:.0f} | {false} | {100 * error:.1f} |"
        )
    text = "\n".join([*lines, "", f"{len(utterances)} utterances, {len(names)} names, said {spoken} times."])
    print(text)
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "hotwords", text)


if __name__ == "__main__":
    run(main)
