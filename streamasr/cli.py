"""The command line: streamasr transcribe, live, devices, inspect, bench."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from streamasr import batch, lm
from streamasr.bundle import EndpointRule
from streamasr.endpoint import LAST_RESORT
from streamasr.errors import DeviceError, StreamasrError
from streamasr.recognizer import Recognizer, load
from streamasr.stream import check_hotwords
from streamasr.version import __version__
from streamasr.writers import WRITERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 well, 1 something failed, 2 wrong usage, 130 interrupted."""
    if sys.stdout is None or sys.stderr is None:
        return 1  # nowhere to say anything
    for output in (sys.stdout, sys.stderr):  # a name or a text that the terminal cannot show must not stop the work
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except StreamasrError as error:
        print(f"streamasr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk behind a redirected standard output
        print(f"streamasr: standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="streamasr", description="Streaming speech recognition.")
    parser.add_argument("--version", action="version", version=f"streamasr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    transcribe = commands.add_parser("transcribe", help="files, or standard input, to text")
    transcribe.add_argument("audio", nargs="+", metavar="FILE", help="a recording, or - for standard input")
    transcribe.add_argument("--format", choices=WRITERS, default="txt")
    transcribe.add_argument("--output-dir", type=Path, metavar="DIR", help="write DIR/NAME.FORMAT for each recording")
    transcribe.add_argument("--jobs", type=_positive, default=1, metavar="N", help="recordings at a time")
    transcribe.add_argument("--rate", type=_positive, metavar="HZ", help="standard input is raw 16-bit mono at HZ")
    transcribe.set_defaults(run=_transcribe)

    live = commands.add_parser("live", help="the microphone to text, as you speak")
    live.add_argument("--device", help="number or part of the name, as `streamasr devices` lists them")
    live.set_defaults(run=_live)

    devices = commands.add_parser("devices", help="list the microphones")
    devices.set_defaults(run=_devices)

    inspect = commands.add_parser("inspect", help="draw what the model hears in a recording")
    inspect.add_argument("audio", metavar="FILE")
    inspect.add_argument("-o", "--output", type=Path, required=True, metavar="PNG")
    inspect.set_defaults(run=_inspect)

    bench = commands.add_parser("bench", help="measure speed and memory on this machine")
    bench.add_argument("--manifest", type=Path, metavar="JSONL", help="transcribed speech, for error rates too")
    bench.add_argument("--utterances", type=_positive, default=50, metavar="N", help="of the manifest (default 50)")
    bench.add_argument(
        "--streams", type=_positive, default=0, metavar="N", help="also N streams of greedy letters at once"
    )
    bench.set_defaults(run=_bench)

    lm.add_parser(commands)
    for command in (transcribe, live):
        command.add_argument(
            "--hotword",
            type=_hotword,
            action="append",
            default=[],
            metavar="WORDS[:BONUS]",
            dest="hotwords",
            help="words that are likely to be said, and how likely (default 5); may be given again",
        )
        command.add_argument(
            "--pause", type=_seconds, metavar="S", help="an utterance ends after so many seconds without a letter"
        )
    for command in (transcribe, live, inspect):
        command.add_argument("--lm", type=Path, metavar="PATH", help="language model made by `streamasr lm`")
        command.add_argument("--grammar", type=Path, metavar="FILE", help="all that may be said; the rest is <other>")
        command.add_argument("--greedy", action="store_true", help="letter by letter, without words to choose from")
        command.add_argument(
            "--second-pass", action="store_true", help="read every utterance again when it has ended, backwards too"
        )
        command.add_argument("--open-vocabulary", action="store_true", help="unknown words too, written as they sound")
    for command in (transcribe, live, inspect):
        command.add_argument("--graph", metavar="NAME", help="int8 or fp32 (default: the one the model prefers)")
    for command in (transcribe, live, inspect, bench):
        command.add_argument("--model", type=Path, metavar="PATH", help="folder of a bundle (default: the bundled one)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number above 0")
    return int(text)


def _hotword(text: str) -> tuple[str, float]:
    words, colon, bonus = text.rpartition(":")
    try:
        wanted = {words: float(bonus)} if colon else {text: 5.0}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected WORDS or WORDS:BONUS, as in 'new york:3'") from None
    try:
        return next(iter(check_hotwords(wanted).items()))
    except StreamasrError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 3600.0:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds above 0")
    return value


def _endpoint(options: argparse.Namespace) -> tuple[EndpointRule, ...] | None:
    return None if options.pause is None else (EndpointRule(options.pause), LAST_RESORT)


def _transcribe(options: argparse.Namespace) -> int:
    job = batch.Job(
        _loader(options), options.format, options.output_dir, options.rate, _endpoint(options), dict(options.hotwords)
    )
    names: list[str] = options.audio
    if options.rate and batch.STDIN not in names:
        return _usage("--rate speaks of raw samples on standard input; give - among the files, or leave --rate out")
    if names.count(batch.STDIN) > 1:
        return _usage("standard input (-) can be read only once")
    double = batch.clashes(names, job)
    if double:
        return _usage(f"{', '.join(double)} would write the same file; transcribe them in separate calls")
    return batch.run(names, job, options.jobs)


def _usage(message: str) -> int:
    print(f"streamasr: {message}", file=sys.stderr)
    return 2


def _loader(options: argparse.Namespace) -> partial[Recognizer]:
    """What loads the recogniser that was asked for, here or in another process."""
    flags = {name: getattr(options, name) for name in ("greedy", "lm", "grammar", "second_pass", "open_vocabulary")}
    return partial(load, options.model, options.graph, **flags)


def _live(options: argparse.Namespace) -> int:
    from streamasr import terminal
    from streamasr.sources import open_microphone

    recognizer = _loader(options)()
    recognizer.must_hear_blocks()
    microphone = open_microphone(options.device)
    return terminal.run(recognizer, microphone, _endpoint(options), dict(options.hotwords))


def _devices(options: argparse.Namespace) -> int:
    from streamasr.sources import list_devices
    from streamasr.sources.microphone import NO_MICROPHONE

    devices = list_devices()
    if not devices:
        raise DeviceError(NO_MICROPHONE)
    for device in devices:
        print(device)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from streamasr.inspect import draw

    draw(_loader(options)(), options.audio, options.output)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from streamasr.bench import run

    return run(options.model, options.manifest, options.utterances, options.streams)
