"""int8: the same numbers for any cutting and any company, close to fp32, refused where it costs words."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model
from law import check_law, onnx_stage

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from export import ort  # noqa: E402
from export import quantize as quantizer  # noqa: E402
from export import verify as verifier  # noqa: E402
from export.calibrate import calibrate, products  # noqa: E402
from export.graph import round_weights  # noqa: E402
from export.int8 import HIDDEN, LARGEST, Scale, write_int8  # noqa: E402
from export.quantize import add_graph, cost, quantize  # noqa: E402
from streamasr.acoustic import Acoustic  # noqa: E402
from streamasr.bundle import Bundle, read_bundle, write_bundle  # noqa: E402
from streamasr.errors import StreamasrError  # noqa: E402
from streamasr.recognizer import load  # noqa: E402

DATA = Path(__file__).parent / "data"


def model_of(cell: str = "gru") -> Any:
    model = tiny_model(cell)
    round_weights(model)
    return model


def noise(seconds: float = 2.0) -> Any:
    return (0.1 * np.random.default_rng(0).standard_normal(int(16000 * seconds))).astype(np.float32)


@pytest.fixture(scope="module")
def quantised(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = model_of()
    return add_graph(model, replace(tiny_bundle, folder=copy_of(tiny_bundle, tmp_path_factory)), scales_of(model), 0.0)


def copy_of(bundle: Bundle, factory: pytest.TempPathFactory) -> Path:
    folder = factory.mktemp("int8") / "bundle"
    shutil.copytree(bundle.folder, folder)
    return folder


def scales_of(model: Any) -> dict[str, Scale]:
    return calibrate(model, [noise()])


def test_a_scale_holds_zero_and_both_ends() -> None:
    for low, high in ((-1.0, 3.0), (0.0, 20.0), (-5.0, -1.0), (0.0, 0.0)):
        scale = Scale.of(low, high)
        assert 0 <= scale.zero <= 255
        assert (255 - scale.zero) * scale.step >= max(high, 0.0) - scale.step
        assert -scale.zero * scale.step <= min(low, 0.0) + scale.step
    assert (HIDDEN.step * (255 - HIDDEN.zero), HIDDEN.step * (1 - HIDDEN.zero)) == pytest.approx((1.0, -1.0))


def test_every_large_product_is_calibrated() -> None:
    model = model_of()
    names = [name for name, _ in products(model)]
    assert names == ["conv1", "conv2", "gru1", "gru2", "gru3", "heads"]
    assert list(scales_of(model)) == names


def test_without_scales_it_is_the_fp32_graph(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = copy_of(tiny_bundle, tmp_path_factory)
    made = add_graph(model_of(), replace(tiny_bundle, folder=folder), {}, 0.0)
    fp32, other = Acoustic(tiny_bundle).whole(noise()), Acoustic(made, "int8").whole(noise())
    np.testing.assert_allclose(other, fp32, atol=1e-4, rtol=0.0)


def test_the_law_holds_to_the_bit(quantised: Bundle) -> None:
    check_law(replace(onnx_stage(Acoustic(quantised, "int8")), batch_tolerance=0.0), lengths=(1, 3, 12))


def test_it_is_close_to_fp32_and_not_equal(quantised: Bundle) -> None:
    expected = Acoustic(quantised, "fp32").whole(noise())
    found = cost(quantised, Acoustic(quantised, "int8"), [expected], [noise()])
    assert 0.0 < found.mean < 0.1
    assert found.mean <= found.largest
    assert found.changed < 0.3


def test_no_sum_of_two_products_leaves_16_bits(quantised: Bundle) -> None:
    """x86 without VNNI adds pairs of u8 x s8 products in 16 bits that saturate."""
    _, path = quantised.graph("int8")
    graph = onnx.load(path).graph
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 2 + 3 * (1 + 2) + 1  # convolutions, a layer's input and its two steps, heads
    for node in products:
        weight = weights[node.input[1]].astype(int)
        assert weights[node.input[2]].dtype == np.uint8
        assert np.abs(weight).max() == LARGEST
    assert 2 * 255 * LARGEST < 2**15


def test_stages_can_stay_wide(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = model_of()
    scales = {name: scale for name, scale in scales_of(model).items() if name != "gru2"}
    made = add_graph(model, replace(tiny_bundle, folder=copy_of(tiny_bundle, tmp_path_factory)), scales, 0.0)
    _, path = made.graph("int8")
    weights = {t.name: t.data_type for t in onnx.load(path).graph.initializer}
    assert weights["gru2.weight"] == weights["gru2.h.weight"] == onnx.TensorProto.FLOAT
    assert weights["gru1.weight"] == weights["gru1.h.weight"] == onnx.TensorProto.INT8


@pytest.mark.parametrize("cell", ["lstm", "rnn", "mingru"])
def test_other_cells_are_refused_by_name(cell: str, tmp_path: Path) -> None:
    model = model_of(cell)
    scales = calibrate(model, [np.zeros(3200, dtype=np.float32)])
    with pytest.raises(StreamasrError, match=f"{cell}1: int8 is written for the cell 'gru'"):
        write_int8(model, scales, 1280, tmp_path / "x.onnx")


# The command


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    shutil.copytree(DATA / "toy", tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    line = {"audio": str(DATA / "sample.wav"), "text": "an old man", "speaker": "a", "seconds": 5.0}
    (tmp_path / "speech.jsonl").write_text((json.dumps(line) + "\n") * 3)
    return tmp_path / "speech.jsonl"


def test_a_bundle_gets_its_second_graph(toy: Path, manifest: Path) -> None:
    made, report = quantize(toy, manifest)
    assert read_bundle(toy) == made
    assert set(made.graphs) == {"fp32", "int8"}
    assert made.graphs["int8"].parity > 0.0
    said = "\n".join(report)
    assert all(f"\n| {name} | " in said for name in ("conv1", "gru2", "heads", "all"))
    audio = noise(4.0)
    whole = load(toy, "int8").transcribe(audio, 16000)
    assert load(toy, "int8").transcribe(audio, 16000) == whole
    default = load(toy).acoustic.graph
    assert default == made.graphs[made.default]


def test_streams_stepped_together_are_equal_to_the_bit(toy: Path, manifest: Path) -> None:
    quantize(toy, manifest)
    recognizer = load(toy, "int8")
    audio = [noise(3.0) * np.float32(level) for level in (1.0, 0.3, 2.0, 0.7, 0.1)]
    streams = [recognizer.stream() for _ in audio]
    found: list[list[Any]] = [[] for _ in audio]
    for start in range(0, 48000, 4000):
        for events, new in zip(
            found, recognizer.accept(streams, [a[start : start + 4000] for a in audio]), strict=True
        ):
            events += new
    for stream, events, whole in zip(streams, found, audio, strict=True):
        alone = recognizer.stream()
        assert events + stream.finish() == alone.accept(whole) + alone.finish()


def test_what_costs_words_is_not_written(toy: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"fp32": 0.2, "int8": 0.206}
    monkeypatch.setattr(quantizer, "word_error", lambda bundle, graph, heard: errors[graph])
    before = sorted(path.name for path in toy.iterdir())
    with pytest.raises(StreamasrError, match=r"costs 0\.60 points .* not written; leave the worst stages wide"):
        quantize(toy, manifest)
    assert sorted(path.name for path in toy.iterdir()) == before
    errors["int8"] = 0.204
    assert quantize(toy, manifest)[0].default == "fp32"
    errors["int8"] = 0.2005
    assert quantize(toy, manifest)[0].default == "int8"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["toy", "--calibration", "none.jsonl"], "none.jsonl: cannot be read"),
        (["none", "--calibration", "speech.jsonl"], "expected the folder of a model"),
        (["toy", "--calibration", "speech.jsonl", "--keep", "gru7"], "no stage gru7; there are conv1, conv2, gru1"),
        (["toy", "--calibration", "empty.jsonl"], "holds 0 utterances|no utterances"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], complaint: str, toy: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy.parent)
    Path("empty.jsonl").write_text("")
    monkeypatch.setattr("sys.argv", ["quantize", *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(quantizer.__file__, run_name="__main__")
    assert isinstance(said := caught.value.code, str)  # printed, and the exit status is 1
    assert "\n" not in said
    assert any(part in said for part in complaint.split("|")), said


def test_verify_says_what_a_graph_is(toy: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantize(toy, manifest)
    capsys.readouterr()
    assert verifier.verify(read_bundle(toy), [DATA / "sample.wav"]) == []
    said = capsys.readouterr().out
    assert "int8.onnx: " in said
    assert "opset 17" in said
    assert "MatMulInteger 9" in said
    assert "int8, a batch of 3 against its members alone: 0.0e+00" in said


def test_graphs_in_ort_format_and_the_operators_they_need(
    toy: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, _ = quantize(toy, manifest)
    written = ort.convert(bundle, tmp_path / "ort")
    assert [path.name for path in written] == ["fp32.ort", "int8.ort", "operators.config"]
    assert "MatMulInteger" in written[-1].read_text()
    monkeypatch.setattr(ort, "TOLERANCE", -1.0)
    with pytest.raises(StreamasrError, match=r"fp32\.ort differs from the bundle's graph"):
        ort.convert(bundle, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_verify_refuses_a_graph_that_is_not_torchs(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "TOLERANCE", 0.0)
    problems = verifier.verify(read_bundle(toy), [])
    assert any("fp32 differs from torch" in problem for problem in problems)


def test_a_default_that_is_not_there_is_refused(toy: Path) -> None:
    write_bundle(replace(read_bundle(toy), default="int8"))
    with pytest.raises(StreamasrError, match="default among the graphs does not hold"):
        read_bundle(toy)
