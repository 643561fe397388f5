"""A second network has the last word: at every endpoint, for any cutting, saved or not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("onnx")

import streamasr
from export import ort
from export.second import add_second
from streamasr.acoustic import Acoustic
from streamasr.bundle import SECOND, read_bundle
from streamasr.cli import main
from streamasr.errors import StreamasrError
from streamasr.events import Final, Partial
from streamasr.second_pass import NOTHING, Reread
from tests.law import check_law
from tests.test_stream import TOY, events_of, noise, subject
from tests.toy import toy_model


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with a second network."""
    folder = tmp_path_factory.mktemp("two") / "toy"
    shutil.copytree(TOY, folder)
    add_second(folder, toy_model(lookahead=[1], both=1))
    return folder


@pytest.fixture(scope="module", params=["beam", "greedy"])
def recognizer(two: Path, request: pytest.FixtureRequest) -> streamasr.Recognizer:
    return streamasr.load(two, greedy=request.param == "greedy", second_pass=True)


def test_the_law(recognizer: streamasr.Recognizer) -> None:
    check_law(subject(recognizer))


def test_finals_are_what_the_second_network_hears(recognizer: streamasr.Recognizer, two: Path) -> None:
    audio = noise(7, 30.0)
    finals = [event for event in events_of(recognizer, audio, [4000]) if isinstance(event, Final)]
    first = streamasr.load(two, greedy=not hasattr(recognizer.decoder, "with_phrases"))
    others = [event for event in events_of(first, audio, [4000]) if isinstance(event, Final)]
    assert len(finals) > 1
    assert [final.text for final in finals] != [final.text for final in others]
    ends = [word.end_s for final in finals for word in final.words]
    assert ends == sorted(ends)
    assert ends[-1] <= len(audio) / 16000


def test_nothing_is_stable_before_it_has_spoken(recognizer: streamasr.Recognizer) -> None:
    partials = [event for event in events_of(recognizer, noise(7, 30.0), [4000]) if isinstance(event, Partial)]
    assert any(partial.text for partial in partials)
    assert not any(partial.stable for partial in partials)


def test_the_utterance_alone_gives_the_same_words(two: Path) -> None:
    """One utterance that begins with the stream and ends with it: the second pass is that graph over all of it."""
    audio = noise(3, 1.5)
    both = streamasr.load(two, greedy=True, second_pass=True)
    alone = streamasr.load(two, graph=SECOND, greedy=True)
    rules = (streamasr.bundle.EndpointRule(60.0),)

    def words(recognizer: streamasr.Recognizer) -> list[Any]:
        stream = recognizer.stream(endpoint=rules)
        return [e.words for e in stream.accept(audio) + stream.finish() if isinstance(e, Final)]

    assert words(both)
    assert words(both) == words(alone)


def test_quiet_costs_no_memory(two: Path) -> None:
    stream = streamasr.load(two, greedy=True, second_pass=True).stream()
    for _ in range(120):
        stream.accept(np.zeros(16000, dtype=np.float32))
    kept = stream._state.again
    assert kept.end == stream._state.heard
    assert len(kept.samples) < 2 * 16000


def test_a_snapshot_is_for_the_passes_it_was_taken_with(two: Path) -> None:
    once, twice = (streamasr.load(two, second_pass=second) for second in (False, True))
    for one, other in ((once, twice), (twice, once)):
        with pytest.raises(streamasr.StreamError, match="another second_pass"):
            other.stream(one.stream().snapshot())


@given(st.lists(st.integers(1, 30), min_size=1), st.integers(0, 60), st.integers(0, 60))
def test_what_is_kept_does_not_depend_on_the_pieces(lengths: list[int], back: int, then: int) -> None:
    pieces, whole = NOTHING, np.arange(4 * sum(lengths), dtype=np.float32)
    for length in lengths:
        pieces = pieces.add(whole[pieces.end : pieces.end + 4 * length]).keep(4 * back, 4)
    saved = Reread((pieces.samples,), pieces.end)
    for one in (pieces, saved):
        kept = one.keep(4 * then, 4)
        assert len(kept.samples) == min(4 * then, 4 * back, len(whole))
        assert np.array_equal(kept.samples, whole[len(whole) - len(kept.samples) :])


@given(st.lists(st.tuples(st.sampled_from(["add", "keep", "after"]), st.integers(0, 40)), max_size=30))
def test_what_is_kept_is_what_was_heard(steps: list[tuple[str, int]]) -> None:
    heard, kept = np.zeros(0, dtype=np.float32), NOTHING
    for what, number in steps:
        if what == "add":
            new = np.arange(len(heard), len(heard) + 4 * number, dtype=np.float32)
            heard, kept = np.concatenate([heard, new]), kept.add(new)
        else:
            kept = kept.keep(4 * number, 4) if what == "keep" else kept.after(4 * number)
        assert kept.end == len(heard)
        assert np.array_equal(kept.samples, heard[kept.start :])
        assert kept.start % 4 == 0
        middle = (kept.start + kept.end) // 2
        assert np.array_equal(kept.until(middle).samples, heard[kept.start : middle])
        assert kept.until(middle).start == kept.start


def test_a_bundle_without_one_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["transcribe", "--second-pass", "--model", str(TOY), str(tmp_path / "x.wav")]) == 1
    assert "has no graph 'second' for a second pass; do without it" in capsys.readouterr().err


def test_a_network_that_does_not_fit_is_refused(two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    shutil.copytree(TOY, folder)
    with pytest.raises(StreamasrError, match="expected a model with `both` and without block_ms"):
        add_second(folder, toy_model())
    with pytest.raises(StreamasrError, match="frames of 960 samples, the first network's have 640"):
        add_second(folder, toy_model(strides=[3, 2], both=1))
    assert not (folder / f"{SECOND}.onnx").exists()
    assert Acoustic(streamasr.bundle.read_bundle(two), SECOND).graph.block == 0


def test_a_network_that_is_refused_leaves_the_one_before(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(two, tmp_path / "toy")
    monkeypatch.setattr("export.second.difference", lambda *_, **__: 1.0)
    with pytest.raises(StreamasrError, match="not added"):
        add_second(folder, toy_model(lookahead=[2], both=1))
    assert list(tmp_path.iterdir()) == [folder]
    streamasr.load(folder, second_pass=True)


def test_all_graphs_of_it_go_into_ort_format(two: Path, tmp_path: Path) -> None:
    written = ort.convert(read_bundle(two), tmp_path)
    assert [path.name for path in written] == ["fp32.ort", "second.ort", "operators.config"]
