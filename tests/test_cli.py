"""The command line as a user calls it, on the toy model: formats, failures, exit codes, pipes."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import soundfile

import streamasr
from tests.test_stream import TOY, noise

RATE = 16000


def call(*arguments: object, stdin: bytes | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "streamasr", *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def transcribe(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return call("transcribe", "--model", TOY, *arguments, **options)


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "a talk.v2.wav"
    soundfile.write(path, noise(0, 6.0), RATE)
    return path


@pytest.fixture(scope="module")
def expected(wav: Path) -> streamasr.Transcript:
    return streamasr.load(TOY).transcribe(wav)


def test_text_on_standard_output(wav, expected):
    done = transcribe(wav)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected.text + "\n"


def test_several_files_are_told_apart(wav, expected):
    done = transcribe(wav, wav)
    assert done.stdout == 2 * f"==> {wav} <==\n{expected.text}\n"


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_job_hears_with_the_grammar_that_was_asked_for(wav, expected, tmp_path, jobs):
    (tmp_path / "one.grammar").write_text("ba be\n")
    done = transcribe(wav, "--grammar", tmp_path / "one.grammar", "--jobs", jobs)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"ba", "be", "<other>"}
    assert done.stdout != expected.text + "\n"


def test_a_graph_is_chosen_by_name(wav, expected):
    assert transcribe(wav, "--graph", "fp32").stdout == expected.text + "\n"
    done = transcribe(wav, "--graph", "int4")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"streamasr: {TOY}: has no graph 'int4', only fp32\n"


@pytest.mark.parametrize("name", ["txt", "srt", "vtt", "json", "ctm"])
def test_output_dir_holds_name_dot_format(wav, expected, tmp_path, name):
    done = transcribe(wav, "--format", name, "--output-dir", tmp_path / "new" / "folder")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = list((tmp_path / "new" / "folder").iterdir())
    assert [path.name for path in written] == [f"a talk.v2.{name}"]
    for word in expected.words[:3]:
        assert word.text in written[0].read_text()


def test_json_on_standard_output_is_json(wav, expected):
    found = json.loads(transcribe(wav, "--format", "json").stdout)
    assert found["audio"] == str(wav)
    assert [u["text"] for u in found["utterances"]] == [f.text for f in expected.finals]


def test_jobs_give_the_same_text_in_the_same_order(wav, tmp_path):
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.flac", noise(i, 2.0), RATE)
    files = sorted(tmp_path.glob("*.flac"))
    assert transcribe(*files, "--jobs", 2).stdout == transcribe(*files).stdout


def test_standard_input_wav_and_raw(wav, expected):
    assert transcribe("-", stdin=wav.read_bytes()).stdout == expected.text + "\n"
    samples, _ = soundfile.read(wav, dtype="int16")
    assert transcribe("-", "--rate", RATE, stdin=samples.tobytes()).stdout == expected.text + "\n"


def test_text_arrives_before_the_end_of_a_pipe():
    process = subprocess.Popen(
        [sys.executable, "-m", "streamasr", "transcribe", "--model", str(TOY), "-", "--rate", str(RATE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write((noise(0, 30.0) * 32767).astype(np.int16).tobytes())
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 60.0)[0], "no text while standard input is open"
        assert process.stdout.readline().strip()
        process.communicate(timeout=60.0)
        assert process.returncode == 0
    finally:
        process.kill()


def test_what_gave_no_text_leaves_nothing_on_standard_output(wav, tmp_path):
    bad = tmp_path / "nan.wav"
    soundfile.write(bad, np.full(3000, np.nan, np.float32), RATE, subtype="FLOAT")
    for jobs in (1, 2):
        done = transcribe(bad, wav, "--format", "json", "--jobs", jobs)
        assert done.returncode == 1
        assert json.loads(done.stdout)["audio"] == str(wav)


def test_bad_inputs_get_a_line_each_and_the_others_are_done(wav, expected, tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio, whatever its name says")
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "slow.wav", np.zeros(3000), 3000)
    soundfile.write(tmp_path / "nan.wav", np.full(3000, np.nan, np.float32), RATE, subtype="FLOAT")
    bad = [*sorted(tmp_path.iterdir()), tmp_path / "missing.wav"]
    done = transcribe(*bad, wav, "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"streamasr: {path}: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a talk.v2.txt"]
    assert (tmp_path / "out" / "a talk.v2.txt").read_text() == expected.text + "\n"


def test_a_truncated_file_gives_its_readable_part_and_a_warning(wav, tmp_path):
    whole = wav.read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    done = transcribe(tmp_path / "cut.wav", "--format", "json")
    assert done.returncode == 1
    assert "truncated" in done.stderr
    found = json.loads(done.stdout)
    assert found["utterances"]
    assert "truncated" in found["warnings"][0]


def test_what_was_heard_before_an_error_is_not_lost(tmp_path):
    audio = noise(0, 6.0)
    audio[-1] = np.nan
    soundfile.write(tmp_path / "nan.wav", audio, RATE, subtype="FLOAT")
    done = transcribe(tmp_path / "nan.wav")
    assert done.returncode == 1
    assert done.stdout.strip()
    assert len(done.stderr.splitlines()) == 1


def test_what_was_heard_before_an_error_goes_into_the_file_too(tmp_path):
    audio = noise(0, 6.0)
    audio[-1] = np.nan
    soundfile.write(tmp_path / "nan.wav", audio, RATE, subtype="FLOAT")
    done = transcribe(tmp_path / "nan.wav", "--format", "json", "--output-dir", tmp_path)
    assert done.returncode == 1
    found = json.loads((tmp_path / "nan.json").read_text())
    assert found["utterances"]
    assert "nan" in found["warnings"][0]


def test_a_bad_model_is_one_line_for_several_jobs_too(wav, tmp_path):
    done = call("transcribe", "--model", tmp_path, wav, wav, "--jobs", 2)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_names_that_mislead_or_cannot_be_shown(wav, expected, tmp_path):
    raw = tmp_path / "y.raw"
    raw.write_bytes(b"1234" * 1000)
    long = tmp_path / ("x" * 300)
    strange = os.fsencode(tmp_path) + b"/bad\xff.wav"
    Path(os.fsdecode(strange)).write_bytes(wav.read_bytes())
    options = ["--model", str(TOY), "--format", "json", "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "streamasr", "transcribe", *options, str(raw), str(long), strange],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert [line.split(": ")[1] for line in lines] == [str(raw), str(long)]
    written = list((tmp_path / "out").iterdir())
    assert len(written) == 1
    assert json.loads(written[0].read_text())["utterances"][0]["text"] == expected.finals[0].text


def test_two_inputs_for_one_output_are_refused_before_work_starts(wav, tmp_path):
    other = tmp_path / "a talk.v2.flac"
    soundfile.write(other, noise(1, 1.0), RATE)
    done = transcribe(wav, other, "--output-dir", tmp_path / "out")
    assert done.returncode == 2
    assert "same file" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["transcribe"],
        ["transcribe", "-", "-"],
        ["transcribe", "a.wav", "--rate", "8000"],
        ["transcribe", "a.wav", "--jobs", "0"],
        ["transcribe", "a.wav", "--jobs", "many"],
        ["transcribe", "a.wav", "--pause", "0"],
        ["transcribe", "a.wav", "--pause", "long"],
        ["transcribe", "a.wav", "--format", "doc"],
        ["transcribe", "a.wav", "--hotword", "bern:99"],
        ["transcribe", "a.wav", "--hotword", "bern:much"],
        ["sing"],
        [],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments):
    assert call(*arguments).returncode == 2


def test_a_missing_or_broken_model_is_one_line(wav, tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    for path in (tmp_path / "none", tmp_path):
        done = call("transcribe", wav, "--model", path)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert str(path) in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(wav):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "streamasr", "transcribe", "--model", str(TOY), str(wav)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["streamasr: standard output: No space left on device"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(wav, tmp_path):
    tmp_path.chmod(0o500)
    done = transcribe(wav, "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_an_output_dir_that_is_a_file_is_one_line(wav):
    done = transcribe(wav, "--output-dir", wav)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error_message(wav):
    command = f"'{sys.executable}' -m streamasr transcribe --model '{TOY}' '{wav}' '{wav}' '{wav}' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_an_error_of_the_system_is_the_file_s_own(wav):
    done = call("transcribe", "--model", TOY, "/proc/self/mem", wav)
    assert done.returncode == 1
    assert done.stderr == "streamasr: /proc/self/mem: cannot be read: Invalid argument\n"
    assert f"==> {wav} <==" in done.stdout


def test_a_progress_bar_on_a_terminal_only(wav, tmp_path):
    long = tmp_path / "long.wav"
    soundfile.write(long, noise(0, 70.0), RATE)
    arguments = [sys.executable, "-m", "streamasr", "transcribe", "--model", str(TOY), str(long)]
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 80))
    subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=side, check=True)
    os.write(side, b".")  # so that there is something to read
    shown = os.read(main, 65536).decode()
    os.close(side)
    os.close(main)
    assert "%" in shown
    assert transcribe(long).stderr == ""


def test_a_shorter_pause_ends_more_utterances(wav, expected):
    assert len(transcribe(wav, "--pause", "0.1").stdout.splitlines()) > len(expected.finals)
    # Words depend on those before them, letters do not.
    whole, found = transcribe(wav, "--greedy").stdout, transcribe(wav, "--greedy", "--pause", "0.1").stdout
    assert len(found.splitlines()) > len(whole.splitlines())
    assert "".join(found.split()) == "".join(whole.split())


def test_version():
    assert call("--version").stdout.strip() == f"streamasr {streamasr.__version__}"
