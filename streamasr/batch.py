"""`streamasr transcribe`: piles of files, each one's failure its own, finished outputs in one piece."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import current_process, get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streamasr.bundle import EndpointRule
from streamasr.errors import AudioError, OutputError, StreamasrError
from streamasr.events import Event, Final
from streamasr.recognizer import Recognizer
from streamasr.signals import heard_by
from streamasr.sources import AudioSource, open_file, open_stdin
from streamasr.writers import WRITERS, Writer

STDIN = "-"
Write = Callable[[str], Any]


@dataclass(frozen=True)
class Job:
    """What is the same for all files of a call."""

    load: Callable[[], Recognizer]  # that these files want; each worker calls it, too
    format: str = "txt"
    output_dir: Path | None = None
    rate: int | None = None  # of raw samples on standard input
    endpoint: tuple[EndpointRule, ...] | None = None  # in place of the model's
    hotwords: dict[str, float] = field(default_factory=dict)

    def target(self, name: str) -> Path | None:
        """The file that `name`'s transcript goes to; None is standard output."""
        if self.output_dir is None:
            return None
        return self.output_dir / f"{'stdin' if name == STDIN else Path(name).stem}.{self.format}"


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its problems, one line each, and its text if that was not written out yet."""

    problems: tuple[str, ...] = ()
    text: str = ""


def clashes(names: Sequence[str], job: Job) -> list[str]:
    """Inputs that would write the same output file."""
    targets = [job.target(name) for name in names]
    double = {target for target, count in Counter(targets).items() if target is not None and count > 1}
    return [name for name, target in zip(names, targets, strict=True) if target in double]


def run(names: Sequence[str], job: Job, jobs: int = 1) -> int:
    """Transcribe all; the exit code is 1 where any had a problem."""
    if job.output_dir:
        try:
            job.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{job.output_dir}: cannot be made: {error.strerror}") from error
    good = True
    recognizer = job.load()  # here too: a bad model is found before workers start, and one of them may die
    with _tidy_when_terminated(), _workers([name for name in names if name != STDIN], jobs, job) as waiting:
        bar = tqdm(total=len(names), unit="file", disable=not _show_bar(job) or len(names) < 2)
        for name in names:
            if len(names) > 1 and job.output_dir is None and job.format == "txt":
                _print(f"==> {name} <==\n")
            try:
                if name not in waiting:
                    raise BrokenExecutor
                outcome = waiting[name].result()
                _print(outcome.text)
            except BrokenExecutor:  # no worker has it, or the workers died over it
                outcome = transcribe_one(recognizer, name, job, _print)
            for problem in outcome.problems:
                bar.write(f"streamasr: {problem}", file=sys.stderr)
            good = good and not outcome.problems
            bar.update()
        bar.close()
    return 0 if good else 1


def transcribe_one(recognizer: Recognizer, name: str, job: Job, write: Write, stop: Any = None) -> Outcome:
    """One input through the recogniser: to its file under output_dir, else to `write`, as it arrives.

    stop: an Event that, once set, ends the work with nothing left behind.
    """
    ending: Ending | None = None
    try:
        with open_stdin(job.rate) if name == STDIN else open_file(name) as source:
            target, live = job.target(name), name == STDIN
            with nullcontext(write) if target is None else atomic(target) as write_text, _ending(live) as ending:
                outcome = Outcome(_pour(recognizer, source, job, write_text, stop, ending))
    except StreamasrError as error:
        outcome = Outcome(problems=(str(error),))
    if ending and ending.interrupt:  # what was said before it has its file by now
        raise ending.interrupt
    return outcome


def _pour(
    recognizer: Recognizer, source: AudioSource, job: Job, write: Write, stop: Any, ending: Ending | None
) -> tuple[str, ...]:
    """All of a source's text, or until `ending`; the problems that it had.

    AudioError, and nothing written, where it gave no text at all.
    """
    text = _Text(WRITERS[job.format](source.name), write)
    stream = recognizer.stream(endpoint=job.endpoint, hotwords=job.hotwords, partials=False)
    total = None if source.seconds is None else round(source.seconds, 1)
    long = total is None or total > 60.0
    layout = "{desc}: {percentage:3.0f}% of {total_fmt} s [{elapsed}<{remaining}]" if total else None
    show = long and _show_bar(job)
    error: AudioError | None = None
    with tqdm(total=total, desc=source.name, unit="s", leave=False, disable=not show, bar_format=layout) as bar:
        try:
            for chunk in ending.until_asked(source.chunks()) if ending else source.chunks():
                if stop is not None and stop.is_set():
                    raise _Stopped
                text.add(stream.accept(chunk, source.rate))
                bar.update(len(chunk) / source.rate)
        except AudioError as caught:  # what was heard before it is not lost
            error = caught
    text.add(stream.finish())
    if error and not text.begun:
        raise error
    problems = [*source.warnings, *([str(error)] if error else [])]
    text.end(problems)
    return tuple(problems)


class Ending:
    """How Ctrl-C and SIGTERM end what somebody may still be saying: no more of it is waited for, all that has come is
    written. A second one ends the program at once.
    """

    def __init__(self) -> None:
        self.interrupt: KeyboardInterrupt | SystemExit | None = None
        self._waiting = False

    def ask(self, number: int, frame: Any) -> None:
        """What the signals call."""
        again = self.interrupt is not None
        self.interrupt = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if again or self._waiting:  # else it would break into what is being made of audio that has come
            raise self.interrupt

    def until_asked(self, chunks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """These chunks, until a signal comes."""
        while self.interrupt is None:
            try:
                self._waiting = True
                chunk = next(chunks, None)
            except (KeyboardInterrupt, SystemExit):
                return
            finally:
                self._waiting = False
            if chunk is None:
                return
            yield chunk


@contextmanager
def _ending(live: bool) -> Iterator[Ending | None]:
    if not live or threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield None
        return
    ending = Ending()
    with heard_by(ending.ask):
        yield ending


class _Text:
    """What a writer makes of a source, begun when there is something to write."""

    def __init__(self, writer: Writer, write: Write) -> None:
        self._writer, self._write = writer, write
        self.begun = False

    def _begin(self) -> None:
        if not self.begun:
            self._write(self._writer.begin())
        self.begun = True

    def add(self, events: Sequence[Event]) -> None:
        for final in (event for event in events if isinstance(event, Final)):
            self._begin()
            self._write(self._writer.final(final))

    def end(self, problems: list[str]) -> None:
        self._begin()
        self._write(self._writer.end(problems))


@contextmanager
def atomic(target: Path) -> Iterator[Write]:
    """A text file that appears under its name only when it is whole."""
    partial = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", dir=target.parent, prefix=_partial_prefix(), delete=False
        ) as file:
            partial = Path(file.name)
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        partial.replace(target)
    except OSError as error:
        if isinstance(error, StreamasrError):
            raise
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        if partial:
            partial.unlink(missing_ok=True)


def _partial_prefix() -> str:
    """Begins the names of half-written files; the same in this process and in its workers."""
    return f".streamasr-{(parent_process() or current_process()).pid}-"


def _show_bar(job: Job) -> bool:
    """On a terminal that does not show the text itself."""
    return sys.stderr.isatty() and (job.output_dir is not None or not sys.stdout.isatty())


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class _Stopped(BaseException):
    """Raised in a worker when the whole call was interrupted, so that half-written files are removed."""


_worker: tuple[Recognizer, Job, Any] | None = None  # in a worker process: loaded once, used for every file


def _start_worker(job: Job, stop: Any) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = job.load(), job, stop


def _end_with_parent() -> None:
    """Or a worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(name: str) -> Outcome:
    assert _worker is not None
    recognizer, job, stop = _worker
    pieces: list[str] = []
    try:
        outcome = transcribe_one(recognizer, name, job, pieces.append, stop)
    except _Stopped:
        return Outcome()
    return Outcome(outcome.problems, "".join(pieces))


@contextmanager
def _workers(names: Sequence[str], jobs: int, job: Job) -> Iterator[dict[str, Future[Outcome]]]:
    """Name -> what will become of it, by worker processes; empty where one job is enough."""
    if jobs < 2 or not names:
        yield {}
        return
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(names)), context, _start_worker, (job, stop))
    try:
        with _ctrl_c_blocked():  # workers inherit that: it is this process that stops them, after they have tidied up
            futures = {name: pool.submit(_work, name) for name in names}
        yield futures
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        for left in job.output_dir.glob(f"{_partial_prefix()}*") if job.output_dir else ():
            left.unlink(missing_ok=True)  # of a worker that was killed


@contextmanager
def _tidy_when_terminated() -> Iterator[None]:
    """A SIGTERM ends the program as Ctrl-C does, with nothing left behind."""
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
