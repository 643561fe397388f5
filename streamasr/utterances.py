"""From frames to events: what is shown of an utterance, when it ends, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.acoustic import Acoustic, State
from streamasr.bundle import Bundle, EndpointRule, Graph, Tuning
from streamasr.decoding.hypothesis import Decoder, Hypothesis, HypothesisWord, decoded
from streamasr.endpoint import is_endpoint
from streamasr.events import Event, Final, Partial, Word
from streamasr.second_pass import NOTHING, Reread

Floats = NDArray[np.float32]

RUN_UP_S = 1.0  # of quiet before an utterance that a second pass reads too
HEARD_GAP_S = 1.0  # of lost audio the network hears so much silence; the rest only moves the clock


@dataclass(frozen=True)
class Engine:
    """What all streams of a recogniser share; nothing in it changes."""

    bundle: Bundle
    acoustic: Acoustic
    decoder: Decoder
    head: slice  # the decoder's tokens in the graph's output
    tuning: Tuning  # of that decoder
    second: Acoustic | None = None  # reads every utterance again when it has ended


@dataclass(frozen=True)
class StreamState:
    """All that a stream knows. Never changed: every step makes a new one."""

    acoustic: State
    decoder: Any
    pending: Floats  # samples that the network has not heard yet
    heard: int = 0  # samples that it has
    again: Reread = NOTHING  # those that a second pass would read
    shown: tuple[str, str] = ("", "")  # text and stable text of the last Partial
    said_until: int = 0  # end of the last Final, in samples
    jumps: tuple[tuple[int, int], ...] = ()  # (from this sample on, the clock is so many samples ahead)

    def seconds(self, sample: int, rate: int) -> float:
        """When a sample was heard, lost audio counted."""
        return (sample + sum(ahead for start, ahead in self.jumps if start <= sample)) / rate


@dataclass(frozen=True)
class Utterances:
    """What makes events of a stream's frames, as the stream is set at the moment."""

    engine: Engine
    decoder: Decoder  # with the stream's hotwords
    endpoint: Sequence[EndpointRule]
    n_best: int

    def frame(self, log_probs: Floats, frame: int, state: StreamState, events: list[Event]) -> StreamState:
        """The state after one more frame, (tokens,); what it made certain is appended to events."""
        graph = self._graph
        state = replace(state, decoder=self.decoder.step(log_probs, state.decoder))
        spoken = self.decoder.spoken(state.decoder)
        if not is_endpoint(spoken, frame, graph.stride / self._rate, self.endpoint):
            return state
        return self.end((frame + 1) * graph.stride, state, events)

    def forget(self, state: StreamState) -> StreamState:
        """Where nothing has been said, a second pass need not read what is long past."""
        if self.engine.second is None or self.decoder.spoken(state.decoder):
            return state
        return replace(state, again=state.again.keep(RUN_UP_S * self._rate, self._graph.stride))

    def partial(self, state: StreamState, frames: int, events: list[Event]) -> StreamState:
        """What is likely after so many frames, if it has changed."""
        if self.decoder.spoken(state.decoder) is None:
            return state
        hypothesis = self.decoder.hypothesis(state.decoder)
        if not hypothesis.words:
            return state  # another first word is under way; what is shown may yet be right
        stable = hypothesis.words[: hypothesis.stable] if self.engine.second is None else ()
        tuning = self.engine.tuning
        if not tuning.spoken(word.evidence for word in stable):
            stable = ()  # it may be noise, which is taken back
        shown = hypothesis.text, " ".join(word.text for word in stable)
        if shown == state.shown:
            return state
        end = frames * self._graph.stride
        start, _ = self._word_times(hypothesis.words[:1], state, end)[0]
        events.append(Partial(shown[0], state.seconds(start, self._rate), state.seconds(end, self._rate), shown[1]))
        return replace(state, shown=shown)

    def end(self, end: int, state: StreamState, events: list[Event]) -> StreamState:
        """The hypothesis becomes a Final, its words in [said_until, end]; or nothing, if it was noise."""
        tuning = self.engine.tuning
        decoder, hypothesis = state.decoder, self.decoder.final(state.decoder)
        if self.engine.second and hypothesis.words:
            decoder, hypothesis = self._read_again(self.engine.second, state.again.until(end))
        following = replace(
            state, decoder=self.decoder.next_utterance(state.decoder), again=state.again.after(end), shown=("", "")
        )
        if not hypothesis.words:
            if state.shown[0]:
                events.append(Partial("", state.seconds(end, self._rate), state.seconds(end, self._rate)))
            return following
        confidences = [tuning.confidence(word.evidence) for word in hypothesis.words]
        times = self._word_times(hypothesis.words, state, end)
        # A word that a jump of the clock lies in does not last as long as the jump.
        spans = [(s := state.seconds(start, self._rate), s + (stop - start) / self._rate) for start, stop in times]
        if not tuning.spoken(word.evidence for word in hypothesis.words):
            if state.shown[0]:  # take it back
                events.append(Partial("", spans[0][0], spans[-1][1]))
            return following
        words = tuple(
            Word(word.text, start_s, end_s, confidence)
            for word, (start_s, end_s), confidence in zip(hypothesis.words, spans, confidences, strict=True)
        )
        others = self.decoder.n_best(decoder, self.n_best) if self.n_best else []
        alternatives = tuple((text, score - others[0][1]) for text, score in others)
        events.append(Final(hypothesis.text, words, words[0].start_s, words[-1].end_s, alternatives))
        return replace(following, said_until=times[-1][1])

    def _read_again(self, network: Acoustic, utterance: Reread) -> tuple[Any, Hypothesis]:
        """The state of a decoder that has heard the whole utterance through another network, and its best words."""
        decoder = decoded(self.decoder, network.whole(utterance.samples)[:, self.engine.head])
        hypothesis = self.decoder.final(decoder)
        ahead = utterance.start // network.graph.stride
        words = tuple(
            replace(word, first_frame=word.first_frame + ahead, last_frame=word.last_frame + ahead)
            for word in hypothesis.words
        )
        return decoder, replace(hypothesis, words=words)

    def _word_times(self, words: Sequence[HypothesisWord], state: StreamState, high: int) -> list[tuple[int, int]]:
        """Start and end of each word in samples: spikes moved by the model's measured delay, in order, apart.

        Who is heard late in the silence of a gap spoke after it.
        """
        stride, timing = self._graph.stride, self.engine.tuning.timing
        starts = [word.first_frame * stride + timing.start for word in words]
        ends = [(word.last_frame + 1) * stride + timing.end for word in words]
        for i in range(len(words) - 1):
            if ends[i] > starts[i + 1]:
                ends[i] = starts[i + 1] = (ends[i] + starts[i + 1]) // 2
        times, low, silence = [], state.said_until, int(HEARD_GAP_S * self._rate)
        for word, start, end in zip(words, starts, ends, strict=True):
            for jump, _ in state.jumps:
                if jump - silence // 2 <= word.first_frame * stride:
                    low = max(low, jump)
            start = min(max(start, low), high)
            low = min(max(end, start), high)
            times.append((start, low))
        return times

    @property
    def _graph(self) -> Graph:
        return self.engine.acoustic.graph

    @property
    def _rate(self) -> int:
        return self.engine.bundle.sample_rate
