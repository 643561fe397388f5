"""Checkpoint -> bundle: verified, stored as fp16, refused when it differs."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import export.onnx as exporter  # noqa: E402
from export.graph import SMALL, round_weights, write_graph  # noqa: E402
from export.verify import TOLERANCE, difference  # noqa: E402
from streamasr.acoustic import Acoustic  # noqa: E402
from streamasr.bundle import read_bundle  # noqa: E402
from streamasr.errors import StreamasrError  # noqa: E402
from streamasr.training.checkpoint import load_model, save_checkpoint  # noqa: E402

ROOT = Path(__file__).parents[1]


def checkpoint(path: Path, model: Any) -> Path:
    save_checkpoint(path, {"model": model.state_dict(), "model_config": model.config.to_dict()})
    return path


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_the_graph_agrees_with_torch(cell: str, tiny_bundle_of: Callable[[str], Any]) -> None:
    bundle = tiny_bundle_of(cell)
    assert 0.0 < bundle.graphs["fp32"].parity <= TOLERANCE
    model = tiny_model(cell)
    round_weights(model)
    assert difference(model, bundle) <= TOLERANCE
    assert difference(tiny_model(cell, seed=1), bundle) > 0.01
    assert any(node.op_type == cell.upper() for node in onnx.load(bundle.folder / "fp32.onnx").graph.node)


def test_the_gru_keeps_torchs_form_of_the_equations(tiny_bundle: Any) -> None:
    nodes = [node for node in onnx.load(tiny_bundle.folder / "fp32.onnx").graph.node if node.op_type == "GRU"]
    assert len(nodes) == 3
    for node in nodes:
        assert {a.name: a.i for a in node.attribute}["linear_before_reset"] == 1


def test_large_weights_are_stored_as_half_and_constants_are_not(tiny_bundle: Any) -> None:
    graph = onnx.load(tiny_bundle.folder / "fp32.onnx").graph
    large = {t.name: t for t in graph.initializer if np.prod(t.dims) >= SMALL}
    half = {name for name, tensor in large.items() if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert half
    assert all(name.endswith(".half") for name in half)
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute]
    exact = [tensor for name, tensor in large.items() if name not in half] + constants
    sizes = {int(np.prod(tensor.dims)): tensor.data_type for tensor in exact if np.prod(tensor.dims) >= SMALL}
    assert sizes == dict.fromkeys([257 * 80, 514 * 400], onnx.TensorProto.FLOAT)  # mel filters and DFT


def test_the_batch_is_free(tiny_bundle: Any) -> None:
    acoustic = Acoustic(tiny_bundle)
    for batch in (1, 2, 7):
        y, state = acoustic.step(np.zeros((batch, acoustic.graph.block), np.float32), acoustic.zero_state(batch))
        assert len(y) == batch
        assert all(len(value) == batch for value in state.values())


def test_rounding_changes_only_large_weights() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    round_weights(model)
    for name, value in model.named_parameters():
        same = torch.equal(value, before[name])
        assert same == (value.numel() < SMALL), name
        assert torch.allclose(value, before[name], atol=1e-3)


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_then_change(model: Any, block: int, path: Path) -> None:
        write_graph(model, block, path)
        with torch.no_grad():
            model.get_parameter("body.stages.gru2.cell.rnn.weight_hh_l0")[0] += 0.1

    monkeypatch.setattr(exporter, "write_graph", write_then_change)
    with pytest.raises(StreamasrError, match=r"the graph differs from torch by .*: not written"):
        exporter.make_bundle(tiny_model(), tmp_path / "bundle", "x", ())
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_gives_no_numbers_is_not_written(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_parameter("body.stages.heads.norm.bias")[0] = float("nan")
    with pytest.raises(StreamasrError, match="differs from torch by nan"):
        exporter.make_bundle(model, tmp_path / "bundle", "x", ())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_bundle(
    tiny_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle.folder, tmp_path / "bundle")
    monkeypatch.setattr(exporter, "TOLERANCE", 0.0)
    with pytest.raises(StreamasrError, match="not written"):
        exporter.make_bundle(tiny_model(seed=1), tmp_path / "bundle", "new", ())
    assert read_bundle(tmp_path / "bundle") == tiny_bundle
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters.txt").write_text("dear")
    for target in (tmp_path / "home", tmp_path / "home" / "letters.txt"):
        with pytest.raises(StreamasrError, match="exists and is not a bundle: not overwritten; name a new folder"):
            exporter.make_bundle(tiny_model(), target, "x", ())
    assert (tmp_path / "home" / "letters.txt").read_text() == "dear"


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_checkpoints_are_averaged(norm: str, tmp_path: Path) -> None:
    models = [tiny_model(seed=seed, norm=norm) for seed in (1, 2, 4)]
    averaged = load_model([checkpoint(tmp_path / f"{i}.pt", model) for i, model in enumerate(models)])
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(value, sum(model.state_dict()[name] for model in models) / 3)


def test_checkpoints_of_different_networks_are_not(tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path / f"{cell}.pt", tiny_model(cell)) for cell in ("gru", "rnn")]
    with pytest.raises(
        StreamasrError, match=r"rnn\.pt: another network than .*gru\.pt; average checkpoints of one run"
    ):
        load_model(paths)


def command(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "export.onnx", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_exports(tmp_path: Path) -> None:
    done = command(checkpoint(tmp_path / "a.pt", tiny_model()), tmp_path / "bundle", "--name", "small")
    assert done.returncode == 0, done.stderr
    assert "differs from torch by" in done.stdout
    assert read_bundle(tmp_path / "bundle").name == "small"


def said_at_exit(monkeypatch: pytest.MonkeyPatch, *arguments: Path) -> str:
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(exporter.__file__, run_name="__main__")
    assert isinstance(caught.value.code, str)  # printed, and the exit status is 1
    return caught.value.code


def test_errors_are_one_line_and_exit_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "short.pt").write_bytes(checkpoint(tmp_path / "whole.pt", tiny_model()).read_bytes()[:5000])
    save_checkpoint(tmp_path / "other.pt", {"weights": torch.zeros(3)})
    for name, complaint in (
        ("missing.pt", "No such file"),
        ("text.pt", "not a checkpoint"),
        ("short.pt", "not a checkpoint"),
        ("other.pt", "holds no model"),
    ):
        said = said_at_exit(monkeypatch, tmp_path / name, tmp_path / "bundle")
        assert said.startswith("export: ")
        assert "\n" not in said
        assert name in said
        assert complaint in said
    assert not (tmp_path / "bundle").exists()
