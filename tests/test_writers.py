"""Every format, read back by a reader of its own."""

from __future__ import annotations

import json
import re

import pytest

from streamasr.events import Final, Word
from streamasr.writers import CUE_LETTERS, CUE_S, WRITERS, clock, cues

HELLO = Final("hello wörld", (Word("hello", 0.5, 0.9, 0.91), Word("wörld", 1.0, 1.5004, 0.5)), 0.5, 1.5004)
LATER = Final("again", (Word("again", 3661.25, 3661.5, 1.0),), 3661.25, 3661.5)
LONG = Final(
    " ".join(["word"] * 60),
    tuple(Word("word", 0.5 * i, 0.5 * i + 0.4, 0.8) for i in range(60)),
    0.0,
    29.9,
)


def written(name: str, finals: list[Final], warnings: list[str] | None = None, recording: str = "a talk.wav") -> str:
    writer = WRITERS[name](recording)
    return writer.begin() + "".join(map(writer.final, finals)) + writer.end(warnings or [])


def test_txt_is_a_line_an_utterance():
    assert written("txt", [HELLO, LATER]) == "hello wörld\nagain\n"


def test_srt():
    assert written("srt", [HELLO, LATER]) == (
        "1\n00:00:00,500 --> 00:00:01,500\nhello wörld\n\n2\n01:01:01,250 --> 01:01:01,500\nagain\n\n"
    )


def test_vtt_marks_each_word():
    text = written("vtt", [HELLO])
    assert text.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.500\n")
    assert re.findall(r"<([\d:.]+)>(\w+)", text) == [("00:00:01.000", "wörld")]


@pytest.mark.parametrize("finals", [[], [HELLO], [HELLO, LATER, LONG]])
def test_json_is_json_for_any_number_of_utterances(finals):
    found = json.loads(written("json", finals, ["it's cut"]))
    assert found["audio"] == "a talk.wav"
    assert found["warnings"] == ["it's cut"]
    assert [u["text"] for u in found["utterances"]] == [f.text for f in finals]
    for utterance, final in zip(found["utterances"], finals, strict=True):
        assert [w["start_s"] for w in utterance["words"]] == pytest.approx([w.start_s for w in final.words], abs=1e-3)
        assert [w["confidence"] for w in utterance["words"]] == [w.confidence for w in final.words]


def test_ctm_has_six_fields_even_where_the_name_has_spaces():
    lines = [line.split() for line in written("ctm", [HELLO]).splitlines()]
    assert lines == [
        ["a_talk", "1", "0.500", "0.400", "hello", "0.910"],
        ["a_talk", "1", "1.000", "0.500", "wörld", "0.500"],
    ]


def test_cues_can_be_read():
    parts = list(cues(LONG))
    assert [word for part in parts for word in part] == list(LONG.words)
    for cue in parts:
        assert cue[-1].end_s - cue[0].start_s <= CUE_S
        assert len(" ".join(word.text for word in cue)) <= CUE_LETTERS


def test_a_phrase_is_one_word_with_a_space_and_other_speech_no_tag():
    phrase = Final("new york <other>", (Word("new york", 1.0, 2.0, 0.9), Word("<other>", 2.0, 3.0, 0.5)), 1.0, 3.0)
    assert written("vtt", [phrase]).splitlines()[-2] == "new york <00:00:02.000>&lt;other&gt;"
    assert written("srt", [phrase]).splitlines()[-2] == "new york <other>"
    assert [line.split() for line in written("ctm", [phrase]).splitlines()] == [
        ["a_talk", "1", "1.000", "0.500", "new", "0.900"],
        ["a_talk", "1", "1.500", "0.500", "york", "0.900"],
        ["a_talk", "1", "2.000", "1.000", "<other>", "0.500"],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "00:00:00.000"), (59.9996, "00:01:00.000"), (3599.9999, "01:00:00.000")]
)
def test_clock_rounds_without_a_sixtieth_second(seconds, text):
    assert clock(seconds, ".") == text
