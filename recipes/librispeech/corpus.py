"""What LibriSpeech (Panayotov et al. 2015, CC BY 4.0) is made of, and how a part of it is fetched."""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from streamasr.errors import StreamasrError

PIECE = 1 << 20  # bytes
TIMEOUT_S = 60.0


class CorpusError(StreamasrError):
    """A part of the corpus is not there or is not what it should be."""


@dataclass(frozen=True)
class Corpus:
    """Parts by what they are for, and where each can be had."""

    train: Sequence[str]
    dev: Sequence[str]
    test: Sequence[str]

    @property
    def parts(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.train, *self.dev, *self.test]))


FULL_DEV, FULL_TEST = ("dev-clean", "dev-other"), ("test-clean", "test-other")
CORPORA = {
    "mini": Corpus(("train-clean-5",), ("dev-clean-2",), ("dev-clean-2",)),
    "clean-100": Corpus(("train-clean-100",), FULL_DEV, FULL_TEST),
    "960": Corpus(("train-clean-100", "train-clean-360", "train-other-500"), FULL_DEV, FULL_TEST),
}
MINI_PARTS = ("train-clean-5", "dev-clean-2")


def url(part: str) -> str:
    """Where openslr.org keeps a part."""
    return f"https://www.openslr.org/resources/{31 if part in MINI_PARTS else 12}/{part}.tar.gz"


def find_part(source: Path, part: str) -> Path | None:
    """The folder of an extracted part anywhere the archives and people put it, or None."""
    places = (source / part, source / "LibriSpeech" / part, source)
    return next((place for place in places if place.name == part and place.is_dir()), None)


def provide(part: str, source: Path, md5: str | None = None) -> Path:
    """The extracted part under `source`: as it lies there, else from its archive, downloaded if need be."""
    folder = find_part(source, part)
    if folder is not None:
        return folder
    archive = source / f"{part}.tar.gz"
    if not archive.exists():
        download(url(part), archive)
    if md5 is not None and file_md5(archive) != md5:
        raise CorpusError(f"{archive}: md5 {file_md5(archive)}, expected {md5}; delete it and call again")
    extract(archive, source, part)
    folder = find_part(source, part)
    if folder is None:
        raise CorpusError(f"{archive}: holds no LibriSpeech/{part}; expected the archive of {url(part)}")
    return folder


def download(address: str, target: Path) -> None:
    """Fetch a file; what an earlier call left unfinished is continued."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if answer.status != 206:  # the server sends everything from the start
                have = 0
            size = have + int(answer.headers.get("Content-Length", 0))
            with (
                partial.open("ab" if have else "wb") as file,
                tqdm(total=size or None, initial=have, unit="B", unit_scale=True, desc=target.name) as bar,
            ):
                while data := answer.read(PIECE):
                    file.write(data)
                    bar.update(len(data))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send: only the renaming was missing
            error.close()
            partial.replace(target)
            return
        raise CorpusError(
            f"{address}: the server answered {error.code}; fetch it by hand into {target.parent}"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # no network, no name, a connection that broke
        reason = getattr(error, "reason", error)
        raise CorpusError(
            f"{address}: cannot be downloaded ({reason}); call again to go on, or put the archive into {target.parent}"
        ) from error
    if size and partial.stat().st_size != size:
        raise CorpusError(f"{address}: broke off at {partial.stat().st_size} of {size} bytes; call again to go on")
    partial.replace(target)


def extract(archive: Path, folder: Path, part: str) -> None:
    """Unpack beside its place and move it there, so that half a part is never taken for a whole one."""
    work = folder / f".{part}.extracting"
    shutil.rmtree(work, ignore_errors=True)
    try:
        with tarfile.open(archive) as file:
            file.extractall(work, filter="data")
        found = work / "LibriSpeech" / part
        if found.is_dir():
            (folder / "LibriSpeech").mkdir(exist_ok=True)
            found.rename(folder / "LibriSpeech" / part)
    except (tarfile.TarError, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise CorpusError(f"{folder}: no space left; make room and call again") from error
        raise CorpusError(f"{archive}: cannot be unpacked ({error}); delete it and call again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def file_md5(path: Path) -> str:
    """Hex digest, as openslr.org lists it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
