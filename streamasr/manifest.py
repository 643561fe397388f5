"""Manifests: one JSON object per line with audio, text, speaker and seconds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamasr.errors import ManifestError


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it. `audio` is absolute or relative to where the program runs."""

    audio: Path
    text: str
    speaker: str
    seconds: float
    source: str = ""


def spread(utterances: Sequence[Utterance], most: int) -> Sequence[Utterance]:
    """At most so many of them, at even distances from the first one on."""
    return utterances[:: max(1, len(utterances) // most)][:most]


def read_manifest(path: Path, alphabet: Iterable[str]) -> list[Utterance]:
    """All utterances of a manifest; audio paths in it are relative to the manifest's folder.

    Everything is checked before anything is used: ManifestError names the first bad line of each
    kind, so that no training stops in its third hour over a missing file.
    """
    allowed = frozenset(alphabet)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    utterances = [
        _parse(line, f"{path}, line {number}", path.parent, allowed)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not utterances:
        raise ManifestError(f"{path}: holds no utterances; expected one JSON object per line")
    return utterances


def _parse(line: str, where: str, folder: Path, allowed: frozenset[str]) -> Utterance:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where}: not JSON ({error.msg}); expected an object with audio, text, ...") from error
    if not isinstance(record, dict):
        raise ManifestError(f"{where}: expected a JSON object, got {type(record).__name__}")
    for key, kind in (("audio", str), ("text", str), ("speaker", str), ("seconds", (int, float))):
        if key not in record:
            raise ManifestError(f"{where}: no '{key}'; a line needs audio, text, speaker and seconds")
        if not isinstance(record[key], kind):
            raise ManifestError(f"{where}: '{key}' is {record[key]!r}, which is not of the right type")
    foreign = sorted(set(record["text"]) - allowed)
    if foreign:
        raise ManifestError(
            f"{where}: the text holds {', '.join(map(repr, foreign))}, outside the model's alphabet; "
            "spell it with the letters the model has"
        )
    if not record["seconds"] > 0:
        raise ManifestError(f"{where}: 'seconds' is {record['seconds']}; expected a length above 0")
    audio = folder / record["audio"]
    if not audio.is_file():
        raise ManifestError(f"{where}: {audio}: no such file")
    return Utterance(audio, record["text"], record["speaker"], float(record["seconds"]), record.get("source", ""))
