"""Samples -> log-probabilities: log-mel, subsampling, recurrent layers with look-ahead, CTC heads."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from streamasr.bundle import FeatureConfig, StateSpec
from streamasr.nn.adapter import Adapter
from streamasr.nn.attention import Attention
from streamasr.nn.bidirectional import Bidirectional
from streamasr.nn.cells import make_cell
from streamasr.nn.features import LogMel
from streamasr.nn.stage import Chain, Stage, State


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the network's shape. Lives in checkpoints and in recipes."""

    heads: dict[str, list[str]]  # name of a CTC head -> its tokens, the blank first
    features: FeatureConfig = field(default_factory=FeatureConfig)
    conv_channels: int = 192
    strides: list[int] = field(default_factory=lambda: [2, 2])  # of the convolutions, one entry each
    width: int = 320
    cell: str = "gru"
    lookahead: list[int] = field(default_factory=lambda: [2, 2, 1, 0])  # frames, one entry a layer
    join: list[int] = field(default_factory=list)  # frames laid together before each layer; none: 1 everywhere
    both: int = 0  # layers above these that read forwards and backwards,
    block_ms: int = 0  # so much audio at a time (0: all of an utterance),
    ahead_ms: int = 0  # together with so much after it
    attention: int = 0  # frames of the past that the last layer's output looks back on
    adapter: bool = False  # a layer for one speaker below the heads (recipes/adapt)
    dropout: float = 0.0
    variational: bool = False  # what is dropped stays so for a whole utterance
    norm: str = "layer"  # before each cell: layer or batch

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        return cls(**{**values, "features": FeatureConfig(**values.get("features", {}))})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Normalise(Stage):
    """(x - mean) / std with one fixed pair a mel band, measured once on training data."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("scale", torch.ones(mels))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return (x - self.mean) * self.scale, {}


class Subsample(Stage):
    """A convolution of 5 frames with a stride and a ReLU; the frames it overlaps are its state."""

    KERNEL = 5

    def __init__(self, inputs: int, outputs: int, stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        self.inputs = inputs
        self.conv = nn.Conv1d(inputs, outputs, self.KERNEL, stride=stride)

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("past", ("N", self.KERNEL - self.stride, self.inputs))]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x = torch.cat([state["past"], x], dim=1)
        y = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return y, {"past": x[:, -(self.KERNEL - self.stride) :]}


class LookAhead(Stage):
    """Row convolution (Amodei et al. 2016, Deep Speech 2): y[t] = sum over i of weight[i] * x[t + i].

    The future is waited for: y[t] leaves when x[t + frames] has come.
    """

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.delay = frames
        self.weight = nn.Parameter(torch.zeros(frames + 1, width))
        nn.init.ones_(self.weight[0])  # starts as the identity

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("past", ("N", self.delay, self.weight.shape[1]))]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x = torch.cat([state["past"], x], dim=1)
        frames = x.shape[1] - self.delay
        y = x[:, :frames] * self.weight[0]
        for i in range(1, self.delay + 1):
            y = y + x[:, i : i + frames] * self.weight[i]
        return y, {"past": x[:, frames:]}


class Join(Stage):
    """Each `stride` frames become one, by a linear layer: those above are so much slower (Chan et al. 2016)."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.stride = frames
        self.linear = nn.Linear(frames * width, width)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.linear(x.reshape(x.shape[0], -1, self.linear.in_features)), {}


class BatchNorm(nn.BatchNorm1d):
    """Over all frames of a batch while it learns, with their running mean and variance after that (Ioffe 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.num_batches_tracked = None  # a momentum is given, so nothing needs to be counted

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class VariationalDropout(nn.Dropout1d):
    """The same units are dropped in all frames of an utterance (Gal and Ghahramani 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


NORMS: dict[str, type[nn.LayerNorm] | type[BatchNorm]] = {"layer": nn.LayerNorm, "batch": BatchNorm}


def make_norm(name: str, width: int) -> nn.Module:
    """The normalisation called `name`; ValueError names those there are."""
    if name not in NORMS:
        raise ValueError(f"unknown norm '{name}': choose one of {', '.join(NORMS)}")
    return NORMS[name](width)


class RecurrentLayer(Stage):
    """x + cell(norm(x)): the residual path keeps deep stacks trainable."""

    def __init__(self, cell: str, width: int, dropout: float, variational: bool = False, norm: str = "layer") -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.cell = make_cell(cell, width)
        self.dropout = VariationalDropout(dropout) if variational else nn.Dropout(dropout)

    def state_specs(self) -> list[StateSpec]:
        return self.cell.state_specs()

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.cell.step(self.norm(x), state)
        return x + self.dropout(y), state


class Heads(Stage):
    """One linear CTC head a token set: (N, T, width) -> log-probabilities, the heads side by side."""

    def __init__(self, width: int, heads: dict[str, list[str]]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.ModuleDict({name: nn.Linear(width, len(tokens)) for name, tokens in heads.items()})

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x = self.norm(x)
        return torch.cat([torch.log_softmax(head(x), dim=2) for head in self.linear.values()], dim=2), {}


class AcousticModel(nn.Module):
    """Samples to log-probabilities over the tokens of each head, one frame per `stride` samples.

    Frame j speaks of samples [j stride, (j + 1) stride) and leaves `delay` frames later, so the
    first `delay` frames of a stream speak of time before it and are dropped by whoever steps.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        mels = config.features.mels
        self.front = Chain([("logmel", LogMel(config.features)), ("normalise", Normalise(mels))])
        self.body = Chain(_body(config))
        self.chain = Chain([("front", self.front), ("body", self.body)])
        self.stride = self.chain.stride
        self.delay = self.chain.delay
        self.block = self.chain.block  # samples that a step is a multiple of; 0: all there are

    def state_specs(self) -> list[StateSpec]:
        """The one list of state: graph inputs and outputs, bundle, run time and C all come from it."""
        return self.chain.state_specs()

    def zero_state(self, batch: int) -> State:
        return self.chain.zero_state(batch)

    def step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        """(N, T) samples, T a multiple of stride -> (N, T / stride, all heads' tokens), state."""
        return self.chain.step(audio, state)

    def frames(self, samples: int) -> int:
        """Frames that `samples` samples give: those that begin before the end."""
        return math.ceil(samples / self.stride)

    def forward(self, audio: Tensor) -> Tensor:
        """A whole padded batch: (N, T) -> (N, frames(T), all heads' tokens). The same step, then the end's delay."""
        features, _ = self.front.step(self.pad(audio), self.front.zero_state(len(audio)))
        return self.encode(features)[:, : self.frames(audio.shape[1])]

    def pad(self, audio: Tensor) -> Tensor:
        """Zeros up to a whole block and for the delay, as `finish` of a stream feeds them."""
        block = self.block or self.stride
        samples = math.ceil((audio.shape[1] + self.delay * self.stride) / block) * block
        return nn.functional.pad(audio, (0, samples - audio.shape[1]))

    def encode(self, features: Tensor, window: int | None = None) -> Tensor:
        """(N, T, mels) padded features -> (N, frames, all heads' tokens).

        With `window` (feature frames) the state is carried from window to window but gradients
        are not: truncated back-propagation through time.
        """
        state = self.body.zero_state(len(features))
        outputs = []
        for part in torch.split(features, window or features.shape[1], dim=1):
            y, state = self.body.step(part, {name: value.detach() for name, value in state.items()})
            outputs.append(y)
        return torch.cat(outputs, dim=1)[:, self.delay :]

    def split_heads(self, y: Tensor) -> dict[str, Tensor]:
        """(..., all heads' tokens) -> head name -> (..., tokens)."""
        sizes = [len(tokens) for tokens in self.config.heads.values()]
        return dict(zip(self.config.heads, torch.split(y, sizes, dim=-1), strict=True))


def _body(config: ModelConfig) -> list[tuple[str, Stage]]:
    """Everything after the features, bottom up. ValueError names what does not fit together."""
    width, layers = config.width, len(config.lookahead)
    join = config.join or [1] * layers
    if len(join) != layers:
        raise ValueError(f"join has {len(join)} entries, lookahead {layers}: expected one for each layer")
    body: list[tuple[str, Stage]] = []
    inputs, ms = config.features.mels, 1000 * config.features.hop // config.features.sample_rate
    for number, stride in enumerate(config.strides, 1):
        outputs = width if number == len(config.strides) else config.conv_channels
        body.append((f"conv{number}", Subsample(inputs, outputs, stride)))
        inputs, ms = outputs, ms * stride
    for number, (frames, joined) in enumerate(zip(config.lookahead, join, strict=True), 1):
        if joined > 1:
            body.append((f"join{number}", Join(width, joined)))
            ms *= joined
        layer = RecurrentLayer(config.cell, width, config.dropout, config.variational, config.norm)
        body.append((f"{config.cell}{number}", layer))
        if frames:
            body.append((f"ahead{number}", LookAhead(width, frames)))
    if (config.variational or config.norm != "layer") and (config.both or config.attention):
        raise ValueError("variational and norm are for layers that read forwards: not beside both or attention")
    if config.both:
        block, ahead = _frames("block_ms", config.block_ms, ms), _frames("ahead_ms", config.ahead_ms, ms)
        if ahead and not block:
            raise ValueError(f"ahead_ms is {config.ahead_ms} without block_ms: nothing lies ahead of a whole utterance")
        if config.cell == "mingru" and not block:
            raise ValueError(
                "mingru in both directions needs block_ms: its graph reads so many frames and no other number"
            )
        body.append(("both", Bidirectional(config.cell, width, config.both, config.dropout, block, ahead)))
    if config.attention:
        if config.both and not config.block_ms:
            raise ValueError(
                "attention looks back on frames of the past: give block_ms to the layers of both directions"
            )
        body.append(("attention", Attention(width, config.attention, config.dropout)))
    if config.adapter:
        body.append(("adapter", Adapter(width)))
    body.append(("heads", Heads(width, config.heads)))
    return body


def _frames(key: str, length_ms: int, frame_ms: int) -> int:
    if length_ms % frame_ms:
        raise ValueError(f"{key} is {length_ms}: expected a multiple of the {frame_ms} ms of a frame")
    return length_ms // frame_ms
