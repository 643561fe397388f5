"""A torch model -> an ONNX graph whose large products are of integers: those are the same on every processor.

Weights are signed and per output channel, within +-63: on x86 without VNNI, pairs of products of 8-bit
activations and weights are summed in 16 bits that saturate, and 2 * 255 * 63 fits. Activations are unsigned, their
scale measured beforehand, so a result depends neither on the cutting of the audio nor on other streams in the
batch. The hidden state of a GRU lies in [-1, 1]: zero point 128, scale 1/127. Features and norms are computed in
double precision: what is rounded to 8 bits next must not hang on last bits, where processors differ. The gates are
fp32, so two processors may still, rarely, round a value apart (recipes/boards/RESULTS.md counts how often).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.graph import OPSET
from streamasr.acoustic import AUDIO, LOG_PROBS, NEW
from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel, Heads, LookAhead, Normalise, RecurrentLayer, Subsample
from streamasr.nn.cells import Gru
from streamasr.nn.features import LogMel, hann, mel_filters
from streamasr.nn.stage import Stage

LARGEST = 63
PRODUCER = "streamasr"


@dataclass(frozen=True)
class Scale:
    """real = (integer - zero) * step, integer in 0..255."""

    step: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """The finest scale that holds low..high and zero itself."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = float(np.float32(max(high - low, 1e-6) / 255.0))
        return cls(step, int(np.clip(round(-low / step), 0, 255)))


HIDDEN = Scale(float(np.float32(1.0 / 127.0)), 128)


def write_int8(model: AcousticModel, scales: Mapping[str, Scale], block: int, path: Path) -> None:
    """Write the graph of one step over `block` samples.

    scales: for the input of each stage that multiplies ("conv1", "gru1", ..., "heads"); a stage without one is
    computed in fp32. Initialisers are named "stage.what", and export.c reads them by these names.
    """
    graph = _Graph(scales)
    x, frames = AUDIO, block
    states = {spec.name: spec.shape for spec in model.state_specs()}
    for prefix, chain in (("front.", model.front), ("body.", model.body)):
        for name, stage in chain.stages.items():
            assert isinstance(stage, Stage)
            x = _emit(graph, name, prefix + name + ".", stage, x, frames)
            frames //= stage.stride
    graph.node("Identity", [x], LOG_PROBS)
    tokens = sum(len(head) for head in model.config.heads.values())
    inputs = {AUDIO: ("N", block), **states}
    outputs = {LOG_PROBS: ("N", frames, tokens), **{NEW + name: shape for name, shape in states.items()}}
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "streamasr",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            graph.initialisers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name=PRODUCER,
    )
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)


class _Graph:
    """Nodes and initialisers as they come; a node's output is named by its number unless it gets a name."""

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        self.scales = scales
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self._known: set[str] = set()

    def node(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        return self.nodes_of(kind, inputs, [output or f"v{len(self.nodes)}"], **attributes)[0]

    def nodes_of(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs

    def split(self, x: str, axis: int, sizes: list[int]) -> list[str]:
        outputs = [f"v{len(self.nodes)}.{i}" for i in range(len(sizes))]
        return self.nodes_of("Split", [x, self.integers(*sizes)], outputs, axis=axis)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._known:
            self._known.add(name)
            self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant("i" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def quantise(self, name: str, x: str, scale: Scale) -> str:
        step = self.constant(name + ".step", np.array(scale.step, dtype=np.float32))
        zero = self.constant(name + ".zero", np.array(scale.zero, dtype=np.uint8))
        return self.node("QuantizeLinear", [x, step, zero])

    def affine(self, name: str, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32], scale: Scale) -> str:
        """x (..., inputs), of 8 bits -> fp32 x @ weight.T + bias."""
        span = np.maximum(np.abs(weight).max(axis=1), 1e-9)
        step = (span / LARGEST).astype(np.float32)
        whole = np.clip(np.rint(weight / step[:, None]), -LARGEST, LARGEST).astype(np.int8)
        zero = self.constant(name + ".zero", np.array(scale.zero, dtype=np.uint8))
        y = self.node("MatMulInteger", [x, self.constant(name + ".weight", whole.T), zero])
        y = self.node("Cast", [y], to=TensorProto.FLOAT)
        y = self.node("Mul", [y, self.constant(name + ".scale", step * np.float32(scale.step))])
        return self.node("Add", [y, self.constant(name + ".bias", bias)])

    def multiply(self, name: str, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """x (..., inputs) -> x @ weight.T + bias, in integers where `name` has a scale."""
        if scale := self.scales.get(name):
            return self.affine(name, self.quantise(name, x, scale), weight, bias, scale)
        y = self.node("MatMul", [x, self.constant(name + ".weight", weight.T)])
        return self.node("Add", [y, self.constant(name + ".bias", bias)])

    def windows(self, x: str, starts: range, length: int) -> str:
        """(N, T, C) -> (N, len(starts), length, C)."""
        index = np.array([[start + i for i in range(length)] for start in starts], dtype=np.int64)
        return self.node("Gather", [x, self.constant(f"windows{starts.step}_{index.shape}", index)], axis=1)

    def last(self, x: str, length: int, axis: int, output: str) -> None:
        """The last `length` along an axis, as a new state; none is an empty slice."""
        start = -length if length else np.iinfo(np.int64).max
        ends = self.integers(np.iinfo(np.int64).max)
        self.node("Slice", [x, self.integers(start), ends, self.integers(axis)], output)


def _emit(graph: _Graph, name: str, state: str, stage: Stage, x: str, frames: int) -> str:
    """Append one stage; its output's name. `frames`: steps of x along time; `state`: prefix of its state's names."""
    match stage:
        case LogMel():
            return _log_mel(graph, state, stage, x, frames)
        case Normalise():
            y = graph.node("Sub", [x, graph.constant("normalise.mean", stage.mean.numpy())])
            return graph.node("Mul", [y, graph.constant("normalise.scale", stage.scale.numpy())])
        case Subsample():
            return _subsample(graph, name, state, stage, x, frames)
        case RecurrentLayer(cell=Gru() as cell, norm=nn.LayerNorm()):
            normed = _norm(graph, name, stage.norm, x)
            return graph.node("Add", [x, _gru(graph, name, state, cell, normed, frames)])
        case LookAhead():
            whole = graph.node("Concat", [state + "past", x], axis=1)
            graph.last(whole, stage.delay, 1, NEW + state + "past")
            taps = graph.windows(whole, range(frames), stage.delay + 1)
            weighed = graph.node("Mul", [taps, graph.constant(name + ".taps", stage.weight.detach().numpy())])
            return graph.node("ReduceSum", [weighed, graph.integers(2)], keepdims=0)
        case Heads():
            return _heads(graph, name, stage, x)
        case RecurrentLayer():
            raise StreamasrError(f"{name}: int8 is written for the cell 'gru' and the norm 'layer'")
    raise StreamasrError(f"{name}: int8 does not know the stage {type(stage).__name__}")


def _log_mel(graph: _Graph, state: str, stage: LogMel, x: str, samples: int) -> str:
    """The same features as fp32's.

    The DFT goes in two steps (Cooley and Tukey 1965), a sixth of the multiplications: with n = a n1 + n2 and
    k = k1 + b k2, X[k] = sum over n2 of W_a^(n2 k2) times the sum over n1 of window[n] x[n] W^(n k1).
    """
    config = stage.config
    audio = graph.node("Concat", [state + "past", x], axis=1)
    graph.last(audio, config.window - config.hop, 1, NEW + state + "past")
    inner, outer, bins = _two_steps(config.n_fft, hann(config))
    a, b = len(inner), inner.shape[1]
    frames = samples // config.hop
    # Frames of n_fft samples, of which those after the window are anything: their weight is zero.
    reach = np.minimum(np.arange(config.n_fft), config.window - 1)
    index = np.arange(frames)[:, None] * config.hop + reach
    y = graph.node("Gather", [audio, graph.constant("logmel.frames", index)], axis=1)
    y = graph.node("Cast", [y], to=TensorProto.DOUBLE)
    y = graph.node("Reshape", [y, graph.integers(-1, b, a)])
    y = graph.node("Transpose", [y], perm=[2, 0, 1])  # (a, frames, b)
    y = graph.node("MatMul", [y, graph.constant("logmel.inner", inner)])  # (a, frames, 2 * halves)
    y = graph.node("Reshape", [y, graph.integers(a, -1, 2, inner.shape[2] // 2)])
    y = graph.node("Transpose", [y], perm=[1, 3, 2, 0])  # (frames, halves, 2, a)
    y = graph.node("Reshape", [y, graph.integers(-1, 2 * a)])
    y = graph.node("MatMul", [y, graph.constant("logmel.outer", outer)])  # (frames * halves, real | imaginary)
    real, imaginary = graph.split(y, 1, [a, a])
    y = graph.node("Add", [graph.node("Mul", [real, real]), graph.node("Mul", [imaginary, imaginary])])
    y = graph.node("Reshape", [y, graph.integers(-1, frames, len(bins))])
    filters = np.where(bins[:, None] < 0, 0.0, mel_filters(config).T[bins])
    y = graph.node("MatMul", [y, graph.constant("logmel.filters", filters)])
    y = graph.node("Add", [y, graph.constant("logmel.floor", np.array(config.floor))])
    return graph.node("Cast", [graph.node("Log", [y])], to=TensorProto.FLOAT)


def _two_steps(
    n_fft: int, window: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Matrices of the DFT of n_fft = a b real samples under a window, and which bin each of its outputs is.

    inner (a, b, 2 (b // 2 + 1)), outer (2 a, 2 a): real and imaginary parts beside each other. Bins that come
    twice, since X[n_fft - k] is the conjugate of X[k], are -1 the second time.
    """
    a = max(d for d in range(1, math.isqrt(n_fft) + 1) if n_fft % d == 0)
    b = n_fft // a
    n = a * np.arange(b)[None, :] + np.arange(a)[:, None]  # (a, b)
    weight = np.zeros(n_fft)
    weight[: len(window)] = window
    turn = np.exp(-2j * np.pi * (n[:, :, None] * np.arange(b // 2 + 1) % n_fft) / n_fft) * weight[n][:, :, None]
    inner = np.concatenate([turn.real, turn.imag], axis=2)
    turn = np.exp(-2j * np.pi * (np.outer(np.arange(a), np.arange(a)) % a) / a)
    outer = np.block([[turn.real, turn.imag], [-turn.imag, turn.real]])
    k = (np.arange(b // 2 + 1)[:, None] + b * np.arange(a)).ravel()
    bins = np.minimum(k, n_fft - k)
    _, first = np.unique(bins, return_index=True)
    return inner, outer, np.where(np.isin(np.arange(len(bins)), first), bins, -1)


def _subsample(graph: _Graph, name: str, state: str, stage: Subsample, x: str, frames: int) -> str:
    whole = graph.node("Concat", [state + "past", x], axis=1)
    graph.last(whole, stage.KERNEL - stage.stride, 1, NEW + state + "past")
    scale = graph.scales.get(name)
    ready = graph.quantise(name, whole, scale) if scale else whole  # before frames are laid out twice
    taps = graph.windows(ready, range(0, frames, stage.stride), stage.KERNEL)
    row = stage.KERNEL * stage.inputs
    rows = graph.node("Reshape", [taps, graph.integers(0, frames // stage.stride, row)])
    weight = stage.conv.weight.detach().numpy().transpose(0, 2, 1).reshape(-1, row)
    assert stage.conv.bias is not None
    bias = stage.conv.bias.detach().numpy()
    y = graph.affine(name, rows, weight, bias, scale) if scale else graph.multiply(name, rows, weight, bias)
    return graph.node("Relu", [y])


def _norm(graph: _Graph, name: str, norm: Any, x: str) -> str:
    weight = graph.constant(name + ".norm.weight", norm.weight.detach().double().numpy())
    bias = graph.constant(name + ".norm.bias", norm.bias.detach().double().numpy())
    y = graph.node("Cast", [x], to=TensorProto.DOUBLE)
    y = graph.node("LayerNormalization", [y, weight, bias], axis=-1, epsilon=float(norm.eps))
    return graph.node("Cast", [y], to=TensorProto.FLOAT)


def _gru(graph: _Graph, name: str, state: str, cell: Gru, x: str, frames: int) -> str:
    """The equations of torch.nn.GRU, one step after the other."""
    rnn, width = cell.rnn, cell.rnn.hidden_size
    w_ih, w_hh, b_ih, b_hh = (p.detach().numpy() for p in rnn.parameters())
    from_input = graph.multiply(name, x, w_ih, b_ih)
    h = graph.node("Unsqueeze", [state + "h", graph.integers(1)])
    outputs = []
    for now in graph.split(from_input, 1, [1] * frames) if frames > 1 else [from_input]:
        if name in graph.scales:
            recurrent = graph.affine(name + ".h", graph.quantise(name + ".h", h, HIDDEN), w_hh, b_hh, HIDDEN)
        else:
            recurrent = graph.multiply(name + ".h", h, w_hh, b_hh)
        gates_x, new_x = graph.split(now, 2, [2 * width, width])
        gates_h, new_h = graph.split(recurrent, 2, [2 * width, width])
        gates = graph.node("Sigmoid", [graph.node("Add", [gates_x, gates_h])])
        reset, update = graph.split(gates, 2, [width, width])
        new = graph.node("Tanh", [graph.node("Add", [new_x, graph.node("Mul", [reset, new_h])])])
        kept = graph.node("Mul", [update, graph.node("Sub", [h, new])])
        h = graph.node("Add", [new, kept])
        outputs.append(h)
    graph.node("Squeeze", [h, graph.integers(1)], NEW + state + "h")
    return graph.node("Concat", outputs, axis=1) if frames > 1 else h


def _heads(graph: _Graph, name: str, stage: Heads, x: str) -> str:
    linears = [linear for linear in stage.linear.values() if isinstance(linear, nn.Linear)]
    weight = np.concatenate([linear.weight.detach().numpy() for linear in linears])
    bias = np.concatenate([linear.bias.detach().numpy() for linear in linears])
    logits = graph.multiply(name, _norm(graph, name, stage.norm, x), weight, bias)
    parts = graph.split(logits, 2, [linear.out_features for linear in linears])
    return graph.node("Concat", [graph.node("LogSoftmax", [part], axis=2) for part in parts], axis=2)
