"""The command line interrupted and killed, on the toy model: no words lost, nothing half written, no process left."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamasr import batch
from tests.test_cli import RATE, transcribe
from tests.test_stream import TOY, noise


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_said_before_an_interrupt_of_a_pipe_is_not_lost(number):
    samples = (noise(0, 30.0) * 32767).astype(np.int16).tobytes()
    command = [sys.executable, "-m", "streamasr", "transcribe", "--model", str(TOY), "-", "--rate", str(RATE)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where tests run in the background
    with subprocess.Popen([*command, "--format", "json"], bufsize=0, preexec_fn=heeded, **pipes) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(samples)
        assert select.select([process.stdout], [], [], 60.0)[0] or process.kill(), "nothing is said"
        said = process.stdout.read(1)
        while int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder):
            time.sleep(0.1)
        time.sleep(0.5)  # all has been heard; standard input stays open
        process.send_signal(number)
        rest, problems = process.communicate()
    assert process.returncode == 128 + number
    assert not problems
    whole = transcribe("-", "--rate", RATE, "--format", "json", stdin=samples)
    assert json.loads(said + rest) == json.loads(whole.stdout)


def test_what_was_said_before_an_interrupt_is_in_its_file(tmp_path):
    samples, out = (noise(0, 30.0) * 32767).astype(np.int16).tobytes(), tmp_path / "out"
    command = [sys.executable, "-m", "streamasr", "transcribe", "--model", str(TOY), "-", "--rate", str(RATE)]
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where tests run in the background
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--output-dir", str(out)], bufsize=0, preexec_fn=heeded, **pipes) as process:
        assert process.stdin
        process.stdin.write(samples)
        while int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder):
            time.sleep(0.1)
        time.sleep(0.5)  # all has been heard; standard input stays open
        process.send_signal(signal.SIGINT)
        _, problems = process.communicate()
    assert (process.returncode, problems) == (130, b"")
    said = transcribe("-", "--rate", RATE, stdin=samples).stdout
    assert said
    assert {path.name: path.read_text() for path in out.iterdir()} == {"stdin.txt": said}


def test_an_interrupt_waits_for_what_is_being_heard():
    """And is raised at once where nothing is: no words are lost between two events."""
    ending, heard = batch.Ending(), []
    for chunk in ending.until_asked(iter([np.zeros(1), np.zeros(2), np.zeros(3)])):
        heard.append(len(chunk))
        if len(heard) == 2:
            ending.ask(signal.SIGINT, None)
            heard.append("whole")
    assert heard == [1, 2, "whole"]
    assert isinstance(ending.interrupt, KeyboardInterrupt)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        ending.ask(signal.SIGTERM, None)

    def waited():
        yield np.zeros(1)
        waiting.ask(signal.SIGTERM, None)
        yield np.zeros(2)

    waiting = batch.Ending()
    assert [len(chunk) for chunk in waiting.until_asked(waited())] == [1]
    assert isinstance(waiting.interrupt, SystemExit)


def test_a_worker_that_is_killed_costs_nothing(tmp_path):
    psutil = pytest.importorskip("psutil")
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", noise(0, 60.0), RATE)
    files = [str(tmp_path / f"{name}.wav") for name in "abc"]
    options = ["--model", str(TOY), "--jobs", "2", "--output-dir", str(tmp_path / "out")]
    command = [sys.executable, "-m", "streamasr", "transcribe", *options, *files]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30.0
        while not list(tmp_path.glob("out/.streamasr-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        workers[0].kill()
        _, errors = process.communicate(timeout=120.0)
    assert "Traceback" not in errors
    assert process.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt", "c.txt"]


def test_an_interrupt_while_the_program_is_imported_is_quiet() -> None:
    interrupted = """
import sys
class Interrupt:
    def find_spec(self, name, *others):
        if name == "onnxruntime":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from streamasr.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("number", "kill", "code"), [(signal.SIGINT, os.killpg, 130), (signal.SIGTERM, os.kill, 143)])
def test_an_interrupt_leaves_no_half_written_file(tmp_path, jobs, number, kill, code):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", noise(0, 600.0), RATE)
    out = tmp_path / "out"
    options = ["--model", str(TOY), "--jobs", str(jobs), "--output-dir", str(out)]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "streamasr",
            "transcribe",
            *options,
            str(tmp_path / "a.wav"),
            str(tmp_path / "b.wav"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    deadline = time.monotonic() + 30.0
    while not list(tmp_path.glob("out/.streamasr-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    kill(process.pid, number)  # Ctrl-C reaches workers too
    _, errors = process.communicate(timeout=30.0)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert list(out.iterdir()) == []


def test_workers_do_not_outlive_a_parent_that_was_killed(tmp_path):
    psutil = pytest.importorskip("psutil")
    soundfile.write(tmp_path / "a.wav", noise(0, 600.0), RATE)
    options = ["--model", str(TOY), "--jobs", "2", "--output-dir", str(tmp_path / "out"), str(tmp_path / "a.wav")]
    process = psutil.Popen([sys.executable, "-m", "streamasr", "transcribe", *options])
    deadline = time.monotonic() + 30.0
    while not list(tmp_path.glob("out/.streamasr-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = process.children()
    process.kill()
    process.wait(timeout=30.0)
    assert workers
    assert psutil.wait_procs(workers, timeout=30.0)[1] == []
