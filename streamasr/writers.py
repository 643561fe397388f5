"""Finals as text: txt, srt, vtt, json, ctm. Each writer gives its text piece by piece, as utterances arrive."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from streamasr.events import Final, Word

CUE_S = 6.0  # subtitles: no cue longer than this
CUE_LETTERS = 84  # two lines of 42


class Writer:
    """Plain text, one utterance a line; the other formats override what differs."""

    def __init__(self, name: str) -> None:
        self.name = name  # of the recording

    def begin(self) -> str:
        """What stands before the first utterance."""
        return ""

    def final(self, final: Final) -> str:
        """One utterance."""
        return final.text + "\n"

    def end(self, warnings: list[str]) -> str:
        """What stands after the last one."""
        return ""


def cues(final: Final) -> Iterator[list[Word]]:
    """An utterance cut between words so that each part can be read as one subtitle."""
    part: list[Word] = []
    for word in final.words:
        letters = sum(len(w.text) + 1 for w in part) + len(word.text)
        if part and (word.end_s - part[0].start_s > CUE_S or letters > CUE_LETTERS):
            yield part
            part = []
        part.append(word)
    if part:
        yield part


def clock(seconds: float, point: str) -> str:
    """hh:mm:ss and milliseconds, with `point` between them."""
    milliseconds = round(seconds * 1000.0)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def span(cue: Sequence[Word], point: str) -> str:
    """When a subtitle is shown."""
    return f"{clock(cue[0].start_s, point)} --> {clock(cue[-1].end_s, point)}"


class Srt(Writer):
    """SubRip: numbered cues."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._number = 0

    def final(self, final: Final) -> str:
        """Its cues."""
        text = ""
        for cue in cues(final):
            self._number += 1
            text += f"{self._number}\n{span(cue, ',')}\n{' '.join(word.text for word in cue)}\n\n"
        return text


class Vtt(Writer):
    """WebVTT, with a time tag before every word but a cue's first, so that players can mark the spoken one."""

    def begin(self) -> str:
        """The format's signature."""
        return "WEBVTT\n\n"

    def final(self, final: Final) -> str:
        """Its cues."""
        text = ""
        for cue in cues(final):
            first, *others = ((clock(word.start_s, "."), html.escape(word.text, quote=False)) for word in cue)
            tagged = " ".join([first[1], *(f"<{time}>{word}" for time, word in others)])
            text += f"{span(cue, '.')}\n{tagged}\n\n"
        return text


class Json(Writer):
    """One object a recording: audio, utterances with their words, warnings; one utterance a line."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._separator = "\n"

    def begin(self) -> str:
        """The head of the object."""
        return f'{{"audio": {json.dumps(self.name, ensure_ascii=False)}, "utterances": ['

    def final(self, final: Final) -> str:
        """One element of the list."""
        separator, self._separator = self._separator, ",\n"
        return separator + json.dumps(_rounded(asdict(final)), ensure_ascii=False)

    def end(self, warnings: list[str]) -> str:
        """The rest of the object."""
        return f'\n], "warnings": {json.dumps(warnings, ensure_ascii=False)}}}\n'


class Ctm(Writer):
    """NIST's time-marked conversation: recording, channel, start, duration, word, confidence."""

    def final(self, final: Final) -> str:
        """One line a word; those of a phrase share its time."""
        recording = "_".join(Path(self.name).stem.split()) or "-"
        text = ""
        for word in final.words:
            parts = word.text.split()
            lasts_s = (word.end_s - word.start_s) / len(parts)
            for i, part in enumerate(parts):
                start_s = word.start_s + i * lasts_s
                text += f"{recording} 1 {start_s:.3f} {lasts_s:.3f} {part} {word.confidence:.3f}\n"
        return text


WRITERS: dict[str, Callable[[str], Writer]] = {"txt": Writer, "srt": Srt, "vtt": Vtt, "json": Json, "ctm": Ctm}


def _rounded(value: object) -> object:
    """Times to the millisecond: more digits would say more than is known."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
