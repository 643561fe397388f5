"""The network without its decoder, and many streams in one batch. For `streamasr bench`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle
from streamasr.errors import StreamasrError
from streamasr.events import Event, Final
from streamasr.recognizer import Recognizer

Floats = NDArray[np.float32]

NETWORK_S = 60.0  # of audio for each graph
STREAM_S = 20.0  # of audio in each of many streams

# Processor time of the calling thread, which does all the work: what else runs on the machine is not counted.
CLOCK = time.thread_time if time.get_clock_info("thread_time").resolution <= 1e-6 else time.perf_counter


def graphs(bundle: Bundle, audio: Floats) -> Iterator[tuple[str, float]]:
    """Of each graph that hears blocks: cost per second of audio, time of a block, size. They take turns."""
    rate = bundle.sample_rate
    audio = np.resize(audio, int(NETWORK_S * rate))
    opened = {name: Acoustic(bundle, name) for name, graph in bundle.graphs.items() if graph.block}
    states = {name: acoustic.zero_state() for name, acoustic in opened.items()}
    times: dict[str, list[float]] = {name: [] for name in opened}
    for second in range(int(NETWORK_S)):
        for name, acoustic in opened.items():
            block = acoustic.graph.block
            here = audio[second * rate : (second + 1) * rate]
            for start in range(0, len(here) - block + 1, block):
                begin = CLOCK()
                _, states[name] = acoustic.step(here[None, start : start + block], states[name])
                times[name].append(CLOCK() - begin)
    for name, acoustic in opened.items():
        median, high = np.percentile(times[name], [50, 99])
        length_s = acoustic.graph.block / rate
        yield f"{name} network: real-time factor", float(np.mean(times[name])) / length_s
        yield f"{name} network: {length_s * 1e3:.0f} ms, median (ms)", float(median) * 1e3
        yield f"{name} network: {length_s * 1e3:.0f} ms, 99 % (ms)", float(high) * 1e3
        yield f"{name} network: file (MB)", bundle.graph(name)[1].stat().st_size / 1e6


def streams(bundle: Bundle, utterances: Sequence[Floats], count: int) -> Iterator[tuple[str, float]]:
    """`count` streams of greedy letters over the bundle's default graph, stepped together in pieces of a block."""
    recognizer = Recognizer(bundle, greedy=True)
    if not utterances:
        raise StreamasrError("bench: many streams need some audio, got none")
    length, piece = int(STREAM_S * bundle.sample_rate), recognizer.acoustic.graph.block
    long = np.concatenate(utterances)
    audio = [np.resize(np.roll(long, -i * len(long) // count), length) for i in range(count)]
    together = [recognizer.stream() for _ in audio]
    found: list[list[Event]] = [[] for _ in audio]
    begin = CLOCK()
    for start in range(0, length, piece):
        for events, new in zip(
            found, recognizer.accept(together, [a[start : start + piece] for a in audio]), strict=True
        ):
            events += new
    for stream, events in zip(together, found, strict=True):
        events += stream.finish()
    spent = CLOCK() - begin
    different = 0
    for events, a in zip(found, audio, strict=True):
        alone = recognizer.transcribe(a, bundle.sample_rate).finals
        different += [e.text for e in events if isinstance(e, Final)] != [final.text for final in alone]
    yield f"{count} streams, greedy: share of one core (%)", 100.0 * spent / STREAM_S
    yield f"{count} streams, greedy: texts other than alone", float(different)
