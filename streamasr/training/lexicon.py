"""Pronunciations, for the phone head: CMUdict's format, stress dropped."""

from __future__ import annotations

from pathlib import Path

# ARPAbet as CMUdict uses it (39 phones).
PHONES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
).split()


def read_lexicon(path: Path) -> dict[str, list[list[str]]]:
    """Word -> its pronunciations, the usual one first."""
    lexicon: dict[str, list[list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = line.split("#")[0].split()
        if entry:
            word = entry[0].split("(")[0]
            lexicon.setdefault(word, []).append([phone.rstrip("012") for phone in entry[1:]])
    return lexicon


def pronounce(text: str, lexicon: dict[str, list[list[str]]]) -> list[str] | None:
    """The phones of a whole text, or None where a word is not in the lexicon."""
    words = text.split()
    if not all(word in lexicon for word in words):
        return None
    return [phone for word in words for phone in lexicon[word][0]]
