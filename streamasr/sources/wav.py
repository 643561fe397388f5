"""WAV, read here and not by libsndfile: from a pipe as it arrives, and with its promised length compared to what comes.

Layout: "RIFF" size "WAVE", then chunks: a four-letter name, a 32-bit size, that many bytes and one more if odd.
https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html; RF64 is EBU Tech 3306.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamasr.errors import AudioError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
MAX_HEADER = 64 << 20  # bytes of pictures and notes before the samples


@dataclass(frozen=True)
class WavHeader:
    """What stands before the samples of a WAV file."""

    codec: int
    channels: int
    rate: int
    width: int  # bytes of one sample of one channel
    data_bytes: int | None  # None where the writer did not know, or never came back to write it

    @property
    def readable(self) -> bool:
        """Whether `read_wav` can read these samples."""
        return (self.codec, self.width) in ((PCM, 1), (PCM, 2), (PCM, 3), (PCM, 4), (FLOAT, 4), (FLOAT, 8))

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * self.width


def read_header(read: Callable[[int], bytes], name: str) -> WavHeader | None:
    """Read up to the first sample; None where this is no WAV file."""
    magic = read(12)
    if len(magic) < 12 or magic[:4] not in (b"RIFF", b"RF64") or magic[8:] != b"WAVE":
        return None
    long_size = form = None
    used = 12
    while len(head := read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == b"data":
            if form is None:
                raise AudioError(
                    f"{name}: WAV with samples before their format; expected 'fmt ' first; export it again"
                )
            if size == 0xFFFFFFFF and long_size is not None:
                size = long_size
            return WavHeader(*form, None if _means_unknown(size) else size)
        used += 8 + size
        if used > MAX_HEADER:
            raise AudioError(f"{name}: WAV with a chunk of {size} bytes before the samples; the file is damaged")
        body = read(size + size % 2)
        if kind == b"ds64" and len(body) >= 16:
            long_size = struct.unpack_from("<8xQ", body)[0]
        elif kind == b"fmt ":
            form = _parse_format(body, name)
    raise AudioError(f"{name}: WAV that ends before its samples; copy or export it again")


def read_wav(header: WavHeader, file: BinaryIO, frames: int) -> Iterator[NDArray[np.float32]]:
    """The samples (at most `frames`, channels) as they arrive, until the promised length or the end of the file."""
    read = getattr(file, "read1", file.read)  # read1 returns what is there, and waits only for nothing
    left = header.data_bytes
    rest = b""
    while left is None or left > 0:
        wanted = frames * header.frame_bytes - len(rest)
        data = read(wanted if left is None else min(wanted, left))
        if not data:
            return
        if left is not None:
            left -= len(data)
        data = rest + data
        whole = len(data) // header.frame_bytes * header.frame_bytes
        rest = data[whole:]
        if whole:
            yield _to_float(data[:whole], header).reshape(-1, header.channels)


def _parse_format(body: bytes, name: str) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise AudioError(f"{name}: WAV whose format takes {len(body)} bytes; expected 16 or more; export it again")
    codec, channels, rate, _, frame_bytes, _ = struct.unpack_from("<HHIIHH", body)
    if codec == EXTENSIBLE and len(body) >= 26:
        codec = struct.unpack_from("<H", body, 24)[0]  # the first field of the long name of the format
    if not 1 <= channels <= 256:
        raise AudioError(f"{name}: WAV of {channels} channels; expected 1 to 256; export it again")
    # 20 bits come in 3 bytes, leftmost: the container is what counts
    return codec, channels, rate, frame_bytes // channels if frame_bytes % channels == 0 else 0


def _means_unknown(size: int) -> bool:
    """Sizes that writers into a pipe put: 0, the largest number (ffmpeg), about 2^31 (sox, arecord)."""
    return size == 0 or 0xFFFF0000 <= size <= 0xFFFFFFFF or 0x7FFF0000 <= size <= 0x80010000


def _to_float(data: bytes, header: WavHeader) -> NDArray[np.float32]:
    if header.codec == FLOAT:
        with np.errstate(over="ignore"):  # beyond float32 becomes Inf, which is refused later
            return np.frombuffer(data, f"<f{header.width}").astype(np.float32)
    if header.width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if header.width == 2:
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
    if header.width == 3:  # as the upper three bytes of four
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data = wide.tobytes()
    return np.frombuffer(data, "<i4").astype(np.float32) / np.float32(2**31)
