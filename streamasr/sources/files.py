"""Recordings: files, and standard input."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamasr.errors import AudioError
from streamasr.sources.samples import as_mono_float, check_rate, describe_bad, first_bad
from streamasr.sources.video import VideoReader
from streamasr.sources.wav import PCM, WavHeader, read_header, read_wav

CHUNK_S = 0.2  # at most, where somebody may be speaking into a pipe
FILE_CHUNK_S = 2.0  # the more of a file at once, the faster it is heard (Stream._run)
SLACK_S = 0.25  # by so much the length that a compressed file tells may be wrong
STDIN = "standard input"


class Reader(Protocol):
    """One way to decode: samples as they are stored."""

    rate: int
    frames: int | None  # promised by the header
    exact: bool  # whether that promise is exact
    broken: bool  # set when the blocks ended before the file's own end

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Samples (frames, channels), until the end or the first damage."""

    def close(self) -> None:
        """Forget the decoder; the file is closed by its owner."""


class AudioSource:
    """One recording, read once from its beginning to its end in bounded memory.

    `seconds` is its length where the file tells it, `warnings` fills while reading.
    """

    def __init__(self, name: str, reader: Reader, file: BinaryIO):
        self.name = name
        self.rate = check_rate(reader.rate, name)
        if reader.frames == 0:
            raise AudioError(f"{name}: holds 0 samples; expected audio; record or export it again")
        self.seconds = None if reader.frames is None else reader.frames / self.rate
        self.warnings: list[str] = []
        self._reader = reader
        self._file = file

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Mono samples (n,) in [-1, 1], 2 s at a time, 0.2 s where they may still come. AudioError at a NaN or Inf."""
        done = 0
        for block in self._blocks():
            mono = _mono(block, self.name, done, self.rate)
            done += len(mono)
            yield mono
        if done == 0:
            raise AudioError(f"{self.name}: holds 0 samples; expected audio; record or export it again")
        end_s = done / self.rate
        missing_s = 0.0 if self.seconds is None else self.seconds - end_s
        if missing_s > (0.0 if self._reader.exact else SLACK_S) or (self._reader.broken and self.seconds is not None):
            self.warnings.append(f"{self.name}: ends after {end_s:.2f} s of {self.seconds:.2f} s: truncated or damaged")
        elif self._reader.broken:
            self.warnings.append(f"{self.name}: ends after {end_s:.2f} s of unknown length: truncated or damaged")

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        blocks = self._reader.blocks()
        while True:
            try:
                block = next(blocks, None)
            except OSError as error:  # of the medium; not of whoever uses the chunks
                raise AudioError(f"{self.name}: cannot be read to its end: {error.strerror or error}") from error
            if block is None:
                return
            yield block

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._file.close()

    def __enter__(self) -> AudioSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_file(path: str | Path) -> AudioSource:
    """Open a recording of 4 to 192 kHz: whatever libsndfile reads, and with PyAV installed what FFmpeg reads.

    AudioError, one line, says why a file cannot be used. A truncated file is read as far as it goes, with a warning.
    """
    name = str(path)
    try:
        if Path(path).is_dir():
            raise AudioError(f"{name}: is a directory; expected an audio file; name the files in it")
        file = Path(path).open("rb")  # noqa: SIM115 - the source closes it
    except FileNotFoundError as error:
        raise AudioError(f"{name}: there is no such file; check the path") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror}") from error
    with _closed_if_broken(file, f"{name}: cannot be read"):
        return _open_seekable(file, name) if file.seekable() else _open_pipe(file, name)


def open_stdin(rate: int | None = None, stream: BinaryIO | None = None) -> AudioSource:
    """Read standard input: raw mono 16-bit little-endian samples if `rate` (Hz) is given, else a file of any kind.

    Raw samples and WAV are passed on as they arrive; other files are first read to their end, into a temporary file.
    `stream` stands in for standard input.
    """
    if stream is None:
        if sys.stdin is None:
            raise AudioError(f"{STDIN}: is closed; expected audio; pipe some into it, or name a file")
        if sys.stdin.isatty():
            raise AudioError(f"{STDIN}: is a terminal; expected audio; pipe some into it, or name a file")
        stream = os.fdopen(os.dup(sys.stdin.fileno()), "rb")  # of its own, so that closing it closes no one else's
    with _closed_if_broken(stream, f"{STDIN}: cannot be read"):
        if rate is None:
            return _open_pipe(stream, STDIN)
        header = WavHeader(PCM, 1, check_rate(rate, STDIN), 2, None)
        return AudioSource(STDIN, _WavReader(header, stream, None), stream)


@contextmanager
def _closed_if_broken(file: BinaryIO, what: str, mend: str = "") -> Iterator[None]:
    """Whatever goes wrong; an error of the system becomes `what`, the error, `mend`."""
    try:
        yield
    except BaseException as error:
        file.close()
        if isinstance(error, OSError):
            raise AudioError(f"{what}: {error.strerror or error}{mend}") from error
        raise


def _open_seekable(file: BinaryIO, name: str) -> AudioSource:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected audio; copy or record it again")
    header = read_header(file.read, name)
    if header is not None:
        check_rate(header.rate, name)  # libsndfile has no word for 0 Hz
        available = size - file.tell()
        if header.readable:
            return AudioSource(name, _WavReader(header, file, available), file)
    file.seek(0)
    reader: Reader
    try:
        reader = _SndfileReader(file)
    except soundfile.LibsndfileError:
        file.seek(0)
        reader = VideoReader(file, name)
    if header is not None and header.data_bytes and reader.frames and header.data_bytes > available:
        reader.frames = round(reader.frames * header.data_bytes / max(available, 1))  # libsndfile counts what is there
    try:
        return AudioSource(name, reader, file)
    except AudioError:
        reader.close()
        raise


def _open_pipe(stream: BinaryIO, name: str) -> AudioSource:
    seen = bytearray()

    def read(size: int) -> bytes:
        data = stream.read(size)
        seen.extend(data)
        return data

    header = read_header(read, name)
    if not seen:
        raise AudioError(f"{name}: is empty (0 bytes); expected audio; look whether the program before the pipe failed")
    if header is not None and header.readable:
        return AudioSource(name, _WavReader(header, stream, None), stream)
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the source closes it
    with _closed_if_broken(file, f"{name}: cannot be kept in a temporary file", "; make room"):
        file.write(seen)
        shutil.copyfileobj(stream, file)
        file.flush()
        stream.close()
        return _open_seekable(file, name)


def _mono(block: NDArray[np.float32], name: str, done: int, rate: int) -> NDArray[np.float32]:
    """Mixed down and checked; `done` samples came before."""
    try:
        return as_mono_float(block, name)
    except AudioError:
        if block.shape[1] > 1:
            with np.errstate(invalid="ignore", over="ignore"):
                block = block.mean(axis=1, keepdims=True)
        bad = first_bad(block[:, 0])
        if bad is None:
            raise
        what = describe_bad(block[bad, 0])
    raise AudioError(f"{name}: the sample at {(done + bad) / rate:.4f} s {what}")


class _WavReader:
    """WAV and raw samples, from a file or a pipe."""

    exact = True

    def __init__(self, header: WavHeader, file: BinaryIO, available: int | None):
        self.rate = header.rate
        data_bytes = available if header.data_bytes is None else header.data_bytes
        self.frames = None if data_bytes is None else data_bytes // header.frame_bytes
        self.broken = False
        self._header, self._file = header, file
        self._chunk_s = CHUNK_S if available is None else FILE_CHUNK_S

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        return read_wav(self._header, self._file, max(1, int(self.rate * self._chunk_s)))

    def close(self) -> None:
        """Nothing to forget."""


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """Never seeks. soundfile seeks after every read to where it is, which breaks MP3 at every chunk (seen in 0.14)."""

    def seekable(self) -> bool:
        return False


class _Kept:
    """A file for libsndfile, whose callbacks lose exceptions, also that of a Ctrl-C: kept here, to be raised later."""

    def __init__(self, file: BinaryIO):
        self._file: Any = file
        self._error: BaseException | None = None

    def readinto(self, buffer: Any) -> int:
        return self._guarded("readinto", buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._guarded("seek", offset, whence)

    def tell(self) -> int:
        return self._guarded("tell")

    def _guarded(self, name: str, *arguments: Any) -> int:
        try:
            return int(getattr(self._file, name)(*arguments))
        except BaseException as error:
            self._error = self._error or error
            return 0

    def check(self) -> None:
        """Raise what was kept."""
        if self._error:
            raise self._error


class _SndfileReader:
    """Everything else that libsndfile reads."""

    def __init__(self, file: BinaryIO):
        self._file = _Kept(file)
        try:
            self._sound: Any = _Forward(self._file)
        finally:
            self._file.check()
        self.rate = int(self._sound.samplerate)
        self.frames: int | None = int(self._sound.frames)
        if self.frames is not None and self.frames > 1 << 60:  # a FLAC stream's way of not knowing
            self.frames = None
        self.exact = self._sound.format not in ("MP3", "OGG")
        self.broken = False
        self._cut = self._sound.format == "OGG" and not _ogg_has_end(file)
        if self._cut:  # libsndfile counts what is there; how much there was, nobody knows
            self.frames = None

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        try:
            while len(block := self._read()):
                yield block
        except soundfile.LibsndfileError:
            self.broken = True
        self.broken |= self._cut

    def _read(self) -> NDArray[np.float32]:
        try:
            block: NDArray[np.float32] = self._sound.read(
                int(self.rate * FILE_CHUNK_S), dtype="float32", always_2d=True
            )
        finally:
            self._file.check()
        return block

    def close(self) -> None:
        self._sound.close()


def _ogg_has_end(file: BinaryIO) -> bool:
    """Whether the last page is whole and marked as the last; a cut Ogg file tells no other way (RFC 3533, 6)."""
    here = file.tell()  # libsndfile reads through the same file
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (1 << 17)))  # a page has at most 65307 bytes
    tail = file.read()
    file.seek(here)
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
