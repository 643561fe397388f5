"""The recogniser in C hears what the Python one hears with the int8 graph, however the audio is cut, and is clean."""

from __future__ import annotations

import difflib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model

pytest.importorskip("torch")
pytest.importorskip("onnx")

from export.c import __main__ as program
from export.calibrate import calibrate
from export.quantize import add_graph
from streamasr.acoustic import Acoustic
from streamasr.bundle import (
    Bundle,
    ConfidenceModel,
    EndpointRule,
    Timing,
    Tuning,
    read_bundle,
    write_bundle,
)
from streamasr.decoding.greedy import Greedy
from streamasr.events import Final, Partial
from streamasr.recognizer import BUNDLED, Recognizer
from streamasr.stream import Stream
from streamasr.utterances import Engine

DATA = Path(__file__).parent / "data"
ENGINE = Path(program.__file__).parent
MAKE, CC = shutil.which("make"), shutil.which("cc")
COUNT = ["-DCOUNT_ALLOCATIONS", "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc"]
SANITISE = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"

pytestmark = pytest.mark.skipif(not (MAKE and CC), reason="there is no make or no C compiler (cc)")


@dataclass(frozen=True)
class Built:
    """A bundle, and the folder with its recogniser and the program that looks inside it."""

    bundle: Bundle
    folder: Path

    def run(self, name: str, *arguments: str, audio: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run([self.folder / name, *arguments], input=audio, capture_output=True, timeout=120)
        assert done.returncode == code, done.stderr.decode(errors="replace")[-3000:]
        return done

    def log_probs(self, audio: Any) -> Any:
        """(n,) int16 -> (frames, letters), the first `delay` and those of the zeros included."""
        found = self.run("check", "log_probs", audio=audio.tobytes()).stdout
        return np.frombuffer(found, dtype=np.float32).reshape(-1, len(self.bundle.head("letters")[1]))


def build(bundle: Bundle, folder: Path, flags: str = "-O2") -> Built:
    program.write_c(bundle.folder, folder)
    made = subprocess.run([str(MAKE), "-C", folder, "CC=cc", f"CFLAGS={flags}"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    objects = [path for path in folder.glob("*.o") if path.name != "main.o"]
    strict = [
        "-std=c99",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        f"-I{folder}",
        *flags.split(),
    ]
    command = ["cc", *strict, *COUNT, "-o", folder / "check", ENGINE / "check.c", *objects, "-lm"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return Built(bundle, folder)


def noise(seconds: float, seed: int = 0) -> Any:
    """(n,) int16: noise whose level swings from silence to clipping."""
    rng = np.random.default_rng(seed)
    level = 10.0 ** rng.uniform(-4.0, 0.0, int(seconds * 10)).repeat(1600)
    return np.clip(rng.standard_normal(len(level)) * level * 32768.0, -32768, 32767).astype("<i2")


def sample() -> Any:
    return np.frombuffer((DATA / "sample.wav").read_bytes()[44:], dtype="<i2")


def int8_bundle(model: Any, bundle: Bundle, folder: Path, silence: float) -> Bundle:
    """`bundle` with an int8 graph, quick endpoints and all that tuning can say."""
    shutil.copytree(bundle.folder, folder)
    scales = calibrate(model, [(noise(3.0) / 32768.0).astype(np.float32)])
    tuning = Tuning(Timing(-1000, 700), ConfidenceModel(2.0, 1.5, 0.3, 0.1), silence)
    rules = (EndpointRule(0.3), EndpointRule(0.1, 0.7), EndpointRule(0.0, 1.5))
    made = add_graph(model, replace(bundle, folder=folder), scales, 0.0)
    made = replace(made, tuning={**bundle.tuning, "greedy": tuning}, endpoint=rules)
    write_bundle(made)
    return read_bundle(folder)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Built:
    from toy import toy_model

    folder = tmp_path_factory.mktemp("toy")
    return build(int8_bundle(toy_model(), read_bundle(DATA / "toy"), folder / "bundle", 0.4), folder / "c")


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A size of DFT that is a power of two, and look-aheads of 1, 2 and 0."""
    import torch

    model = tiny_model()
    letters = model.body.stages["heads"].linear["letters"]
    with torch.no_grad():  # words and blanks come out, as in tests/toy.py
        letters.weight *= 5.0
        letters.bias[0] += 1.0
        letters.bias[1] += 1.0
    folder = tmp_path_factory.mktemp("tiny")
    return build(int8_bundle(model, tiny_bundle, folder / "bundle", 0.1), folder / "c")


@pytest.fixture(scope="module")
def sanitised(tiny: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("sanitised")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    if subprocess.run(["cc", *SANITISE.split(), "empty.c"], cwd=folder, capture_output=True).returncode:
        pytest.skip("this C compiler has no address and undefined behaviour sanitizers")
    return build(tiny.bundle, folder / "c", SANITISE)


# The network


@pytest.mark.parametrize("name", ["toy", "tiny"])
def test_log_probabilities_are_onnxs(name: str, request: pytest.FixtureRequest) -> None:
    """Nearly to the bit; where a float's last bit decides the rounding of an 8-bit value, by a little more."""
    built: Built = request.getfixturevalue(name)
    acoustic = Acoustic(built.bundle, "int8")
    where, _ = built.bundle.head("letters")
    for audio in (noise(6.0), sample()):
        expected = acoustic.whole((audio / 32768.0).astype(np.float32))[:, where]
        found = built.log_probs(audio)[acoustic.graph.delay :][: len(expected)]
        assert found.shape == expected.shape
        difference = np.abs(found - expected)
        assert np.median(difference) < 1e-4
        assert difference.max() < 0.5
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98


@pytest.mark.parametrize("name", ["toy", "tiny"])
def test_products_are_the_same_integers_in_every_way(name: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(name)
    said = built.run("check", "products").stdout.decode()
    if "plain only" in said:
        pytest.skip("this processor knows only one way")


# The stream


class Replay:
    """An Acoustic that has heard everything already."""

    def __init__(self, acoustic: Acoustic, log_probs: Any) -> None:
        self.graph = acoustic.graph
        self._log_probs = log_probs

    def zero_state(self) -> dict[str, Any]:
        return {"row": np.zeros(1, dtype=np.int64)}

    def step(self, audio: Any, state: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        row = int(state["row"][0])
        end = row + self.graph.block // self.graph.stride
        return self._log_probs[None, row:end], {"row": np.array([end])}


def python_lines(built: Built, audio: Any) -> Iterator[str]:
    """What `check events` should write: Python's stream over the log-probabilities of C, block by block."""
    bundle, (_, tokens) = built.bundle, built.bundle.head("letters")
    replay: Any = Replay(Acoustic(bundle, "int8"), built.log_probs(audio))
    engine = Engine(bundle, replay, Greedy(tokens), slice(0, len(tokens)), bundle.tuning["greedy"])
    stream, block, partial, shown = Stream(engine, None, None, 0, None, True), replay.graph.block, "", ""
    for start in range(0, len(audio), block):
        for event in stream.accept(audio[start : start + block], bundle.sample_rate):
            if isinstance(event, Final):
                yield final_line(event, bundle.sample_rate)
            partial = event.text if isinstance(event, Partial) else ""
        if partial != shown:
            shown = partial
            yield "-" + shown
    yield from (final_line(event, bundle.sample_rate) for event in stream.finish() if isinstance(event, Final))


def final_line(final: Final, rate: int) -> str:
    words = (f" {round(w.start_s * rate)}-{round(w.end_s * rate)}({w.confidence:.4f})" for w in final.words)
    return "=" + final.text + "".join(words)


def c_lines(built: Built, audio: Any) -> list[str]:
    return built.run("check", "events", audio=audio.tobytes()).stdout.decode().splitlines()


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.5, 20.0])
def test_words_times_and_partials_are_pythons(seconds: float, toy: Built) -> None:
    audio = noise(20.0, seed=1)[: int(seconds * 16000)]
    found = c_lines(toy, audio)
    assert found == list(python_lines(toy, audio))
    if seconds > 10.0:
        finals = [line for line in found if line[0] == "="]
        assert len(finals) >= 5
        assert any(line == "-" for line in found)  # an utterance has ended before the next began, or was taken back


def test_speech_too(toy: Built, tiny: Built) -> None:
    for built in (toy, tiny):
        assert c_lines(built, sample()) == list(python_lines(built, sample()))


@pytest.mark.parametrize("name", ["toy", "sanitised"])
@pytest.mark.parametrize("seed", [1, 2])
def test_cuts_other_streams_and_a_second_recording_change_nothing(
    seed: int, name: str, request: pytest.FixtureRequest
) -> None:
    """check aborts where anything but sasr_create takes memory."""
    built: Built = request.getfixturevalue(name)
    audio = noise(8.0, seed=seed)
    said = built.run("check", "cuts", str(seed), audio=audio.tobytes()).stdout.decode().splitlines()
    for i, part in enumerate((audio, audio[len(audio) // 2 :])):
        alone = [line[1:] for line in c_lines(built, part) if line[0] == "="]
        assert len(alone) > 1
        assert [line[1:] for line in said if line[0] == str(i)] == alone * 2


def test_an_utterance_that_never_pauses_is_ended(toy: Built, tmp_path: Path) -> None:
    """Its memory is bounded by the last rule, which is added where a bundle has none."""
    shutil.copytree(toy.bundle.folder, tmp_path / "bundle")
    tuning = {**toy.bundle.tuning, "greedy": replace(toy.bundle.tuning["greedy"], silence=0.0)}
    bundle = replace(toy.bundle, folder=tmp_path / "bundle", endpoint=(EndpointRule(30.0),), tuning=tuning)
    write_bundle(bundle)
    built = build(bundle, tmp_path / "c", "-O1")
    finals = [line for line in c_lines(built, noise(70.0)) if line[0] == "="]
    assert len(finals) == 2
    assert len(finals[0]) > 500


# The program


def wav(audio: bytes, *, rate: int = 16000, channels: int = 1, bits: int = 16, size: int | None = None) -> bytes:
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    chunks = b"fmt " + struct.pack("<I", 16) + fmt + b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    chunks += b"data" + struct.pack("<I", len(audio) if size is None else size) + audio
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def test_raw_samples_and_wav_give_the_same(toy: Built) -> None:
    audio = noise(4.0).tobytes()
    expected = toy.run("streamasr", audio=audio).stdout
    assert expected.count(b"\n") > 1
    for other in (wav(audio), wav(audio) + b"LIST\4\0\0\0abcd", wav(audio, size=0), wav(audio, size=0xFFFFFFFF)):
        assert toy.run("streamasr", audio=other).stdout == expected
    assert toy.run("streamasr", audio=audio + b"x").stdout == expected  # half a sample


def test_words_with_times_and_partials(toy: Built) -> None:
    audio = noise(4.0)
    lines = [line for line in c_lines(toy, audio) if line[0] == "="]
    done = toy.run("streamasr", "-t", "-p", audio=audio.tobytes())
    utterances = [u.splitlines() for u in done.stdout.decode().split("\n\n") if u]
    assert [" ".join(line.split()[3] for line in u) for u in utterances] == [
        " ".join(word for word in line[1:].split() if "(" not in word) for line in lines
    ]
    assert all(float(line.split()[0]) <= float(line.split()[1]) <= 4.0 for u in utterances for line in u)
    assert b"\r" in done.stderr


@pytest.mark.parametrize(
    ("audio", "complaint"),
    [
        (
            wav(b"1234", rate=8000),
            "got a WAV of coding 1, 1 channels, 8000 Hz, 16 bits; expected 1 (PCM), 1, 16000",
        ),
        (wav(b"1234", channels=2), "2 channels"),
        (wav(b"1234", bits=24), "24 bits"),
        (wav(b"")[:30], "cut short"),
        (wav(b"")[:40], "without samples"),
        (b"RIFF\0\0\0\0WAVEdata\2\0\0\0ab", "samples come before their format"),
        (b"fLaC" + bytes(100), "begins with 'fLaC'; expected 16-bit PCM or WAV"),
        (b"RF64" + bytes(100), "begins with 'RF64'"),
    ],
)
def test_other_audio_is_refused_in_one_line(audio: bytes, complaint: str, toy: Built) -> None:
    said = toy.run("streamasr", audio=audio, code=1).stderr.decode()
    assert said.startswith("streamasr: ")
    assert complaint in said
    assert len(said.splitlines()) == 1


def test_options(toy: Built) -> None:
    assert b"arecord -q -f S16_LE -r 16000 -c 1 -t raw | streamasr" in toy.run("streamasr", "--help").stdout
    assert b"unknown option '-x'" in toy.run("streamasr", "-x", code=2).stderr
    assert b"standard input (streamasr < AUDIO), got 'a.wav'" in toy.run("streamasr", "a.wav", code=2).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error(toy: Built) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [toy.folder / "streamasr"], input=noise(4.0).tobytes(), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert b"cannot write: No space left" in done.stderr


def test_a_cut_wav_is_heard_and_said_to_be_cut(toy: Built) -> None:
    audio = noise(4.0).tobytes()
    whole, cut = (toy.run("streamasr", audio=wav(audio)[:size]) for size in (None, len(wav(b"")) + 64_001))
    assert not whole.stderr
    assert cut.stdout == toy.run("streamasr", audio=audio[:64_000]).stdout
    assert b"the WAV ends 63999 bytes before it should" in cut.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_ctrl_c_loses_nothing_that_was_said(toy: Built) -> None:
    audio = noise(4.0).tobytes()
    with subprocess.Popen(
        [toy.folder / "streamasr", "-p"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(audio)
        process.stdin.flush()
        process.stderr.read(1)  # it hears
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        process.stdin.close()
        assert process.wait(10) == 130
    assert said
    assert said == toy.run("streamasr", audio=audio).stdout


def test_no_bytes_make_it_stumble(sanitised: Built) -> None:
    rng = random.Random(7)
    good = wav(noise(0.2).tobytes())
    for turn in range(40):
        data = bytearray(good if turn % 2 else rng.randbytes(rng.randrange(20000)))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
        data = data[: rng.randrange(len(data) + 1)] if turn % 3 == 0 else data
        done = subprocess.run(
            [sanitised.folder / "streamasr", "-t"], input=bytes(data), capture_output=True, timeout=60
        )
        assert done.returncode in (0, 1), done.stderr.decode(errors="replace")[-3000:]
        assert b"Sanitizer" not in done.stderr
        assert b"runtime error" not in done.stderr


# The generator


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "export.c", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ENGINE.parents[1])


def test_a_bundle_without_int8_is_refused(tmp_path: Path) -> None:
    done = command(DATA / "toy", tmp_path / "c")
    assert done.returncode == 1
    assert "has no graph 'int8'; make it with python -m export.quantize" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "c").exists()


def test_other_peoples_files_are_not_overwritten(toy: Built, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text("mine")
    done = command(toy.bundle.folder, tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "holds other files: not overwritten" in done.stderr
    assert (tmp_path / "main.c").read_text() == "mine"
    assert command(toy.bundle.folder, tmp_path / "c").returncode == 0
    assert command(toy.bundle.folder, tmp_path / "c").returncode == 0  # again


def test_a_stage_that_stayed_wide_is_refused(toy: Built, tmp_path: Path) -> None:
    from toy import toy_model

    shutil.copytree(toy.bundle.folder, tmp_path / "bundle")
    model = toy_model()
    scales = calibrate(model, [(noise(1.0) / 32768.0).astype(np.float32)])
    scales.pop("conv2")
    write_bundle(add_graph(model, replace(toy.bundle, folder=tmp_path / "bundle"), scales, 0.0))
    done = command(tmp_path / "bundle", tmp_path / "c")
    assert done.returncode == 1
    assert "conv2 is of float32, expected int8" in done.stderr


# Real speech


@pytest.mark.slow
def test_words_of_real_speech_are_pythons(shared: Path, tmp_path: Path) -> None:
    """Not all: one 8-bit value that is rounded the other way changes a letter somewhere (see gates.c)."""
    import soundfile

    bundle = read_bundle(BUNDLED)
    if "int8" not in bundle.graphs:
        pytest.skip("the bundled model has no int8 graph")
    built, recognizer = build(bundle, tmp_path / "c", "-O3"), Recognizer(bundle, "int8", greedy=True)
    clips = [json.loads(line) for line in (shared / "speech" / "test.jsonl").read_text().splitlines()[:40]]
    words = same = 0
    for clip in clips:
        audio, rate = soundfile.read(shared / "speech" / clip["audio"], dtype="int16")
        assert rate == bundle.sample_rate
        expected = recognizer.transcribe(audio, rate).text.split()
        found = built.run("streamasr", audio=audio.tobytes()).stdout.decode().split()
        blocks = difflib.SequenceMatcher(None, expected, found, autojunk=False).get_matching_blocks()
        words, same = words + len(expected), same + sum(block.size for block in blocks)
    assert same / words >= 0.99, f"{same} of {words} words are equal"


# ONNX Runtime's own C API


def ort_include() -> Path | None:
    """Where its header lies: named by the environment, or installed (Debian 13's libonnxruntime-dev)."""
    folders = [os.environ.get("ORT_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime"]
    return next(
        (Path(folder) for folder in folders if folder and (Path(folder) / "onnxruntime_c_api.h").is_file()), None
    )


def test_the_example_on_onnx_runtime_says_the_same(tiny: Built, tmp_path: Path) -> None:
    """The header from wherever there is one, the library from the Python package."""
    import onnxruntime

    include = ort_include()
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if include is None or not libraries:
        pytest.skip("no onnxruntime_c_api.h here (ORT_INCLUDE names its folder), or no shared library")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(libraries[0])
    library = [f"ORT_INCLUDE={include}", f"ORT_LIBRARY=-L{tmp_path} -lonnxruntime"]
    made = subprocess.run([str(MAKE), "-C", tiny.folder, *library, "streamasr-ort"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    audio = noise(4.0).tobytes()

    def hear(graph: Path, code: int) -> subprocess.CompletedProcess[bytes]:
        environment = {"LD_LIBRARY_PATH": str(tmp_path), "STREAMASR_GRAPH": str(graph)}
        done = subprocess.run(
            [tiny.folder / "streamasr-ort", "-t"], input=audio, capture_output=True, timeout=60, env=environment
        )
        assert done.returncode == code, done.stderr
        return done

    expected = tiny.run("streamasr", "-t", audio=audio).stdout
    assert expected.count(b"\n") > 3
    assert hear(tiny.bundle.folder / "int8.onnx", 0).stdout == expected
    assert hear(tiny.bundle.folder / "fp32.onnx", 0).stdout != b""
    complaint = hear(tmp_path / "nothing.onnx", 1).stderr.decode()
    assert complaint.startswith("streamasr: ONNX Runtime: ")
    assert complaint.count("\n") == 1
