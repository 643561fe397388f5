"""A real PortAudio and a real sound server, without hardware: what is played comes in through a microphone."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import streamasr

pytestmark = pytest.mark.slow

PROGRAMS = ("pulseaudio", "pactl", "pacat", "paplay")
RATE = 16000

RECORDER = """
import sys, numpy as np
from streamasr.sources import Lost, open_microphone
out, name, seconds = sys.argv[1], sys.argv[2] or None, float(sys.argv[3])
parts, lost, total = [], [], 0
with open_microphone(name) as microphone:
    for item in microphone:
        if total == 0:  # a sound server that has just started gives nothing for half a second
            print("open", flush=True)
        if isinstance(item, Lost):
            lost.append((total, item.samples))
        else:
            parts.append(item)
            total += len(item)
        if total >= seconds * microphone.rate:
            break
np.savez(out, samples=np.concatenate(parts), rate=microphone.rate, lost=np.array(lost).reshape(-1, 2))
"""


@pytest.fixture(scope="module")
def sound_server(tmp_path_factory):
    """The environment of a sound server whose loudspeaker is its microphone."""
    missing = [p for p in PROGRAMS if shutil.which(p) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install pulseaudio pulseaudio-utils libasound2-plugins")
    base = tmp_path_factory.mktemp("pulse")
    home = base / "home"
    home.mkdir()
    base.chmod(0o700)
    (home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(base),
        "HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    environment.pop("PULSE_SERVER", None)
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sink = f"module-null-sink sink_name=spk rate={RATE} channels=1 format=s16le"
    modules = ["-L", "module-native-protocol-unix", "-L", sink, "-L", "module-always-sink"]
    server = subprocess.Popen(
        ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", *modules],
        **quiet,
    )
    awake = None
    try:
        for _ in range(50):
            if subprocess.run(["pactl", "set-default-source", "spk.monitor"], check=False, **quiet).returncode == 0:
                break
            time.sleep(0.1)
        else:
            pytest.skip("pulseaudio does not start here")
        awake = subprocess.Popen(
            [
                "pacat",
                "--playback",
                "--format=s16le",
                f"--rate={RATE}",
                "--channels=1",
                "--latency-msec=20",
                "/dev/zero",
            ],
            **quiet,
        )
        probe = subprocess.run(
            [sys.executable, "-c", "import streamasr.sources as s; print(*s.list_devices(), sep='; ')"],
            env=environment,
            capture_output=True,
            text=True,
        )
        if "pulse" not in probe.stdout:
            pytest.skip(f"PortAudio does not see pulseaudio: {(probe.stdout + probe.stderr).strip()[-200:]}")
        yield environment
    finally:
        for process in (awake, server):
            if process is not None:
                process.terminate()
                process.wait(10)


def record(environment, tmp_path, sound, seconds, name="", interrupt=None):
    """Play `sound` (RATE Hz) while a process records; its samples at RATE Hz, its rate, and what it says was lost."""
    soundfile.write(tmp_path / "sound.wav", sound, RATE)
    command = [sys.executable, "-c", RECORDER, str(tmp_path / "out.npz"), name, str(seconds)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdout.readline() == "open\n"
        time.sleep(0.3)
        # Its own latency of two seconds: with a short one, a player that is not scheduled for a while leaves a gap.
        player = subprocess.Popen(["paplay", str(tmp_path / "sound.wav")], env=environment)
        if interrupt:
            interrupt(recorder)
        assert player.wait(30) == 0
        assert recorder.wait(30) == 0
    found = np.load(tmp_path / "out.npz")
    return soxr.resample(found["samples"], int(found["rate"]), RATE), int(found["rate"]), found["lost"]


def speechlike(seconds):
    """Noise below 3 kHz, swelling four times a second; nothing in it repeats."""
    n = int(seconds * RATE)
    noise = np.random.default_rng(7).standard_normal(n)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(n, 1 / RATE) > 3000] = 0
    return (0.1 * np.fft.irfft(spectrum, n) * (1 + np.sin(2 * np.pi * 4 * np.arange(n) / RATE))).astype(np.float32)


def place(recording, sound):
    """Where in the recording the sound begins, and how well it fits there."""
    size = 1 << (len(recording) + len(sound)).bit_length()
    fit = np.fft.irfft(np.fft.rfft(recording, size) * np.conj(np.fft.rfft(sound, size)), size)
    at = int(fit[: len(recording) - len(sound) + 1].argmax())
    return at, np.corrcoef(recording[at : at + len(sound)], sound)[0, 1]


@pytest.mark.parametrize("name", ["", "PUL"])
def test_recording_equals_the_sound(sound_server, tmp_path, name):
    sound = speechlike(3)
    recording, rate, lost = record(sound_server, tmp_path, sound, 5, name)
    _, fit = place(recording, sound)
    assert fit > 0.99
    assert lost.tolist() == []
    assert rate == 44100  # the device's own


def check_loss(recording, rate, lost, sound):
    """What is missing from the middle of the sound is what was told to be lost."""
    before, fit_before = place(recording, sound[:RATE])
    after, fit_after = place(recording, sound[-RATE:])
    assert min(fit_before, fit_after) > 0.99
    missing_s = (len(sound) - RATE - (after - before)) / RATE
    assert abs(lost[:, 1].sum() / rate - missing_s) < 0.1


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_stopped_recorder_knows_whether_it_lost_something(sound_server, tmp_path):
    def interrupt(recorder):
        time.sleep(1.5)
        recorder.send_signal(signal.SIGSTOP)
        time.sleep(3)
        recorder.send_signal(signal.SIGCONT)

    sound = speechlike(6)
    check_loss(*record(sound_server, tmp_path, sound, 8, interrupt=interrupt), sound)  # PulseAudio keeps it all


def test_live_prints_what_is_said_and_ctrl_c_the_last_words(sound_server, tmp_path):
    """The command itself, on a terminal: partials, finals, and a clean end."""
    jiwer = pytest.importorskip("jiwer")
    sample = Path(__file__).parent / "data" / "sample.wav"
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 60))
    command = [sys.executable, "-m", "streamasr", "live"]
    with subprocess.Popen(command, env=sound_server, stdout=side, stderr=side) as process:
        os.close(side)
        shown = b""
        while b"Listening" not in shown:
            shown += os.read(main, 4096)
        time.sleep(0.3)
        assert subprocess.run(["paplay", "--latency-msec=60", str(sample)], env=sound_server).returncode == 0
        process.send_signal(signal.SIGINT)  # at once: the last words are still on their way
        try:
            while piece := os.read(main, 4096):
                shown += piece
        except OSError:  # Linux's end of a terminal
            pass
        assert process.wait(10) == 0
    os.close(main)
    text = shown.decode()
    assert "Traceback" not in text
    assert text.count("\r\x1b[K") > 3, "no partial text was shown and taken back"
    lines = [line.split("\x1b[K")[-1].strip() for line in text.split("\n")]
    finals = [line for line in lines if line and "Listening" not in line]
    file_text = streamasr.load().transcribe(sample).text.replace("\n", " ")
    assert jiwer.cer(file_text, " ".join(finals)) < 0.3
    assert text.endswith("\n")
