"""Speak the demo's recording with Debian's flite: python -m recipes.sample.make"""

from __future__ import annotations

import wave
from pathlib import Path

from recipes.flite import speak
from recipes.program import run
from streamasr.errors import StreamasrError

TEXT = "the old man walked slowly down to the river and looked at the boats in the morning light"
VOICE = "rms"
SAMPLE = Path(__file__).parents[2] / "tests" / "data" / "sample.wav"


def make(wav: Path) -> None:
    """Write the recording, and beside it what is said in it."""
    wav.parent.mkdir(parents=True, exist_ok=True)
    speak(TEXT, VOICE, wav)
    with wave.open(str(wav)) as file:
        found = (file.getframerate(), file.getnchannels(), file.getsampwidth())
    if found != (16000, 1, 2):
        raise StreamasrError(
            f"flite wrote {found} (Hz, channels, bytes), expected (16000, 1, 2); try Debian's flite 2.2"
        )
    wav.with_suffix(".txt").write_text(TEXT + "\n", encoding="utf-8")


def main() -> None:
    make(SAMPLE)
    print(f"{SAMPLE}: {SAMPLE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run(main)
