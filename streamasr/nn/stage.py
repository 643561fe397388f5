"""The contract that every part of the network keeps: step(x, state) -> (y, state).

A stage is causal: what it needs of the future it waits for, and says so by `delay`. Its
state is a flat dictionary of tensors that it never changes in place, so a stream can be
saved, forked, or stacked with others into one batch. `forward` of a whole utterance is
nothing but `step` over it; there is no second definition to keep in agreement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from streamasr.bundle import StateSpec

State = dict[str, Tensor]


class Stage(nn.Module):
    """One streaming layer. Subclasses set `stride` and `delay` and implement `step`."""

    stride: int = 1  # input frames for each output frame
    block: int = 1  # input frames that a step is a multiple of, where that is more than stride; 0: all there are
    delay: int = 0  # output frames by which the output lags behind the input

    def state_specs(self) -> list[StateSpec]:
        """Names and shapes of the state, the batch axis (named "N") first."""
        return []

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(N, T, inputs), state -> (N, T / stride, outputs), new state. T is a multiple of stride and of block."""
        raise NotImplementedError

    def zero_state(self, batch: int) -> State:
        """The state of a stream that has heard nothing yet."""
        reference = next(self.parameters(), torch.empty(0))
        return {
            spec.name: torch.zeros(batch, *map(int, spec.shape[1:]), dtype=reference.dtype, device=reference.device)
            for spec in self.state_specs()
        }


class Chain(Stage):
    """Stages one after the other; their states lie side by side under 'name.' prefixes."""

    def __init__(self, stages: Sequence[tuple[str, Stage]]) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(dict(stages))
        self.stride = 1
        self.delay = 0
        for _, stage in stages:
            self.block = math.lcm(self.block, self.stride * math.lcm(stage.block, stage.stride))  # 0 if one is 0
            self.stride *= stage.stride
            # A delay is counted in a stage's own output frames; the chain counts in its last ones.
            if self.delay % stage.stride:
                raise ValueError(f"a delay of {self.delay} frames cannot pass a stride of {stage.stride}")
            self.delay = self.delay // stage.stride + stage.delay

    def split(self, name: str) -> tuple[Chain, Chain]:
        """The stages up to the one called `name`, and those after it: the same stages, two shorter chains."""
        stages = list(self.stages.items())
        cut = [own for own, _ in stages].index(name) + 1
        return Chain(stages[:cut]), Chain(stages[cut:])  # type: ignore[arg-type]

    def state_specs(self) -> list[StateSpec]:
        return [
            StateSpec(f"{name}.{spec.name}", spec.shape)
            for name, stage in self.stages.items()
            for spec in stage.state_specs()  # type: ignore[operator]
        ]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        new_state: State = {}
        for name, stage in self.stages.items():
            prefix = name + "."
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            x, own = stage.step(x, own)  # type: ignore[operator]
            new_state.update({prefix + key: value for key, value in own.items()})
        return x, new_state
