"""Samples -> log-probabilities: one ONNX graph on blocks of one size, its state passed in and out.

A graph whose block is 0 reads a whole recording in one step, backwards too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from streamasr.bundle import Bundle
from streamasr.errors import BundleError

Floats = NDArray[np.float32]
State = Mapping[str, Floats]

AUDIO, LOG_PROBS, NEW = "audio", "log_probs", "new."  # names in every graph; state x leaves as new.x
SAMPLES = "samples"  # name of the axis of `audio` that is free where block is 0


class Acoustic:
    """A session shared by all streams; it holds no state of any of them."""

    def __init__(self, bundle: Bundle, graph: str | None = None, threads: int = 1) -> None:
        """graph: one of bundle.graphs; None: its default."""
        self.graph, path = bundle.graph(graph or bundle.default)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base
            raise BundleError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self._check(str(path), sum(len(head.tokens) for head in bundle.heads))
        self._outputs = [LOG_PROBS, *(NEW + spec.name for spec in self.graph.states)]

    def _check(self, where: str, tokens: int) -> None:
        """The graph's inputs and outputs must be what the bundle says of them."""
        declared = {AUDIO: ("N", self.graph.block or SAMPLES)} | {spec.name: spec.shape for spec in self.graph.states}
        found = {node.name: tuple(node.shape) for node in self._session.get_inputs()}
        for name in declared.keys() | found.keys():
            ours, theirs = declared.get(name), found.get(name)
            if ours != theirs:
                raise BundleError(
                    f"{where}: input '{name}' is {theirs} in the graph and {ours} in the bundle; export it again"
                )
        produced = {node.name for node in self._session.get_outputs()}
        missing = {LOG_PROBS, *(NEW + spec.name for spec in self.graph.states)} - produced
        if missing:
            raise BundleError(f"{where}: the graph has no output {', '.join(sorted(missing))}; export it again")
        zeros = np.zeros((1, self.graph.block or self.graph.stride), dtype=np.float32)
        found_shape = self._session.run([LOG_PROBS], {AUDIO: zeros, **self.zero_state()})[0].shape
        expected_shape = (1, zeros.shape[1] // self.graph.stride, tokens)
        if found_shape != expected_shape:
            raise BundleError(
                f"{where}: a block gives (batch, frames, tokens) {found_shape}, the bundle says {expected_shape}; "
                "export it again"
            )

    def zero_state(self, batch: int = 1) -> State:
        """The state of `batch` streams that have heard nothing yet."""
        return {
            spec.name: np.zeros((batch, *(int(size) for size in spec.shape[1:])), dtype=np.float32)
            for spec in self.graph.states
        }

    def step(self, audio: Floats, state: State) -> tuple[Floats, State]:
        """(N, block) samples in [-1, 1], state -> (N, block / stride, tokens of all heads), new state."""
        outputs = self._session.run(self._outputs, {AUDIO: audio, **state})
        return outputs[0], {spec.name: value for spec, value in zip(self.graph.states, outputs[1:], strict=True)}

    def run(self, audio: Floats) -> Floats:
        """The whole blocks of streams that begin: (N, samples) -> (N, frames, tokens of all heads), the delay kept."""
        block = self.graph.block or audio.shape[1] // self.graph.stride * self.graph.stride
        state, rows = self.zero_state(len(audio)), []
        for start in range(0, audio.shape[1] - block + 1, block):
            y, state = self.step(audio[:, start : start + block], state)
            rows.append(y)
        return np.concatenate(rows, axis=1)

    def whole(self, audio: Floats) -> Floats:
        """(n,) samples -> (frames, tokens of all heads): the blocks of a stream over a whole recording."""
        graph = self.graph
        frames = -(-len(audio) // graph.stride)
        zeros = graph.flush if graph.block else (max(frames, 1) + graph.delay) * graph.stride - len(audio)
        padded = np.concatenate([audio, np.zeros(zeros, dtype=np.float32)])[None]
        return self.run(padded)[0, graph.delay :][:frames]
