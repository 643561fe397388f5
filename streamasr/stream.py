"""One conversation: samples in, events out, by explicit state over blocks of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamasr.acoustic import State
from streamasr.bundle import EndpointRule
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.hypothesis import Decoder
from streamasr.errors import AudioError, StreamError
from streamasr.events import Event, Gap
from streamasr.second_pass import Reread
from streamasr.snapshot import BROKEN, like, pack, under, unpack
from streamasr.sources.resample import Resampler
from streamasr.sources.samples import as_mono_float, check_rate
from streamasr.utterances import HEARD_GAP_S, Engine, StreamState, Utterances

Floats = NDArray[np.float32]

WHOLE_S = 600.0  # of audio at most for a network that hears it as a whole: about 1 GB of memory
AHEAD = 25  # steps of the network before what it has heard is searched


class Stream:
    """Made by Recognizer.stream(). `accept` audio as it comes, `finish` at the end; both return events.

    The events do not depend on how the audio was cut into pieces.
    """

    def __init__(
        self,
        engine: Engine,
        snapshot: bytes | None,
        endpoint: Sequence[EndpointRule] | None,
        n_best: int | None,
        hotwords: Mapping[str, float] | None,
        partials: bool,
    ) -> None:
        self.endpoint = engine.bundle.endpoint  # may be changed while the stream runs
        self.partials = partials  # this, too
        self._n_best = 0
        self._engine = engine
        self._acoustic = engine.acoustic
        self._decoder: Decoder = engine.decoder
        self._finished = False
        self._resampler: Resampler | None = None  # knows the rate of what comes in; made by the first accept
        self._received = 0  # samples at that rate, gaps included
        self._state = StreamState(self._acoustic.zero_state(), self._decoder.start(), np.zeros(0, dtype=np.float32))
        self._hotwords: dict[str, float] = {}
        if snapshot is not None:
            self._restore(snapshot)
        if hotwords is not None:
            self.hotwords = hotwords
        if endpoint is not None:
            self.endpoint = tuple(endpoint)
        if n_best is not None:
            self._n_best = n_best

    @property
    def hotwords(self) -> Mapping[str, float]:
        """Words or phrases that are likely to be said, and what is added to their log-probability."""
        return dict(self._hotwords)

    @hotwords.setter
    def hotwords(self, bonuses: Mapping[str, float]) -> None:
        bonuses = check_hotwords(bonuses)
        if bonuses == self._hotwords:
            return
        self._decoder = self._with_hotwords(bonuses)
        self._state = replace(self._state, decoder=self._decoder.adopt(self._state.decoder))
        self._hotwords = bonuses

    def _with_hotwords(self, bonuses: dict[str, float]) -> BeamSearch:
        if not isinstance(self._engine.decoder, BeamSearch):
            raise StreamError(
                "hotwords need words to choose from: load a model that has them, not greedy and without a grammar"
            )
        return self._engine.decoder.with_phrases(bonuses)

    def accept(self, samples: ArrayLike, rate: int | None = None) -> list[Event]:
        """Audio -> what it made certain or likely.

        samples: (n,) or (n, channels), float in [-1, 1] or integers of full scale. rate: in Hz, the
        model's own if left out at first; it cannot change within a stream.
        """
        self._push(self._checked(samples, rate), rate)
        return self._run()

    def _checked(self, samples: ArrayLike, rate: int | None) -> Floats:
        """Samples that can be pushed; or an error, and the stream is as it was."""
        self._must_be_open()
        self._rate_of(rate)
        return as_mono_float(samples)

    def _push(self, mono: Floats, rate: int | None) -> None:
        """Lay samples beside those that do not fill a block yet."""
        resampler = self._resampler_for(rate)
        self._received += len(mono)
        self._append(resampler.push(mono))

    def _append(self, samples: Floats) -> None:
        pending = np.concatenate([self._state.pending, samples])
        if not self._acoustic.graph.block and len(pending) > WHOLE_S * self._model_rate:
            raise AudioError(
                f"more than {WHOLE_S / 60:.0f} minutes: this model hears a recording as a whole; "
                "cut it, or use a model that hears block by block"
            )
        self._state = replace(self._state, pending=pending)

    def lost(self, n_samples: int, rate: int | None = None) -> list[Event]:
        """So many samples never arrived: the clock moves on and a Gap is yielded. rate: as in accept."""
        self._must_be_open()
        if not isinstance(n_samples, int | np.integer) or n_samples < 0:
            raise AudioError(f"lost({n_samples}): expected a whole number of samples, 0 or more")
        n_samples = int(n_samples)
        resampler = self._resampler_for(rate)
        rate = resampler.rate
        heard = min(n_samples, int(HEARD_GAP_S * rate))
        here, after = self._to_model(self._received), self._to_model(self._received + n_samples)
        start_s = self._state.seconds(here, self._model_rate)
        heard_until = self._to_model(self._received + heard)
        if after > heard_until:
            jump = (heard_until, after - heard_until)
            self._state = replace(self._state, jumps=(*self._jumps_that_matter(), jump))
        self._received += heard
        gap = Gap(start_s, start_s + n_samples / rate)
        self._append(resampler.push(np.zeros(heard, dtype=np.float32)))
        return [gap, *self._run()]

    def _jumps_that_matter(self) -> tuple[tuple[int, int], ...]:
        """Those that no word can reach any more in one, so that a microphone that stutters for days costs no memory."""
        state, graph = self._state, self._acoustic.graph
        past = state.heard - graph.delay * graph.stride - int(HEARD_GAP_S * self._model_rate)
        if self._decoder.spoken(state.decoder):
            past = min(past, state.said_until)
        recent = tuple(jump for jump in state.jumps if jump[0] > past)
        return ((0, sum(ahead for start, ahead in state.jumps if start <= past)), *recent)

    def finish(self) -> list[Event]:
        """The end of the audio: the last words, never cut off."""
        self._must_be_open()
        if self._resampler:
            self._append(self._resampler.finish())
        events = self._run()
        self._finished = True
        graph, state = self._acoustic.graph, self._state
        total = state.heard + len(state.pending)
        if graph.block:
            self._append(np.zeros(graph.flush, dtype=np.float32))
            events += self._run(stop=-(-total // graph.stride))  # frames that begin before the end
        else:
            log_probs = self._acoustic.whole(state.pending)
            events += self._hear(log_probs, state.acoustic, total)
        self._state = self._utterances().end(total, self._state, events)
        return events

    def _run(self, stop: int | None = None) -> list[Event]:
        """All whole blocks; frames from `stop` on lie past the end and are dropped."""
        events: list[Event] = []
        while (block := self._next_block()) is not None:
            ahead: list[tuple[Floats, State, int]] = []
            acoustic = self._state.acoustic
            while block is not None and len(ahead) < AHEAD:  # network and search each want the processor's cache
                log_probs, acoustic = self._acoustic.step(block[None], acoustic)
                ahead.append((log_probs[0], acoustic, len(block)))
                block = self._next_block(len(ahead) * len(block))
            for heard in ahead:
                events += self._hear(*heard, stop)
        return events

    def _next_block(self, after: int = 0) -> Floats | None:
        """The samples of the network's next step, (block,), so many samples from here, if they are there."""
        pending = self._state.pending[after:]
        size = self._acoustic.graph.block
        return pending[:size] if size and len(pending) >= size else None

    def _hear(self, log_probs: Floats, acoustic: State, samples: int, stop: int | None = None) -> list[Event]:
        """What the network made of the next samples: (frames, tokens of all heads) and its new state."""
        graph = self._acoustic.graph
        events: list[Event] = []
        state = self._state
        delay = graph.delay if graph.block else 0  # Acoustic.whole has dropped it
        first = state.heard // graph.stride - delay  # what these frames speak of
        now, pending = state.pending[:samples], state.pending[samples:]
        if len(pending) < graph.block:
            pending = pending.copy()  # or a long piece would be kept for its last samples
        again = state.again.add(now) if self._engine.second else state.again
        state = replace(state, acoustic=acoustic, heard=state.heard + samples, pending=pending, again=again)
        utterances = self._utterances()
        for frame, row in enumerate(log_probs[:, self._engine.head], first):
            if frame >= 0 and (stop is None or frame < stop):
                state = utterances.frame(row, frame, state, events)
        frames = first + len(log_probs) if stop is None else min(first + len(log_probs), stop)
        state = utterances.forget(state)
        self._state = utterances.partial(state, frames, events) if self.partials else state
        return events

    def _utterances(self) -> Utterances:
        return Utterances(self._engine, self._decoder, self.endpoint, self._n_best)

    @property
    def _model_rate(self) -> int:
        return self._engine.bundle.sample_rate

    def _to_model(self, samples: int) -> int:
        rate = self._resampler.rate if self._resampler else self._model_rate
        return round(samples * self._model_rate / rate)

    def _must_be_open(self) -> None:
        if self._finished:
            raise StreamError("the stream is finished; make a new one with recognizer.stream()")

    def _resampler_for(self, rate: int | None) -> Resampler:
        rate = self._rate_of(rate)
        if self._resampler is None:
            self._resampler = Resampler(rate, self._model_rate)
        return self._resampler

    def _rate_of(self, rate: int | None) -> int:
        """That of the stream, which is its first audio's."""
        of_stream = self._resampler.rate if self._resampler else None
        if rate is None:
            return of_stream or self._model_rate
        rate = check_rate(rate, "samples")
        if of_stream not in (None, rate):
            raise AudioError(f"got audio of {rate} Hz in a stream of {of_stream} Hz; make a stream for each rate")
        return rate

    def snapshot(self) -> bytes:
        """Everything the stream knows, to continue it elsewhere with recognizer.stream(snapshot)."""
        self._must_be_open()
        state = self._state
        plain = {
            "kind": type(self._decoder).__name__,
            "model": self._engine.bundle.checksum,
            "second": self._engine.second is not None,
            "endpoint": [[rule.trailing_s, rule.utterance_s] for rule in self.endpoint],
            "n_best": self._n_best,
            "received": self._received,
            "hotwords": self._hotwords,
            "decoder": self._decoder.pack(state.decoder),
            "heard": state.heard,
            "shown": state.shown,
            "said_until": state.said_until,
            "jumps": state.jumps,
        }
        arrays: dict[str, Any] = {f"acoustic.{name}": value for name, value in state.acoustic.items()}
        if self._resampler:
            arrays |= {f"resampler.{name}": np.asarray(value) for name, value in self._resampler.snapshot().items()}
        return pack(plain, arrays | {"pending": state.pending, "again": state.again.samples})

    def _restore(self, snapshot: bytes) -> None:
        try:
            plain, arrays = unpack(snapshot)
            if (plain["model"], plain["kind"]) != (self._engine.bundle.checksum, type(self._decoder).__name__):
                raise StreamError("the snapshot was taken with another model or decoder; load that one to continue it")
            if plain["second"] != (self._engine.second is not None):
                raise StreamError(
                    "the snapshot was taken with another second_pass; load the model like that to continue it"
                )
            self.endpoint = tuple(EndpointRule(*rule) for rule in plain["endpoint"])
            self._n_best = plain["n_best"]
            self._received = plain["received"]
            if plain["hotwords"]:
                self._decoder, self._hotwords = self._with_hotwords(plain["hotwords"]), plain["hotwords"]
            saved, acoustic = under("resampler.", arrays), under("acoustic.", arrays)
            self._resampler = Resampler.restore(saved) if saved else None
            self._state = StreamState(
                acoustic={name: like(zero, acoustic[name]) for name, zero in self._acoustic.zero_state().items()},
                decoder=self._decoder.unpack(plain["decoder"]),
                pending=arrays["pending"],
                heard=plain["heard"],
                again=Reread((again,) if len(again := arrays["again"]) else (), plain["heard"]),
                shown=(plain["shown"][0], plain["shown"][1]),
                said_until=plain["said_until"],
                jumps=tuple((start, ahead) for start, ahead in plain["jumps"]),
            )
        except BROKEN as error:
            raise StreamError(f"this is not a snapshot of a stream ({type(error).__name__}: {error})") from error


def accept_together(
    streams: Sequence[Stream], pieces: Sequence[ArrayLike], rate: int | None = None
) -> list[list[Event]]:
    """What each stream's own `accept` of its piece would return, the network running over all of them at once."""
    if len({id(stream) for stream in streams}) < len(streams) or len({id(s._acoustic) for s in streams}) > 1:
        raise StreamError("expected different streams of one recogniser")
    if len(streams) != len(pieces):
        raise StreamError(f"got {len(pieces)} pieces for {len(streams)} streams, expected one for each")
    checked = [stream._checked(piece, rate) for stream, piece in zip(streams, pieces, strict=True)]
    for stream, mono in zip(streams, checked, strict=True):
        stream._push(mono, rate)
    events: list[list[Event]] = [[] for _ in streams]
    while ready := [(i, s, block) for i, s in enumerate(streams) if (block := s._next_block()) is not None]:
        states = [stream._state.acoustic for _, stream, _ in ready]
        stacked = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
        log_probs, new = streams[0]._acoustic.step(np.stack([block for _, _, block in ready]), stacked)
        for row, (i, stream, _) in enumerate(ready):
            own = {name: value[row : row + 1].copy() for name, value in new.items()}  # or each keeps all of them
            events[i] += stream._hear(log_probs[row], own, log_probs.shape[1] * stream._acoustic.graph.stride)
    return events


def check_hotwords(bonuses: Mapping[str, float]) -> dict[str, float]:
    """Words in them, numbers that are finite."""
    for text, bonus in bonuses.items():
        if not isinstance(text, str) or not text.split() or not isinstance(bonus, int | float | np.number):
            raise StreamError(f"hotword {text!r}: {bonus!r}: expected a word or phrase and a number")
        if not -50.0 <= bonus <= 50.0:
            raise StreamError(f"hotword {text!r}: {bonus}: expected -50 to 50 (5 is much)")
    return {" ".join(text.split()): float(bonus) for text, bonus in bonuses.items()}
