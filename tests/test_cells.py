"""The recurrent cells: the fast GRU is torch's, names are checked."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from streamasr.nn.cells import CELLS, Gru, GruFunction, MinGru, make_cell, scan  # noqa: E402


def weights(rnn: nn.GRU) -> list[Tensor]:
    return [rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0]


@pytest.mark.parametrize(("steps", "batch", "inputs", "width"), [(1, 1, 3, 3), (7, 3, 5, 4), (40, 2, 6, 8)])
@pytest.mark.parametrize("last", ["outputs", "state", "both"])
def test_the_fast_gru_is_torchs(steps: int, batch: int, inputs: int, width: int, last: str) -> None:
    torch.manual_seed(0)
    rnn = nn.GRU(inputs, width).double()
    x = torch.randn(steps, batch, inputs, dtype=torch.double, requires_grad=True)
    h0 = torch.randn(batch, width, dtype=torch.double, requires_grad=True)
    expected, expected_h = rnn(x, h0[None])
    found, found_h = GruFunction.apply(x, h0, *weights(rnn), x.dtype)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0.0)
    torch.testing.assert_close(found_h, expected_h[0], atol=1e-10, rtol=0.0)
    to_y = 0.0 if last == "state" else torch.randn_like(found)
    to_h = 0.0 if last == "outputs" else torch.randn_like(found_h)
    parameters = [x, h0, *weights(rnn)]
    found_grads = torch.autograd.grad((found * to_y).sum() + (found_h * to_h).sum(), parameters)
    expected_grads = torch.autograd.grad((expected * to_y).sum() + (expected_h[0] * to_h).sum(), parameters)
    for found_grad, expected_grad in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(found_grad, expected_grad, atol=1e-10, rtol=0.0)


@pytest.mark.parametrize("which", [0, 1])
def test_a_loss_on_one_output_alone(which: int) -> None:
    """The other output's gradient is absent, not a tensor."""
    rnn = nn.GRU(3, 3).double()
    x, h0 = torch.randn(4, 2, 3, dtype=torch.double), torch.randn(2, 3, dtype=torch.double)
    found = torch.autograd.grad(GruFunction.apply(x, h0, *weights(rnn), x.dtype)[which].sum(), weights(rnn))
    expected = torch.autograd.grad(rnn(x, h0[None])[which].sum(), weights(rnn))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0.0)


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(0)
    rnn = nn.GRU(3, 4).double()
    x = torch.randn(5, 2, 3, dtype=torch.double, requires_grad=True)
    h0 = torch.randn(2, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(GruFunction.apply, (x, h0, *weights(rnn), x.dtype))


def test_training_and_running_agree() -> None:
    cell = Gru(8)
    x, state = torch.randn(3, 20, 8), {"h": torch.randn(3, 8)}
    trained, trained_state = cell.step(x, state)
    with torch.no_grad():
        run, run_state = cell.step(x, state)
    assert trained.grad_fn is not None
    torch.testing.assert_close(trained, run, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(trained_state["h"], run_state["h"], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("steps", [1, 2, 7, 64, 301])
def test_the_parallel_scan_is_the_loop(steps: int) -> None:
    torch.manual_seed(0)
    cell = MinGru(8)
    x, state = torch.randn(3, steps, 8), {"h": torch.randn(3, 8)}
    trained, trained_state = cell.step(x, state)
    with torch.no_grad():
        run, run_state = cell.step(x, state)
    assert trained.grad_fn is not None
    torch.testing.assert_close(trained, run, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(trained_state["h"], run_state["h"], atol=1e-5, rtol=0.0)


def test_gradients_of_the_scan_against_finite_differences() -> None:
    keep = torch.rand(2, 6, 3, dtype=torch.double, requires_grad=True)
    add = torch.randn(2, 6, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(scan, (keep, add))


def test_mixed_precision_stays_close() -> None:
    torch.manual_seed(0)
    cell = Gru(16)
    x, state = torch.randn(2, 10, 16), {"h": torch.zeros(2, 16)}
    exact, _ = cell.step(x, state)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = cell.step(x, state)
    torch.testing.assert_close(mixed, exact, atol=0.01, rtol=0.0)
    exact_grads = torch.autograd.grad(exact.square().sum(), weights(cell.rnn))
    mixed_grads = torch.autograd.grad(mixed.square().sum(), weights(cell.rnn))
    for found, expected in zip(mixed_grads, exact_grads, strict=True):
        assert float((found - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_by_name(name: str) -> None:
    cell = make_cell(name, 6)
    y, state = cell.step(torch.randn(2, 3, 6), cell.zero_state(2))
    assert y.shape == (2, 3, 6)
    assert {key: tuple(value.shape) for key, value in state.items()} == {s.name: (2, 6) for s in cell.state_specs()}


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^unknown cell 'qrnn': choose one of gru, lstm, rnn, mingru$"):
        make_cell("qrnn", 8)
