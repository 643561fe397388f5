"""What the C recogniser needs of a bundle: its int8 network, read by the names that export/int8.py gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from streamasr.bundle import Bundle, Graph
from streamasr.endpoint import LAST_RESORT
from streamasr.errors import BundleError
from streamasr.nn.features import hann, mel_filters

GRAPH = "int8"
Array = NDArray[Any]


@dataclass(frozen=True)
class Affine:
    """y = weight (x - zero) scale + bias, where x is real / step + zero in 0..255."""

    weight: Array  # (outputs, inputs) int8
    scale: Array
    bias: Array
    step: float
    zero: int


@dataclass(frozen=True)
class Norm:
    """A LayerNorm."""

    weight: Array
    bias: Array
    epsilon: float


@dataclass(frozen=True)
class Conv:
    """A convolution along time, in frames."""

    inputs: int  # channels
    kernel: int
    stride: int
    affine: Affine


@dataclass(frozen=True)
class Gru:
    """x + gru(norm(x))."""

    norm: Norm
    input: Affine
    hidden: Affine


@dataclass(frozen=True)
class Ahead:
    """A look-ahead."""

    taps: Array  # (frames + 1, width)


@dataclass(frozen=True)
class Stage:
    """One layer between features and heads."""

    name: str
    layer: Conv | Gru | Ahead
    state: int  # where its state begins, in floats


@dataclass(frozen=True)
class Network:
    """All that is computed between samples and log-probabilities of letters."""

    graph: Graph
    window: Array
    filters: Array  # (n_fft // 2 + 1, mels)
    mean: Array
    scale: Array
    stages: tuple[Stage, ...]
    head_norm: Norm
    head: Affine  # of the letters only
    state: int  # floats


class _File:
    """An ONNX file's initialisers by name."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(path).graph
        self.path = path
        self._values = {value.name: value for value in graph.initializer}
        self._norms = {node.input[1]: node for node in graph.node if node.op_type == "LayerNormalization"}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> Array:
        if name not in self._values:
            raise BundleError(f"{self.path}: has no '{name}'; make it again with python -m export.quantize")
        return numpy_helper.to_array(self._values[name])

    def affine(self, name: str) -> Affine:
        weight = self[name + ".weight"].T
        if weight.dtype != np.int8:
            raise BundleError(f"{self.path}: {name} is of {weight.dtype}, expected int8: quantise every stage")
        step, zero = self[name + ".step"].item(), self[name + ".zero"].item()
        return Affine(weight, self[name + ".scale"], self[name + ".bias"], step, zero)

    def norm(self, name: str) -> Norm:
        weight = name + ".norm.weight"
        epsilon = next(a.f for a in self._norms[weight].attribute if a.name == "epsilon")
        return Norm(self[weight].astype(np.float32), self[name + ".norm.bias"].astype(np.float32), epsilon)

    def layer(self, name: str, past: tuple[int, ...]) -> Conv | Gru | Ahead:
        """past: shape of its state."""
        if name + ".taps" in self:
            return Ahead(self[name + ".taps"])
        if name + ".h.weight" in self:
            hidden = self.affine(name + ".h")
            if len(hidden.weight) != 3 * hidden.weight.shape[1]:
                raise BundleError(f"{self.path}: {name} is no GRU; the recogniser in C knows no other cell")
            return Gru(self.norm(name), self.affine(name), hidden)
        affine, (frames, inputs) = self.affine(name), past
        kernel = affine.weight.shape[1] // inputs
        return Conv(inputs, kernel, kernel - frames, affine)


def read_network(bundle: Bundle) -> Network:
    """The bundle's int8 graph; a BundleError where there is none."""
    if GRAPH not in bundle.graphs:
        raise BundleError(f"{bundle.folder}: has no graph '{GRAPH}'; make it with python -m export.quantize")
    graph, path = bundle.graph(GRAPH)
    file, features = _File(path), bundle.features
    stages, state = [], 0
    for spec in graph.states:
        room, name, *_ = spec.name.split(".")
        shape = tuple(int(size) for size in spec.shape[1:])
        if room == "body":
            stages.append(Stage(name, file.layer(name, shape), state))
        elif spec.name != "front.logmel.past" or state:
            raise BundleError(f"{path}: state '{spec.name}' is not known here; expected front.logmel.past first")
        state += math.prod(shape)
    head, (letters, _) = file.affine("heads"), bundle.head("letters")
    return Network(
        graph=graph,
        window=hann(features),
        filters=mel_filters(features).T,
        mean=file["normalise.mean"],
        scale=file["normalise.scale"],
        stages=tuple(stages),
        head_norm=file.norm("heads"),
        head=Affine(head.weight[letters], head.scale[letters], head.bias[letters], head.step, head.zero),
        state=state,
    )


@dataclass(frozen=True)
class Rule:
    """An EndpointRule in frames."""

    quiet: int
    frames: int


def rules_in_frames(bundle: Bundle, graph: Graph) -> tuple[Rule, ...]:
    """The bundle's rules; one that always ends an utterance is added where there is none: its memory is bounded."""
    frame_s = graph.stride / bundle.sample_rate
    bounded = any(rule.trailing_s <= 0.0 for rule in bundle.endpoint)
    rules = bundle.endpoint if bounded else (*bundle.endpoint, LAST_RESORT)
    return tuple(Rule(_frames(rule.trailing_s, frame_s), _frames(rule.utterance_s, frame_s)) for rule in rules)


def _frames(seconds: float, frame_s: float) -> int:
    """The smallest number of frames that streamasr.endpoint takes for `seconds` or more."""
    frames = max(0, math.ceil(seconds / frame_s) - 1)
    while frames * frame_s < seconds:
        frames += 1
    return frames
