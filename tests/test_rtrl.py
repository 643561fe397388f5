"""Real-time recurrent learning: the gradients of back-propagation through time, for any cutting of the sequence."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from streamasr.nn.cells import CELLS, MinGru, make_cell  # noqa: E402
from streamasr.nn.rtrl import INFLUENCE, DenseRtrl, DiagonalRtrl  # noqa: E402

EXACT = {torch.float32: 1e-5, torch.float64: 1e-10}
CUTS: list[Any] = [1, 4, 7, 100, [1, 5, 2]]


def by_back_propagation(cell: Any, x: Tensor, weigh: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradient of a loss that is not linear in the outputs."""
    y, _ = cell.step(x, state)
    names, parameters = zip(*cell.named_parameters(), strict=True)
    loss = (weigh * y.tanh()).sum()
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def forwards(rtrl: Any, x: Tensor, weigh: Tensor, state: dict[str, Tensor], cut: Any) -> dict[str, Tensor]:
    """The same, piece by piece."""
    total: dict[str, Tensor] = {}
    lengths = itertools.cycle(cut) if isinstance(cut, list) else itertools.repeat(cut)
    start = 0
    while start < x.shape[1]:
        end = min(start + next(lengths), x.shape[1])
        weights = weigh[:, start:end]
        _, part, state = rtrl.step(x[:, start:end], lambda y, w=weights: w * (1.0 - y.tanh() ** 2), state)
        total = {name: total.get(name, 0.0) + value for name, value in part.items()}
        start = end
    return total


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], dtype: Any) -> None:
    """To the last places of the largest gradient."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        largest = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, atol=EXACT[dtype] * largest, rtol=0.0, msg=name)


def case(cell: Any, batch: int, frames: int, width: int, dtype: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    x, weigh = torch.randn(batch, frames, width, dtype=dtype), torch.randn(batch, frames, width, dtype=dtype)
    return x, weigh, {name: torch.randn_like(value) for name, value in cell.zero_state(batch).items()}


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (3, 12)])
def test_dense_equals_back_propagation(name: str, batch: int, frames: int, dtype: Any) -> None:
    torch.manual_seed(0)
    cell = make_cell(name, 3).to(dtype)
    x, weigh, state = case(cell, batch, frames, 3, dtype)
    expected = by_back_propagation(cell, x, weigh, state)
    rtrl = DenseRtrl(cell)
    for cut in (1, 5):
        agree(forwards(rtrl, x, weigh, {**rtrl.zero_state(batch), **state}, cut), expected, dtype)


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize(("batch", "frames", "width"), [(1, 1, 5), (2, 16, 6), (3, 99, 24), (1, 700, 12)])
def test_diagonal_equals_back_propagation(batch: int, frames: int, width: int, cut: Any, dtype: Any) -> None:
    torch.manual_seed(0)
    cell = MinGru(width).to(dtype)
    x, weigh, state = case(cell, batch, frames, width, dtype)
    expected = by_back_propagation(cell, x, weigh, state)
    rtrl = DiagonalRtrl(cell)
    agree(forwards(rtrl, x, weigh, {**rtrl.zero_state(batch), **state}, cut), expected, dtype)


def test_diagonal_traces_are_the_dense_influence_without_its_zeros() -> None:
    torch.manual_seed(0)
    width, cell = 4, MinGru(4).double()
    x, weigh, _ = case(cell, 2, 9, width, torch.float64)
    states = []
    for rtrl in (DenseRtrl(cell), DiagonalRtrl(cell)):
        _, _, state = rtrl.step(x, lambda y: weigh, rtrl.zero_state(2))
        states.append(state)
    dense, traces = (state[INFLUENCE] for state in states)
    weight = dense[:, :, : 2 * width * width].view(2, width, 2 * width, width)
    bias = dense[:, :, 2 * width * width :]
    for unit, row in itertools.product(range(width), range(2 * width)):
        own = unit == row % width
        torch.testing.assert_close(weight[:, unit, row], traces[:, row, :-1] * own, atol=1e-12, rtol=0.0)
        torch.testing.assert_close(bias[:, unit, row], traces[:, row, -1] * own, atol=1e-12, rtol=0.0)


def test_long_memory_is_not_forgotten() -> None:
    """An error at the last frame of 2000 still teaches what the first one did, where units keep what they hold."""
    torch.manual_seed(0)
    cell = MinGru(4).double()
    with torch.no_grad():
        cell.linear.bias[:4] = -9.0  # keep: 0.9999
    x, weigh, _ = case(cell, 1, 2000, 4, torch.float64)
    x[:, 1:], weigh[:, :-1] = 0.0, 0.0
    state = cell.zero_state(1)
    expected = by_back_propagation(cell, x, weigh, state)
    rtrl = DiagonalRtrl(cell)
    found = forwards(rtrl, x, weigh, rtrl.zero_state(1), 50)
    assert float(expected["linear.weight"][4:].abs().max()) > 1e-6
    agree(found, expected, torch.float64)


def test_the_state_is_of_one_size_and_nothing_is_changed_in_place() -> None:
    rtrl = DiagonalRtrl(MinGru(6))
    state = rtrl.zero_state(2)
    before = {name: value.clone() for name, value in state.items()}
    _, gradient, new = rtrl.step(torch.randn(2, 50, 6), torch.ones_like, state)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert {name: value.shape for name, value in new.items()} == {"h": (2, 6), INFLUENCE: (2, 12, 7)}
    assert not any(value.requires_grad for value in [*new.values(), *gradient.values()])
