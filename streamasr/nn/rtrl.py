"""Real-time recurrent learning: exact gradients of a recurrent cell while the sequence goes by, without keeping it.

Back-propagation through time remembers every frame until the end has come. Here the derivative of the state with
respect to every parameter is carried along with the state (Williams and Zipser 1989), so that memory does not
depend on the length. For a dense cell this influence is state x parameters, and a frame costs state^2 x parameters:
`DenseRtrl` is for small cells, and for tests. Where a unit feeds back on itself alone, a parameter moves one unit only
(Mozer 1989; Irie et al. 2023, arXiv 2305.19044; Zucchet et al. 2023, arXiv 2305.15947): `DiagonalRtrl` carries one
number a parameter.

Both take a sequence in pieces of any length, a frame each or all at once, and carry their state as a stage does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacfwd, vmap

from streamasr.nn.cells import MinGru
from streamasr.nn.stage import Stage, State

Error = Callable[[Tensor], Tensor]  # outputs y of a piece (N, T, width) -> dLoss / dy (N, T, width), later frames apart
Gradient = dict[str, Tensor]  # name of a parameter -> its gradient, summed over the batch

INFLUENCE = "influence"


class DenseRtrl:
    """RTRL for any cell with stride 1 and delay 0, by forward-mode differentiation of one frame.

    With state s[t] = f(s[t-1], x[t], p): ds[t]/dp = df/ds ds[t-1]/dp + df/dp, (state, parameters) for each stream.
    """

    def __init__(self, cell: Stage) -> None:
        self.cell = cell
        self.shapes = {name: parameter.shape for name, parameter in cell.named_parameters()}

    def zero_state(self, batch: int) -> State:
        """The cell's state, and how little of it the parameters have moved so far: (N, state, parameters)."""
        state = self.cell.zero_state(batch)
        units = sum(value[0].numel() for value in state.values())
        weights = sum(shape.numel() for shape in self.shapes.values())
        first = next(iter(state.values()))
        return {**state, INFLUENCE: first.new_zeros(batch, units, weights)}

    def step(self, x: Tensor, error: Error, state: State) -> tuple[Tensor, Gradient, State]:
        """A piece x (N, T, inputs) -> y (N, T, width), what it adds to the gradient, state."""
        influence = state[INFLUENCE]
        own = {name: value for name, value in state.items() if name != INFLUENCE}
        weights = torch.cat([parameter.detach().flatten() for parameter in self.cell.parameters()])
        gradient = torch.zeros_like(weights)
        # Forward mode needs no graph, and torch's fused LSTM has no forward mode.
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
            y, _ = self.cell.step(x, own)
            errors = error(y)
            flat = torch.cat([value.flatten(1) for value in own.values()], dim=1)
            derive = vmap(jacfwd(self._frame, argnums=(0, 1), has_aux=True), in_dims=(None, 0, 0))
            for now, wrong in zip(x.unbind(1), errors.unbind(1), strict=True):
                (by_weights, by_state), flat = derive(weights, flat, now)
                influence_of_both = by_state @ influence + by_weights  # of y and of the new state, one below the other
                width = wrong.shape[1]
                gradient += torch.einsum("nw,nwp->p", wrong, influence_of_both[:, :width])
                influence = influence_of_both[:, width:]
        return y, self._named(gradient), {**self._shaped(flat, own), INFLUENCE: influence}

    def _frame(self, weights: Tensor, flat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One frame of one stream: (y and new state in one vector, to be derived; new state)."""
        specs = {spec.name: flat.new_empty(1, *map(int, spec.shape[1:])) for spec in self.cell.state_specs()}
        named = {f"cell.{name}": value for name, value in self._named(weights).items()}
        y, new = functional_call(_Step(self.cell), named, (x[None, None], self._shaped(flat[None], specs)))
        after = torch.cat([value.flatten() for value in new.values()])
        return torch.cat([y.flatten(), after]), after

    def _named(self, flat: Tensor) -> Gradient:
        parts = torch.split(flat, [shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @staticmethod
    def _shaped(flat: Tensor, like: Mapping[str, Tensor]) -> State:
        parts = torch.split(flat, [value[0].numel() for value in like.values()], dim=1)
        return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


class _Step(nn.Module):
    """`step` as `forward`, which is what functional_call calls."""

    def __init__(self, cell: Stage) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.cell.step(x, state)


class DiagonalRtrl:
    """RTRL for h[t] = keep[t] h[t-1] + update[t] candidate[t], whose gates look at the input only (MinGru).

    A row of the weights moves its own unit alone, so its influence E on that unit has the shape of the weights:
    E[t] = keep[t] E[t-1] + d(h[t])/d(pre-activation), h[t-1] held fixed, times x[t] (1 for the bias). The gradient
    is the sum over t of dLoss/dh[t] E[t].

    Within a piece the same sums are taken in another order: back from the piece's end to its beginning, and there
    by the E that was carried to it (Schmidhuber 1992). So E, the large tensor, is touched once a piece, not once a
    frame; a piece of one frame is the formula above. Memory: the parameters' size once more for each stream, and a
    few rows for each frame of the piece.
    """

    def __init__(self, cell: MinGru) -> None:
        self.cell = cell

    def zero_state(self, batch: int) -> State:
        """h (N, width), and influence (N, 2 width, width + 1): the weights' rows, each with its bias last."""
        weight = self.cell.linear.weight
        state = self.cell.zero_state(batch)
        return {**state, INFLUENCE: weight.new_zeros(batch, weight.shape[0], weight.shape[1] + 1)}

    @torch.no_grad()
    def step(self, x: Tensor, error: Error, state: State) -> tuple[Tensor, Gradient, State]:
        """A piece x (N, T, width) -> y (N, T, width), what it adds to the gradient, state."""
        linear = self.cell.linear
        update, candidate = linear(x).chunk(2, dim=2)
        update = torch.sigmoid(update)
        keep = 1.0 - update
        h, outputs = state["h"], []
        for kept, added in zip(keep.unbind(1), (update * candidate).unbind(1), strict=True):
            h = kept * h + added
            outputs.append(h)
        y = torch.stack(outputs, dim=1)
        before = torch.cat([state["h"][:, None], y[:, :-1]], dim=1)
        # d(h[t]) / d(pre-activations of t), h[t-1] held fixed
        local = torch.cat([(candidate - before) * update * keep, update], dim=2)
        with_one = torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)

        errors = error(y)
        last = torch.zeros_like(errors)
        last[:, -1] = 1.0  # how h at the end of the piece hangs on h[t]
        to_loss, to_end = _backwards(keep, errors), _backwards(keep, last)
        carried = state[INFLUENCE]
        rows = torch.einsum("ntr,nti->ri", local * to_loss.repeat(1, 1, 2), with_one)
        rows += torch.einsum("nr,nri->ri", (keep[:, 0] * to_loss[:, 0]).repeat(1, 2), carried)
        new = torch.einsum("ntr,nti->nri", local * to_end.repeat(1, 1, 2), with_one)
        new.addcmul_((keep[:, 0] * to_end[:, 0]).repeat(1, 2)[:, :, None], carried)
        return y, {"linear.weight": rows[:, :-1], "linear.bias": rows[:, -1]}, {"h": h, INFLUENCE: new}


def _backwards(keep: Tensor, direct: Tensor) -> Tensor:
    """total[t] = direct[t] + keep[t+1] total[t+1]: what a change of h[t] does through all frames after it, too."""
    total = direct[:, -1]
    rows = [total]
    for kept, here in zip(reversed(keep.unbind(1)[1:]), reversed(direct.unbind(1)[:-1]), strict=True):
        total = here + kept * total
        rows.append(total)
    return torch.stack(rows[::-1], dim=1)
