"""Simulated rooms for training to sound in: python -m recipes.mini.rooms [--out work/rooms]

Shoe boxes between a kitchen and a small hall, by image sources (Allen and Berkley 1979). An impulse response begins
with the direct sound, so that words stay where they were. The recorded rooms of ../shared are not for training:
recipes.mini.reverberant measures in them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import trange

from recipes.program import run
from streamasr.training.data import RATE

SMALLEST, LARGEST = (2.5, 2.0, 2.3), (9.0, 7.0, 3.8)  # m
REVERBERATION_S = 0.15, 0.8  # until 60 dB are lost; a small room cannot hold it long, and no room need be dead
DISTANCE_M = 0.3, 3.5
WALL_M = 0.3  # nobody speaks or listens closer to one
LONGEST_S = 0.8  # of a response that is kept


def simulate(rng: np.random.Generator) -> NDArray[np.float32]:
    """An impulse response: the direct sound first, its largest value 0.9."""
    import pyroomacoustics

    while True:
        size = rng.uniform(SMALLEST, LARGEST)
        try:
            absorption, order = pyroomacoustics.inverse_sabine(rng.uniform(*REVERBERATION_S), size)
        except ValueError:  # even walls that swallow everything would not make it so dry
            continue
        source, microphone = rng.uniform(WALL_M, size - WALL_M, size=(2, 3))
        if DISTANCE_M[0] <= np.linalg.norm(source - microphone) <= DISTANCE_M[1]:
            break
    walls = pyroomacoustics.Material(absorption)
    room = pyroomacoustics.ShoeBox(size, fs=RATE, materials=walls, max_order=min(order, 40), air_absorption=True)
    room.add_source(source)
    room.add_microphone(microphone)
    room.compute_rir()
    return from_direct_sound(room.rir[0][0])


def from_direct_sound(response: NDArray[np.floating]) -> NDArray[np.float32]:
    """What comes with the first sound that is half as loud as the loudest, or after it."""
    size = np.abs(response)
    begin = int(np.argmax(size >= 0.5 * size.max()))
    cut: NDArray[np.float32] = (0.9 / size.max() * response[begin : begin + int(LONGEST_S * RATE)]).astype(np.float32)
    return cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("work/rooms"))
    parser.add_argument("--rooms", type=int, default=64)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in trange(arguments.rooms):
        path = arguments.out / f"{number:03}.flac"
        if not path.exists():
            soundfile.write(path, simulate(np.random.default_rng(number)), RATE)


if __name__ == "__main__":
    run(main)
