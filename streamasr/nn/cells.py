"""Recurrent cells, chosen by name: (N, T, width) and state -> (N, T, width) and state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from streamasr.bundle import StateSpec
from streamasr.nn.stage import Stage, State


class GruFunction(torch.autograd.Function):
    """The whole GRU sequence as one node of the graph, for training on a CPU.

    Same equations and weight layout (reset, update, new) as torch.nn.GRU. What makes it about
    twice as fast there: gradients of the weights are three large products after the loop instead
    of small ones at every step, and everything in the backward loop that does not depend on the
    incoming gradient is computed before it, for all steps at once. With `low` a 16-bit type, the
    products are computed in it; gates and the carried state stay in 32 bits.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, low: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        steps, batch, _ = x.shape  # time first
        width = h0.shape[1]
        mixed = low != h0.dtype
        x, w_ih, w_hh = x.to(low), w_ih.to(low), w_hh.to(low)
        from_input = torch.addmm(b_ih.to(low), x.reshape(steps * batch, -1), w_ih.t()).to(h0.dtype)
        from_input = from_input.view(steps, batch, 3 * width)
        recurrent = h0.new_empty(steps, batch, 3 * width)
        gates = h0.new_empty(steps, batch, 2 * width)  # reset, update
        new = h0.new_empty(steps, batch, width)
        h = h0.new_empty(steps + 1, batch, width)
        h[0] = h0
        bias, w_hh_t = b_hh.to(low), w_hh.t().contiguous()
        h_low, product_low = h0.to(low), recurrent.new_empty(batch, 3 * width, dtype=low)
        # Views are made here, all at once: in the loop they would cost as much as the arithmetic.
        loop = zip(
            h[:-1].unbind(),
            h[1:].unbind(),
            recurrent.unbind(),
            from_input[:, :, : 2 * width].unbind(),
            recurrent[:, :, : 2 * width].unbind(),
            gates.unbind(),
            from_input[:, :, 2 * width :].unbind(),
            recurrent[:, :, 2 * width :].unbind(),
            gates[:, :, :width].unbind(),
            gates[:, :, width:].unbind(),
            new.unbind(),
            strict=True,
        )
        for before, after, product, gates_x, gates_h, gate, new_x, new_h, reset, update, candidate in loop:
            if mixed:
                torch.addmm(bias, h_low.copy_(before), w_hh_t, out=product_low)
                product.copy_(product_low)
            else:
                torch.addmm(bias, before, w_hh_t, out=product)
            torch.add(gates_x, gates_h, out=gate).sigmoid_()
            torch.addcmul(new_x, reset, new_h, out=candidate)
            candidate.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)  # tanh, at a third of what tanh_() costs
            torch.lerp(candidate, before, update, out=after)
        ctx.save_for_backward(x, w_ih, w_hh, h, gates, new, recurrent[:, :, 2 * width :])
        return h[1:], h[steps].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, h, gates, new, recurrent_new = ctx.saved_tensors
        grad_out, grad_last = grads
        steps, batch, width = new.shape
        low, mixed = w_hh.dtype, w_hh.dtype != h.dtype
        reset, update = gates[:, :, :width], gates[:, :, width:]
        to_new = (1 - update) * (1 - new * new)
        # d(recurrent pre-activations) / d(h_t), for reset, update and new
        factors = torch.stack(
            [
                to_new * recurrent_new * reset * (1 - reset),
                (h[:-1] - new) * update * (1 - update),
                to_new * reset,
            ],
            dim=2,
        )
        grad_h = torch.empty_like(new)
        grad_gates = torch.empty_like(factors)
        flat = grad_gates.view(steps * batch, 3 * width)
        flat_low = torch.empty_like(flat, dtype=low) if mixed else flat
        carry_low = grad_last.new_empty(batch, width, dtype=low)
        carry = grad_last.contiguous().clone()
        loop = zip(
            grad_out.unbind(),
            grad_h.unbind(),
            grad_h.unsqueeze(2).unbind(),
            factors.unbind(),
            grad_gates.unbind(),
            flat.view(steps, batch, 3 * width).unbind(),
            flat_low.view(steps, batch, 3 * width).unbind(),
            update.unbind(),
            strict=True,
        )
        for out, here, here3, factor, grad_gate, grad_flat, grad_low, kept in reversed(list(loop)):
            torch.add(out, carry, out=here)
            torch.mul(factor, here3, out=grad_gate)
            if mixed:
                torch.mm(grad_low.copy_(grad_flat), w_hh, out=carry_low)
                carry.copy_(carry_low).addcmul_(here, kept)
            else:
                torch.mul(here, kept, out=carry)
                carry.addmm_(grad_flat, w_hh)
        before = h[:-1].reshape(steps * batch, width).to(low)
        grad_w_hh = flat_low.t() @ before
        grad_b_hh = flat.sum(0)
        grad_gates[:, :, 2] = grad_h * to_new  # on the input's side, the new gate is not yet reset
        flat_low = flat.to(low)
        grad_x = (flat_low @ w_ih).view_as(x)
        grad_w_ih = flat_low.t() @ x.reshape(steps * batch, -1)
        wide = h.dtype
        return grad_x.to(wide), carry, grad_w_ih.to(wide), grad_w_hh.to(wide), flat.sum(0), grad_b_hh, None


class Gru(Stage):
    """A gated recurrent unit (Cho et al. 2014, in cuDNN's form)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(width, width, batch_first=True)

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("h", ("N", self.rnn.hidden_size))]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if torch.is_grad_enabled() and x.device.type == "cpu":
            rnn = self.rnn
            weights = (rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0)
            low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            with torch.autocast("cpu", enabled=False):
                y, h = GruFunction.apply(x.transpose(0, 1).contiguous(), state["h"], *weights, low)  # type: ignore[no-untyped-call]
            return y.transpose(0, 1), {"h": h}
        y, h = self.rnn(x, state["h"][None])
        return y, {"h": h[0]}


class Lstm(Stage):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, width, batch_first=True)

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("h", ("N", self.rnn.hidden_size)), StateSpec("c", ("N", self.rnn.hidden_size))]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, (h, c) = self.rnn(x, (state["h"][None], state["c"][None]))
        return y, {"h": h[0], "c": c[0]}


class Rnn(Stage):
    """The simple recurrent network (Elman 1990)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(width, width, batch_first=True)

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("h", ("N", self.rnn.hidden_size))]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, h = self.rnn(x, state["h"][None])
        return y, {"h": h[0]}


def scan(keep: Tensor, add: Tensor) -> Tensor:
    """h[t] = keep[t] * h[t - 1] + add[t] for all t at once, h[-1] = 0: (N, T, width) each (Hillis and Steele 1986)."""
    shift = 1
    while shift < keep.shape[1]:
        before = nn.functional.pad(add[:, :-shift], (0, 0, shift, 0))
        add = add + keep * before
        keep = keep * nn.functional.pad(keep[:, :-shift], (0, 0, shift, 0), value=1.0)
        shift *= 2
    return add


class MinGru(Stage):
    """A GRU whose gate and candidate do not look at the state (Feng et al. 2024): trained without a loop over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)  # update, candidate

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("h", ("N", self.linear.in_features))]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        update, candidate = self.linear(x).chunk(2, dim=2)
        update = torch.sigmoid(update)
        keep, add = 1.0 - update, update * candidate
        if torch.is_grad_enabled():
            first = add[:, :1] + keep[:, :1] * state["h"][:, None]
            y = scan(keep, torch.cat([first, add[:, 1:]], dim=1))
            return y, {"h": y[:, -1]}
        h, outputs = state["h"], []
        for now_kept, now_added in zip(keep.unbind(1), add.unbind(1), strict=True):
            h = now_kept * h + now_added
            outputs.append(h)
        return torch.stack(outputs, dim=1), {"h": h}


CELLS: dict[str, type[Gru] | type[Lstm] | type[Rnn] | type[MinGru]] = {
    "gru": Gru,
    "lstm": Lstm,
    "rnn": Rnn,
    "mingru": MinGru,
}


def make_cell(name: str, width: int) -> Stage:
    """The cell called `name`; ValueError names those there are."""
    if name not in CELLS:
        raise ValueError(f"unknown cell '{name}': choose one of {', '.join(CELLS)}")
    return CELLS[name](width)
