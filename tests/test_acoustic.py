"""The exported graph keeps the streaming law, and is checked against its bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model
from law import check_law, onnx_stage

from streamasr.acoustic import Acoustic
from streamasr.bundle import StateSpec
from streamasr.errors import BundleError


@pytest.fixture(scope="session")
def acoustic(tiny_bundle: Any) -> Acoustic:
    return Acoustic(tiny_bundle)


def test_the_graph_keeps_the_law(acoustic: Acoustic) -> None:
    check_law(onnx_stage(acoustic), lengths=(1, 2, 5, 23))


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_other_cells_keep_the_law(cell: str, tiny_bundle_of: Callable[[str], Any]) -> None:
    check_law(onnx_stage(Acoustic(tiny_bundle_of(cell))), lengths=(1, 5, 23))


def test_it_is_torch_whole_minus_the_delay(acoustic: Acoustic) -> None:
    """The law of the whole: blocks of the stream, its end padded by `flush`, are torch's forward."""
    torch = pytest.importorskip("torch")
    from export.graph import round_weights

    model = tiny_model()
    round_weights(model)
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 10_007)).astype(np.float32)
    graph = acoustic.graph
    fed = np.pad(audio, ((0, 0), (0, graph.flush)))
    fed = fed[:, : fed.shape[1] // graph.block * graph.block]
    found, _ = onnx_stage(acoustic).step(fed, acoustic.zero_state(2))
    with torch.no_grad():
        expected = model(torch.from_numpy(audio)).numpy()
    found = found[:, graph.delay : graph.delay + model.frames(audio.shape[1])]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4


def test_threads_do_not_change_the_result(acoustic: Acoustic, tiny_bundle: Any) -> None:
    audio = np.random.default_rng(1).uniform(-0.3, 0.3, (1, acoustic.graph.block)).astype(np.float32)
    one, _ = acoustic.step(audio, acoustic.zero_state())
    two, _ = Acoustic(tiny_bundle, threads=2).step(audio, acoustic.zero_state())
    assert np.array_equal(one, two)


def test_states_that_do_not_match_are_refused(tiny_bundle: Any) -> None:
    graph = tiny_bundle.graphs["fp32"]
    name = graph.states[0].name
    wider = (StateSpec(name, ("N", 7)), *graph.states[1:])
    for states in (wider, graph.states[1:], (*graph.states, StateSpec("more", ("N", 1)))):
        bundle = replace(tiny_bundle, graphs={"fp32": replace(graph, states=states)})
        with pytest.raises(BundleError, match=r"fp32\.onnx: input '.+' is .* in the graph and .* in the bundle"):
            Acoustic(bundle)


def test_a_block_that_does_not_match_is_refused(tiny_bundle: Any) -> None:
    graph = replace(tiny_bundle.graphs["fp32"], block=640)
    with pytest.raises(BundleError, match="input 'audio'"):
        Acoustic(replace(tiny_bundle, graphs={"fp32": graph}))


def test_a_graph_that_is_none_is_refused_by_name(tiny_bundle: Any, tmp_path: Any) -> None:
    from streamasr.bundle import file_sha256

    (tmp_path / "fp32.onnx").write_bytes(b"not a graph")
    graph = replace(tiny_bundle.graphs["fp32"], sha256=file_sha256(tmp_path / "fp32.onnx"))
    with pytest.raises(BundleError, match=r"fp32\.onnx: ONNX Runtime cannot load it"):
        Acoustic(replace(tiny_bundle, graphs={"fp32": graph}, folder=tmp_path))
