"""A bundle is read strictly: whatever is not as it was written is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamasr.bundle import (
    FORMAT,
    Bundle,
    ConfidenceModel,
    EndpointRule,
    Evidence,
    FeatureConfig,
    Graph,
    Head,
    Source,
    StateSpec,
    Timing,
    Tuning,
    file_sha256,
    read_bundle,
    write_bundle,
)
from streamasr.errors import BundleError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "fp32.onnx").write_bytes(b"weights")
    made = Bundle(
        format=FORMAT,
        name="test",
        version="1",
        language="en",
        features=FeatureConfig(),
        heads=(Head("letters", ("<blank>", " ", "ä")), Head("phones", ("<blank>", "AA"))),
        graphs={
            "fp32": Graph(
                file="fp32.onnx",
                sha256=file_sha256(tmp_path / "fp32.onnx"),
                block=1280,
                stride=640,
                delay=3,
                states=(StateSpec("past", ("N", 240)), StateSpec("gru1.h", ("N", 24))),
                parity=1e-6,
            )
        },
        default="fp32",
        network={"width": 24, "lookahead": [1, 2, 0]},
        tuning={"greedy": Tuning(Timing(start=-640, end=320), ConfidenceModel(bias=0.5), -0.2)},
        search=None,
        endpoint=(EndpointRule(0.8), EndpointRule(0.4, 15.0)),
        sources=(Source("LibriSpeech", "CC BY 4.0", 4.4),),
        measured={"wer": 12.5},
        folder=tmp_path,
    )
    write_bundle(made)
    return made


def test_what_was_written_is_read(bundle: Bundle) -> None:
    found = read_bundle(bundle.folder)
    assert found == bundle
    assert found.folder == bundle.folder
    assert found.checksum == bundle.checksum
    assert found.sample_rate == 16000


def change(bundle: Bundle, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = bundle.folder / "bundle.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    edit(values)
    path.write_text(json.dumps(values), encoding="utf-8")


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key": (lambda v: v.update(colour="red"), "unknown key 'colour'"),
    "unknown key within": (lambda v: v["features"].update(bands=3), r"\.features: unknown key 'bands'"),
    "unknown key in a graph": (lambda v: v["graphs"]["fp32"].update(flush=3), r"\.graphs\.fp32: unknown key 'flush'"),
    "missing key": (lambda v: v.pop("heads"), "the key 'heads' is missing"),
    "missing key within": (lambda v: v["graphs"]["fp32"].pop("sha256"), r"graphs\.fp32: the key 'sha256' is missing"),
    "missing in a list": (lambda v: v["endpoint"][1].pop("trailing_s"), r"endpoint\[1\]: the key 'trailing_s'"),
    "text for a number": (
        lambda v: v["graphs"]["fp32"].update(block="1280"),
        r"graphs\.fp32\.block: expected int, got '1280'",
    ),
    "fraction for a whole": (lambda v: v["features"].update(hop=160.5), r"features\.hop: expected int, got 160\.5"),
    "bool for a number": (
        lambda v: v["tuning"]["greedy"]["timing"].update(start=True),
        r"tuning\.greedy\.timing\.start: expected int, got True",
    ),
    "number for a list": (lambda v: v.update(heads=3), r"heads: expected a list, got 3"),
    "list for an object": (lambda v: v.update(graphs=[]), r"graphs: expected an object, got \[\]"),
    "null": (lambda v: v.update(name=None), r"name: expected str, got None"),
    "token not text": (lambda v: v["heads"][0]["tokens"].append(7), r"heads\[0\]\.tokens\[3\]: expected str, got 7"),
    "format of the future": (lambda v: v.update(format=99), "format 99, this version of streamasr reads format 4"),
    "no format": (lambda v: v.pop("format"), "format None, this version of streamasr reads format 4"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_error_names_the_file_and_the_key(name: str, bundle: Bundle) -> None:
    edit, complaint = EDITS[name]
    change(bundle, edit)
    with pytest.raises(BundleError, match=complaint) as caught:
        read_bundle(bundle.folder)
    assert str(bundle.folder / "bundle.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_number_does_for_a_float(bundle: Bundle) -> None:
    change(bundle, lambda v: v["graphs"]["fp32"].update(parity=0))
    assert read_bundle(bundle.folder).graphs["fp32"].parity == 0.0


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"{", "not JSON"), (b"\xff\xfe", "not JSON"), (b"[1]", "format None"), (b"", "not JSON")],
)
def test_a_damaged_file_is_named(content: bytes, complaint: str, bundle: Bundle) -> None:
    (bundle.folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"bundle\.json: {complaint}"):
        read_bundle(bundle.folder)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"bundle\.json: cannot be read: No such file.*; expected the folder of a model"
    ):
        read_bundle(tmp_path / "nowhere")


def test_the_graph_that_was_written(bundle: Bundle) -> None:
    graph, path = bundle.graph("fp32")
    assert path == bundle.folder / "fp32.onnx"
    assert graph.latency == graph.flush == 3 * 640 + 1280


def test_another_graph_is_refused(bundle: Bundle) -> None:
    (bundle.folder / "fp32.onnx").write_bytes(b"weightz")
    with pytest.raises(
        BundleError, match=r"fp32\.onnx: checksum [0-9a-f]{12}, expected [0-9a-f]{12}; copy the file again"
    ):
        bundle.graph("fp32")


def test_half_a_description_replaces_none(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(replace(bundle, version="2"))
    assert read_bundle(bundle.folder) == bundle
    assert not [path for path in bundle.folder.iterdir() if path.name.startswith(".")]


def test_a_missing_graph_is_named(bundle: Bundle) -> None:
    (bundle.folder / "fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"fp32\.onnx: cannot be read: .*; copy the whole bundle folder"):
        bundle.graph("fp32")


def test_an_unknown_graph_or_head_is_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="has no graph 'int8', only fp32"):
        bundle.graph("int8")
    with pytest.raises(BundleError, match="has no head 'words', only letters, phones"):
        bundle.head("words")


def test_heads_lie_side_by_side(bundle: Bundle) -> None:
    assert bundle.head("letters") == (slice(0, 3), ("<blank>", " ", "ä"))
    assert bundle.head("phones") == (slice(3, 5), ("<blank>", "AA"))


def test_the_checksum_names_graphs_and_tokens(bundle: Bundle) -> None:
    other_tokens = replace(bundle, heads=(Head("letters", ("<blank>", "a")),))
    other_graph = replace(bundle, graphs={"fp32": replace(bundle.graphs["fp32"], sha256="0" * 64)})
    assert len({bundle.checksum, other_tokens.checksum, other_graph.checksum}) == 3
    assert replace(bundle, measured={}, name="renamed").checksum == bundle.checksum


def test_confidence_is_a_probability() -> None:
    model = ConfidenceModel(bias=1.0, mean_log_prob=2.0, min_log_prob=1.0, tokens=0.1, lm_log_prob=0.2)
    sure, unsure = model(Evidence(-0.015, -0.02, 2, -4.0)), model(Evidence(-4.0, -8.0, 2, -0.1))
    assert 0.0 < unsure < 0.5 < sure < 1.0
    assert model(Evidence(-0.5, -0.5, 2, -1.0, -9.0)) < model(Evidence(-0.5, -0.5, 2, -1.0, -1.0))
    assert 0.0 < model(Evidence(-1e9, -1e9, 1, -1.0)) < 1e-6


def test_one_word_that_is_no_silence_makes_an_utterance() -> None:
    doubtful, clear = Evidence(-0.1, -0.1, 2, -0.5), Evidence(-3.0, -5.0, 2, -2.0)
    tuning = Tuning(silence=-1.0)
    assert tuning.spoken([doubtful, clear])
    assert not tuning.spoken([doubtful, doubtful])
    assert not tuning.spoken([])
    assert Tuning().spoken([Evidence(-9.0, -9.0, 1, 0.0)]), "nothing is noise unless a bundle says so"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: v["graphs"]["fp32"].update(stride=0), "stride"),
        (lambda v: v["graphs"]["fp32"].update(stride=320), "frames"),
        (lambda v: v["graphs"]["fp32"].update(block=1000), "block"),
        (lambda v: v["graphs"]["fp32"].update(delay=-1), "delay"),
        (lambda v: v["graphs"]["fp32"].update(file="../fp32.onnx"), "own folder"),
        (lambda v: v["features"].update(sample_rate=0), "sample_rate"),
        (lambda v: v["heads"][0].update(tokens=["<blank>", "a"]), "space"),
        (lambda v: v["heads"].pop(), "search.head"),
        (lambda v: v["search"]["beam"].update(token_penalties=[0.5]), "token_penalties"),
    ],
)
def test_values_that_cannot_be(tmp_path, change, named):
    import json
    import shutil
    from pathlib import Path

    import streamasr

    shutil.copytree(Path(__file__).parent / "data" / "toy", tmp_path / "toy")
    path = tmp_path / "toy" / "bundle.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(streamasr.BundleError, match=named):
        streamasr.load(tmp_path / "toy")
