"""LibriSpeech -> manifests: python -m recipes.librispeech.prepare --corpus mini --source DIR --out DIR

DIR of --source holds the extracted parts (train-clean-5, ..., in a folder LibriSpeech or not) or
their archives; what is not there is downloaded from openslr.org into it. --out gets a manifest for
each part, and train.jsonl, dev.jsonl and test.jsonl of them together.
"""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from recipes.librispeech.corpus import CORPORA, Corpus, CorpusError, provide
from recipes.program import run

LETTERS = frozenset(" '" + string.ascii_lowercase)


def read_part(folder: Path) -> list[dict[str, Any]]:
    """All utterances of an extracted part, in the order of their names; audio paths are absolute."""
    transcripts = sorted(folder.rglob("*.trans.txt"))
    if not transcripts:
        raise CorpusError(f"{folder}: holds no *.trans.txt; expected an extracted part of LibriSpeech")
    records = []
    for transcript in tqdm(transcripts, desc=folder.name, unit="chapter", disable=None):
        for number, line in enumerate(transcript.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                records.append(_record(line, f"{transcript}, line {number}", transcript.parent, folder.name))
    return records


def _record(line: str, where: str, folder: Path, part: str) -> dict[str, Any]:
    name, _, text = line.strip().partition(" ")
    text = " ".join(text.lower().split())
    foreign = sorted(set(text) - LETTERS)
    if not text or foreign:
        got = ", ".join(map(repr, foreign)) or "no text"
        raise CorpusError(f"{where}: got {got}; expected a name and words of the letters a to z and '")
    audio = (folder / f"{name}.flac").resolve()
    try:
        info = soundfile.info(audio)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{where}: {audio}: cannot be read ({error.error_string}); extract the part again") from error
    return {
        "audio": str(audio),
        "text": text,
        "speaker": f"ls-{name.split('-')[0]}",
        "source": f"librispeech-{part}",
        "seconds": round(info.frames / info.samplerate, 3),
    }


def write_manifest(path: Path, records: list[dict[str, Any]]) -> None:
    """Audio below the manifest's folder is written relative to it, so that the two can move together."""
    folder = path.parent.resolve()
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for record in records:
            audio = Path(record["audio"])
            place = audio.relative_to(folder) if audio.is_relative_to(folder) else audio
            file.write(json.dumps({**record, "audio": str(place)}, ensure_ascii=False) + "\n")
    partial.replace(path)


def prepare(corpus: Corpus, source: Path, out: Path, md5: dict[str, str] | None = None) -> dict[str, float]:
    """Write all manifests; hours of each. Everything is read before anything is written."""
    parts = {part: read_part(provide(part, source, (md5 or {}).get(part))) for part in corpus.parts}
    manifests = dict(parts)
    for name, members in (("train", corpus.train), ("dev", corpus.dev), ("test", corpus.test)):
        manifests[name] = [record for part in members for record in parts[part]]
    out.mkdir(parents=True, exist_ok=True)
    for name, records in manifests.items():
        write_manifest(out / f"{name}.jsonl", records)
    return {name: sum(record["seconds"] for record in records) / 3600.0 for name, records in manifests.items()}


def _checksum(value: str) -> tuple[str, str]:
    part, equals, digest = value.partition("=")
    if not equals or len(digest) != 32:
        raise argparse.ArgumentTypeError(f"got '{value}', expected PART=MD5, such as train-clean-5=0123...")
    return part, digest


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.librispeech.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", choices=CORPORA, required=True)
    parser.add_argument("--source", type=Path, required=True, help="folder with parts or archives; downloads go there")
    parser.add_argument("--out", type=Path, required=True, help="folder for the manifests")
    parser.add_argument(
        "--md5", type=_checksum, action="append", default=[], metavar="PART=MD5", help="check an archive"
    )
    arguments = parser.parse_args()
    hours = prepare(CORPORA[arguments.corpus], arguments.source, arguments.out, dict(arguments.md5))
    for name, value in hours.items():
        print(f"{arguments.out / name}.jsonl: {value:.2f} h")


if __name__ == "__main__":
    run(main)
