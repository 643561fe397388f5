"""The algorithmic latency that a bundle states is proved: no later sample matters, and the bound is tight.

The frame of time t (its first sample) needs samples before t + (delay + 1) stride. It leaves with
its block, which for the frame that comes first in one ends at t + delay stride + block: that is
Graph.latency, the wait included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model
from law import Array, Subject, onnx_stage, torch_stage

from streamasr.acoustic import Acoustic

FRAMES = 24
LOUD = 1000.0  # the last sample of a frame stands at the foot of the Hann window: make it count


@pytest.fixture(scope="session", params=["torch", "onnx"])
def subject(request: pytest.FixtureRequest, tiny_bundle: Any) -> Subject:
    if request.param == "onnx":
        return onnx_stage(Acoustic(tiny_bundle))
    from export.graph import round_weights

    model = tiny_model()
    round_weights(model)
    return torch_stage(model)


def by_blocks(subject: Subject, audio: Array, block: int, delay: int) -> Array:
    """The frames that have left after `audio`, block by block; what fills no block waits."""
    state, outputs = subject.zero(1), []
    for start in range(0, audio.shape[1] - block + 1, block):
        y, state = subject.step(audio[:, start : start + block].copy(), state)
        outputs.append(y)
    return np.concatenate(outputs, axis=1)[:, delay:]


@pytest.fixture(scope="session")
def frames(subject: Subject, tiny_bundle: Any) -> Callable[[Array], Array]:
    graph = tiny_bundle.graphs["fp32"]
    return lambda audio: by_blocks(subject, audio, graph.block, graph.delay)


@pytest.fixture(scope="session")
def audio(tiny_bundle: Any) -> Array:
    samples = FRAMES * tiny_bundle.graphs["fp32"].stride
    return np.random.default_rng(0).normal(0.0, 0.1, (1, samples)).astype(np.float32)


def test_the_delay_is_the_sum_of_the_look_aheads(tiny_bundle: Any) -> None:
    graph = tiny_bundle.graphs["fp32"]
    assert (graph.stride, graph.delay, graph.block) == (640, 3, 1280)
    assert graph.latency == 3 * 640 + 1280


def test_samples_after_the_latency_change_nothing(frames: Any, audio: Array, tiny_bundle: Any) -> None:
    graph = tiny_bundle.graphs["fp32"]
    expected = frames(audio)
    for frame in (0, 1, 6, 13):
        changed = audio.copy()
        changed[:, frame * graph.stride + graph.latency :] = LOUD
        assert np.array_equal(frames(changed)[:, : frame + 1], expected[:, : frame + 1]), frame


def test_what_a_frame_needs_ends_one_frame_after_the_delay(frames: Any, audio: Array, tiny_bundle: Any) -> None:
    graph = tiny_bundle.graphs["fp32"]
    expected = frames(audio)
    for frame in (0, 1, 6, 13):
        end = (frame + graph.delay + 1) * graph.stride
        outside, inside = audio.copy(), audio.copy()
        outside[:, end] = LOUD
        inside[:, end - 1] = LOUD
        assert np.array_equal(frames(outside)[:, : frame + 1], expected[:, : frame + 1]), frame
        assert np.array_equal(frames(inside)[:, :frame], expected[:, :frame]), frame
        assert not np.array_equal(frames(inside)[:, frame], expected[:, frame]), frame


def test_the_latency_is_reached_but_not_passed(frames: Any, audio: Array, tiny_bundle: Any) -> None:
    """After t + latency samples the frame of time t has always left; with one fewer, some have not."""
    graph = tiny_bundle.graphs["fp32"]
    late = []
    for frame in range(12):
        end = frame * graph.stride + graph.latency
        assert frames(audio[:, :end]).shape[1] > frame
        late.append(frames(audio[:, : end - 1]).shape[1] <= frame)
    per_block = graph.block // graph.stride
    assert late == [(frame + graph.delay) % per_block == 0 for frame in range(12)]


def test_flush_brings_the_last_frame_out(frames: Any, audio: Array, tiny_bundle: Any) -> None:
    graph = tiny_bundle.graphs["fp32"]
    for samples in (1, 639, 640, 641, 5000, 7680):
        fed = np.pad(audio[:, :samples], ((0, 0), (0, graph.flush)))
        assert frames(fed).shape[1] >= -(-samples // graph.stride), samples
