"""Sound tracks of m4a, mp4, webm and the like, where PyAV is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamasr.errors import AudioError

# Containers only: playlists and concatenation scripts would open other files and addresses.
TELLING = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm")  # tell their length; others let one guess
CONTAINERS = ",".join((*TELLING, "avi", "asf", "flv", "mpeg", "mpegts", "aac", "ac3", "eac3", "amr", "amrnb", "amrwb"))


class VideoReader:
    """Decodes the first sound track of a container."""

    exact = False  # containers count a codec's padding as they like

    def __init__(self, file: BinaryIO, name: str):
        av = _import_av(name)
        self._errors = (av.error.FFmpegError,)
        try:
            self._container: Any = _open(av, file)
        except self._errors as error:
            raise AudioError(f"{name}: neither libsndfile nor FFmpeg can read it; expected audio or video") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(f"{name}: has no sound track; expected audio, or video with sound")
        self._track = self._container.streams.audio[0]
        if self._track.codec_context is None:
            self._container.close()
            raise AudioError(f"{name}: its sound track is of a kind that FFmpeg cannot decode here; convert it first")
        self._resampler = av.AudioResampler(format="fltp")  # the same rate and channels, as planes of float32
        self.rate = int(self._track.rate or 0)
        self.frames = _length(self._track, self._container, self.rate)
        self.broken = False

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Samples (frames, channels); a decoder's error ends them and sets `broken`."""
        try:
            for frame in self._container.decode(self._track):
                if frame.sample_rate != self.rate:  # what follows would be heard too fast or too slowly
                    self.broken = True
                    return
                for plane in self._resampler.resample(frame):
                    yield plane.to_ndarray().T
        except (*self._errors, ValueError):  # ValueError: what follows is laid out otherwise
            self.broken = True

    def close(self) -> None:
        """Forget the decoder."""
        self._container.close()


def _open(av: Any, file: BinaryIO) -> Any:
    options = {"format_whitelist": CONTAINERS}
    try:
        return av.open(file, options=options)
    except UnicodeDecodeError:  # of a title, say
        file.seek(0)
        return av.open(file, options=options, metadata_errors="replace")


def _length(track: Any, container: Any, rate: int) -> int | None:
    if not set(container.format.name.split(",")) & set(TELLING):
        return None
    if track.duration is not None and track.time_base is not None:
        return int(track.duration * track.time_base * rate)
    if container.duration is not None:
        return int(container.duration * rate // 1_000_000)  # in microseconds
    return None


def _import_av(name: str) -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise AudioError(
            f"{name}: not audio that libsndfile can read (wav, flac, mp3, ogg, aiff and others); "
            "for m4a, mp4, webm and the like: pip install 'streamasr[video]'"
        ) from error
