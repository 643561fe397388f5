"""A bundle read back into torch is the model that it was exported from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from export.onnx import make_bundle  # noqa: E402
from export.restore import restore  # noqa: E402
from streamasr.bundle import read_bundle  # noqa: E402
from streamasr.errors import BundleError  # noqa: E402


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_every_weight_comes_back(cell: str, tmp_path: Path) -> None:
    model = tiny_model(cell)
    with torch.no_grad():
        for weight in model.parameters():  # trained: no two of them are the same
            weight += 0.01 * torch.randn_like(weight)
    make_bundle(model, tmp_path / "bundle", "restored", ())  # rounds the weights
    found = restore(read_bundle(tmp_path / "bundle")).state_dict()
    assert found.keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        if "bias_hh" in name or "bias_ih" in name:
            continue  # some exporters join the two; what they compute is compared by restore itself
        assert torch.equal(found[name], weight), name


@pytest.mark.slow
def test_a_model_may_have_nine_million_parameters(tmp_path: Path) -> None:
    make_bundle(tiny_model(width=640, lookahead=[0] * 4), tmp_path / "wide", "wide", ())
    assert sum(weight.numel() for weight in restore(read_bundle(tmp_path / "wide")).parameters()) > 9_000_000


def test_equal_parameters_which_are_stored_once_come_back() -> None:
    found = restore(read_bundle(Path(__file__).parent / "data" / "toy"))
    for norm in (found.body.stages["gru1"].norm, found.body.stages["heads"].norm):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))


def test_a_graph_of_another_shape_is_refused(tiny_bundle_of: Callable[[str], Any]) -> None:
    bundle = tiny_bundle_of("gru")
    other = replace(bundle, network={**bundle.network, "conv_channels": 24})
    with pytest.raises(BundleError, match="export it again"):
        restore(other)
