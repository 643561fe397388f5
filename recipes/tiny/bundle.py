"""The checkpoints of a run -> the sibling: python -m recipes.tiny.bundle

As recipes.mini.bundle makes the bundled model. Its language model is half as large, and there is no recurrent one.
"""

from __future__ import annotations

from pathlib import Path

from recipes.mini.bundle import WORDS, Place, build
from recipes.program import run
from streamasr.bundle import BeamConfig

HERE = Path(__file__).parent
BUNDLE = HERE / "en-tiny"

# Chosen on every fourth utterance of dev (RESULTS.md).
BEAM = BeamConfig(width=14.0, token_width=8.0, blank_penalty=2.25, lm_weight=1.1, word_bonus=0.6)


def main() -> None:
    place = Place.from_arguments(__doc__, Path("work/tiny"), BUNDLE, HERE / "RESULTS.md")
    build(place, (WORDS[0].with_name("en-3.lm"), *WORDS[1:]), BEAM, None)


if __name__ == "__main__":
    run(main)
