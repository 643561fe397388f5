"""The streaming law, checked in one place: step(x, state) -> (y, state), whatever the cutting.

Describe what is to be checked as a Subject and call check_law on it. Arrays have the batch axis
first and time second; y may have any number of frames for a piece, none included. A subject that
gives events rather than arrays returns them as a list, for streams one by one (batch=False).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = Any  # a mapping of arrays, unless the subject brings its own freeze and thaw


def to_bytes(state: Mapping[str, Array]) -> bytes:
    """A state as it would be written to a file."""
    file = io.BytesIO()
    np.savez(file, **state)
    return file.getvalue()


def from_bytes(data: bytes) -> dict[str, Array]:
    """The inverse of to_bytes."""
    with np.load(io.BytesIO(data)) as file:
        return {name: file[name] for name in file.files}


@dataclass(frozen=True)
class Subject:
    """Something that must keep the law."""

    zero: Callable[[int], State]  # batch -> the state of streams that have heard nothing
    step: Callable[[Array, State], tuple[Any, State]]  # (N, T, ...), state -> y, new state
    stride: int = 1  # T is a multiple of this
    inputs: tuple[int, ...] = ()  # shape of one input frame: () for samples
    tolerance: float = 1e-5  # between cuttings; 0 where the same blocks are run: exactly equal
    batch_tolerance: float = 1e-4  # between a batch and its members alone
    batch: bool = True  # whether streams can be stacked
    finish: Callable[[State], Any] | None = None  # what else comes at the end
    freeze: Callable[[State], bytes] = to_bytes
    thaw: Callable[[bytes], State] = from_bytes
    make: Callable[[np.random.Generator, tuple[int, ...]], Array] | None = None  # inputs of a shape; None: noise

    def noise(self, rng: np.random.Generator, batch: int, units: int) -> Array:
        """Input of `units` strides, its level swinging from almost nothing to loud."""
        shape = (batch, units * self.stride, *self.inputs)
        if self.make is not None:
            return self.make(rng, shape)
        level = 10.0 ** rng.uniform(-4.0, 0.0, (batch, units)).repeat(self.stride, axis=1)
        return (rng.standard_normal(shape) * level.reshape(*level.shape, *(1 for _ in self.inputs))).astype(np.float32)


def pieces(x: Array, cuts: Sequence[int], stride: int) -> Iterator[Array]:
    """x in pieces of cuts[0], cuts[1], ... strides, over and over; each a copy of its own."""
    start, turn = 0, 0
    while start < x.shape[1]:
        end = start + cuts[turn % len(cuts)] * stride
        yield x[:, start:end].copy()
        start, turn = end, turn + 1


def join(outputs: list[Any]) -> Any:
    """One output of many, along time."""
    if all(isinstance(y, list) for y in outputs):
        return [event for y in outputs for event in y]
    return np.concatenate(outputs, axis=1)


def assert_same(found: Any, expected: Any, tolerance: float, what: str) -> None:
    """Arrays within tolerance (0: to the bit), NaN nowhere; lists equal."""
    if isinstance(expected, list) or tolerance == 0.0:
        same = np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected
        assert same, f"{what}: not exactly equal"
        return
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    worst = float(np.abs(found - expected).max(initial=0.0))
    assert worst <= tolerance, f"{what}: differs by {worst:.1e}, more than {tolerance:.0e}"


def run(subject: Subject, x: Array, cuts: Sequence[int], state: State = None) -> tuple[Any, State]:
    """All outputs of x cut so, what `finish` adds included, and the state before `finish`."""
    state = subject.zero(len(x)) if state is None else state
    outputs = []
    for piece in pieces(x, cuts, subject.stride):
        y, state = subject.step(piece, state)
        outputs.append(y)
    if subject.finish is not None:
        outputs.append(subject.finish(state))
    return join(outputs), state


LENGTHS = (1, 2, 5, 23, 64)  # in strides
CUTS = ((1,), (2,), (3, 1, 7), (17,), (40, 1))  # in strides


def check_cuttings(subject: Subject, lengths: Sequence[int] = LENGTHS, cuts: Sequence[Sequence[int]] = CUTS) -> None:
    """Any cutting gives what the whole gives."""
    rng = np.random.default_rng(1)
    for units in lengths:
        x = subject.noise(rng, 1, units)
        expected, _ = run(subject, x, (units,))
        drawn = tuple(int(n) for n in rng.integers(1, max(2, units // 2), 50))
        for cut in (*cuts, drawn):
            assert_same(run(subject, x, cut)[0], expected, subject.tolerance, f"{units} strides cut {cut[:9]}")


def check_untouched(subject: Subject, units: int = 20) -> None:
    """A step changes neither the state it is given nor its input, and keeps no hold of the input's memory."""
    x = subject.noise(np.random.default_rng(2), 1, units)
    _, state = run(subject, x, (3,))
    before, piece = subject.freeze(state), x[:, : 2 * subject.stride].copy()
    first, new = subject.step(piece, state)
    first, after = join([first]), subject.freeze(new)
    assert subject.freeze(state) == before, "the state was changed in place"
    assert np.array_equal(piece, x[:, : 2 * subject.stride]), "the input was changed in place"
    piece[...] = 0.5  # as a microphone's buffer is filled again
    assert subject.freeze(new) == after, "the new state lies in the input's memory"
    again, _ = subject.step(x[:, : 2 * subject.stride].copy(), state)
    assert_same(join([again]), first, subject.tolerance, "the same step from the same state")


def check_interleaved(subject: Subject, units: int = 30) -> None:
    """Two streams that take turns get what each gets alone."""
    rng = np.random.default_rng(3)
    streams = [subject.noise(rng, 1, units) for _ in range(2)]
    cuts = ((2, 5), (3, 1))
    expected = [run(subject, x, cut)[0] for x, cut in zip(streams, cuts, strict=True)]
    queues = [list(pieces(x, cut, subject.stride)) for x, cut in zip(streams, cuts, strict=True)]
    states: list[State] = [subject.zero(1), subject.zero(1)]
    outputs: list[list[Any]] = [[], []]
    while any(queues):
        for i, queue in enumerate(queues):
            if queue:
                y, states[i] = subject.step(queue.pop(0), states[i])
                outputs[i].append(y)
    for i in range(2):
        if subject.finish is not None:
            outputs[i].append(subject.finish(states[i]))
        assert_same(join(outputs[i]), expected[i], subject.tolerance, f"stream {i} of two that take turns")


def check_saved(subject: Subject, units: int = 30) -> None:
    """A stream goes on from bytes as if it had never stopped; so does a second one from the same bytes."""
    x = subject.noise(np.random.default_rng(4), 1, units)
    expected, _ = run(subject, x, (3,))
    for middle in (3, 12, 27):
        state, outputs = subject.zero(1), []
        for piece in pieces(x[:, : middle * subject.stride], (3,), subject.stride):
            y, state = subject.step(piece, state)
            outputs.append(y)
        saved = subject.freeze(state)
        for _ in range(2):
            rest, _ = run(subject, x[:, middle * subject.stride :], (3,), subject.thaw(saved))
            assert_same(join([*outputs, rest]), expected, subject.tolerance, f"restored after {middle} strides")


def check_batch(subject: Subject, units: int = 30, size: int = 3) -> None:
    """Each member of a batch gets what it gets alone."""
    x = subject.noise(np.random.default_rng(5), size, units)
    together, _ = run(subject, x, (4,))
    for i in range(size):
        alone, _ = run(subject, x[i : i + 1], (4,))
        assert_same(together[i : i + 1], alone, subject.batch_tolerance, f"member {i} of {size}")


def check_padding(subject: Subject, units: int = 30, valid: int = 17) -> None:
    """NaN after the end of one member changes neither its outputs up to there nor the other member."""
    x = subject.noise(np.random.default_rng(6), 2, units)
    clean, _ = run(subject, x, (5,))
    expected, _ = run(subject, x[:1, : valid * subject.stride], (5,))
    x[0, valid * subject.stride :] = np.nan
    found, _ = run(subject, x, (5,))
    assert_same(found[:1, : expected.shape[1]], expected, subject.batch_tolerance, "before the NaN")
    assert_same(found[1:], clean[1:], subject.tolerance, "beside the NaN")


def check_law(subject: Subject, lengths: Sequence[int] = LENGTHS, cuts: Sequence[Sequence[int]] = CUTS) -> None:
    """All of the law. Lengths and cuts are counted in strides of the subject."""
    check_cuttings(subject, lengths, cuts)
    check_untouched(subject)
    check_interleaved(subject)
    check_saved(subject)
    if subject.batch:
        check_batch(subject)
        check_padding(subject)


def torch_stage(stage: Any, inputs: tuple[int, ...] = ()) -> Subject:
    """A stage of streamasr.nn, or the whole AcousticModel; `inputs` is the shape of one input frame."""
    import torch

    stage.eval()

    def step(x: Array, state: State) -> tuple[Array, State]:
        with torch.no_grad():
            y, new = stage.step(torch.from_numpy(x), {name: torch.from_numpy(v) for name, v in state.items()})
        return y.numpy(), {name: value.numpy() for name, value in new.items()}

    def zero(batch: int) -> State:
        return {name: value.numpy() for name, value in stage.zero_state(batch).items()}

    return Subject(zero, step, stride=math.lcm(stage.stride, stage.block), inputs=inputs)


def onnx_stage(acoustic: Any) -> Subject:
    """streamasr.acoustic.Acoustic: pieces of whole blocks, run block by block, so equal to the bit."""
    block = acoustic.graph.block

    def step(x: Array, state: State) -> tuple[Array, State]:
        outputs = []
        for start in range(0, x.shape[1], block):
            y, state = acoustic.step(np.ascontiguousarray(x[:, start : start + block]), state)
            outputs.append(y)
        return np.concatenate(outputs, axis=1), dict(state)

    return Subject(acoustic.zero_state, step, stride=block, tolerance=0.0)
