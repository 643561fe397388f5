"""LogMel computes what librosa and torchaudio compute."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from streamasr.bundle import FeatureConfig  # noqa: E402
from streamasr.nn.features import LogMel, hz_to_mel, mel_to_hz  # noqa: E402

DEBIAN_PYTHON = Path("/usr/bin/python3")  # Debian's torchaudio is the one that works without CUDA
RATE = 16000
TORCHAUDIO = """
import sys
import numpy as np, torch, torchaudio
mel = torchaudio.transforms.MelSpectrogram(
    16000, n_fft=512, win_length=400, hop_length=160, center=False, n_mels=80, norm="slaney", mel_scale="slaney")
audio = np.load(sys.argv[1])
np.savez(sys.argv[2], **{name: mel(torch.from_numpy(audio[name])).numpy() for name in audio.files})
"""


def chirp(seconds: float) -> NDArray[np.float64]:
    t = np.arange(int(seconds * RATE)) / RATE
    return np.sin(2 * np.pi * (50 * t + 0.5 * 7900 / seconds * t**2))


def vowels(seconds: float) -> NDArray[np.float64]:
    """Pulses of a wandering pitch through three wandering resonances: what speech is made of."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(5)
    t = np.arange(int(seconds * RATE)) / RATE
    phase = np.cumsum(120 + 30 * np.sin(2 * np.pi * 2.3 * t)) / RATE
    audio = np.diff(np.floor(phase), prepend=0.0) + 0.01 * rng.standard_normal(len(t))
    parts = []
    for piece in np.array_split(audio, 12):
        for centre in rng.uniform((300, 900, 2200), (800, 2200, 3200)):
            radius = np.exp(-np.pi * 90 / RATE)
            piece = lfilter([1.0], [1.0, -2 * radius * np.cos(2 * np.pi * centre / RATE), radius**2], piece)
        parts.append(piece * rng.choice([0.0, 0.1, 1.0]))
    return np.concatenate(parts)


def sample() -> NDArray[np.float64]:
    """The speech of tests/data where it is there."""
    import soundfile

    for path in sorted((Path(__file__).parent / "data").glob("*")):
        if path.suffix in (".wav", ".flac", ".opus", ".ogg"):
            audio, rate = soundfile.read(path, always_2d=True)
            if rate == RATE:
                return audio[: 5 * RATE, 0]
    return vowels(3.0)


@cache
def signals() -> dict[str, NDArray[np.float32]]:
    made = {
        "noise": np.random.default_rng(0).standard_normal(2 * RATE + 77),
        "chirp": chirp(2.0),
        "vowels": vowels(2.0),
        "sample": sample(),
    }
    return {
        f"{name} at {level:g}": (level * audio / np.abs(audio).max()).astype(np.float32)
        for name, audio in made.items()
        for level in (1e-3, 3e-2, 1.0)
    }


def shifted(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """So that a library's frame i, its window centred in 512, covers samples [160 (i + 1) - 400, 160 (i + 1))."""
    whole = audio[: len(audio) // 160 * 160]
    return np.pad(whole, (400 - 160 + 56, 56))


def ours(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    stage = LogMel(FeatureConfig())
    x = torch.from_numpy(audio[: len(audio) // 160 * 160])[None]
    with torch.no_grad():
        return stage.step(x, stage.zero_state(1))[0][0].numpy()


def assert_log_mel(audio: NDArray[np.float32], power: NDArray[np.float32]) -> None:
    expected = np.log(power.T + FeatureConfig().floor)
    found = ours(audio)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("name", signals())
def test_log_mel_is_librosas(name: str) -> None:
    librosa = pytest.importorskip("librosa")
    audio = signals()[name]
    power = librosa.feature.melspectrogram(
        y=shifted(audio), sr=RATE, n_fft=512, hop_length=160, win_length=400, center=False, n_mels=80
    )
    assert_log_mel(audio, power)


@pytest.fixture(scope="module")
def torchaudio_power(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    folder = tmp_path_factory.mktemp("torchaudio")
    found = DEBIAN_PYTHON.exists() and subprocess.run([DEBIAN_PYTHON, "-c", "import torchaudio"], capture_output=True)
    if not found or found.returncode:
        pytest.skip("Debian's python3-torchaudio is not installed")
    np.savez(folder / "audio.npz", **{name: shifted(audio) for name, audio in signals().items()})
    command = [DEBIAN_PYTHON, "-c", TORCHAUDIO, folder / "audio.npz", folder / "power.npz"]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(folder / "power.npz") as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("name", signals())
def test_log_mel_is_torchaudios(name: str, torchaudio_power: dict[str, NDArray[np.float32]]) -> None:
    assert_log_mel(signals()[name], torchaudio_power[name])


def test_a_click_is_seen_by_the_frames_that_cover_it() -> None:
    """Frame i covers samples [160 (i + 1) - 400, 160 (i + 1))."""
    quiet = np.zeros(3200, dtype=np.float32)
    for position in (0, 159, 160, 1000, 1599):
        click = quiet.copy()
        click[position] = 1.0
        changed = np.flatnonzero((ours(click) != ours(quiet)).any(axis=1))
        # The first sample of a Hann window has weight zero.
        expected = [i for i in range(20) if 160 * (i + 1) - 400 < position < 160 * (i + 1)]
        assert set(changed) == set(expected), position


def test_the_mel_scale_and_back() -> None:
    hz = np.array([0.0, 200.0, 999.0, 1000.0, 1001.0, 4000.0, 8000.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, atol=1e-9)
