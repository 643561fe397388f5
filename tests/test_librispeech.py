"""LibriSpeech -> manifests, on a few made recordings in LibriSpeech's own layout."""

from __future__ import annotations

import hashlib
import http.server
import json
import string
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from recipes import program
from recipes.librispeech import corpus as library
from recipes.librispeech.corpus import CORPORA, CorpusError, download, file_md5, provide, url
from recipes.librispeech.prepare import main, prepare, read_part
from streamasr.manifest import read_manifest

LETTERS = [" ", "'", *string.ascii_lowercase]


def write_part(folder: Path, speaker: int = 19, texts: tuple[str, ...] = ("NORTHANGER ABBEY", "THE HOUSE'S")) -> Path:
    chapter = folder / str(speaker) / "198"
    chapter.mkdir(parents=True)
    lines = []
    for i, text in enumerate(texts):
        name = f"{speaker}-198-{i:04}"
        noise = np.random.default_rng(i).normal(0.0, 0.01, 8000 * (i + 1))
        soundfile.write(chapter / f"{name}.flac", noise, 16000)
        lines.append(f"{name} {text}\n")
    (chapter / f"{speaker}-198.trans.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    write_part(tmp_path / "source" / "LibriSpeech" / "train-clean-5")
    write_part(tmp_path / "source" / "LibriSpeech" / "dev-clean-2", speaker=84, texts=("GO",))
    return tmp_path / "source"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    try:
        program.run(main)
    except SystemExit as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def test_a_tree_becomes_manifests_that_training_reads(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "--corpus", "mini", "--source", mini, "--out", out) == 0
    names = ["train-clean-5", "dev-clean-2", "train", "dev", "test"]
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{name}.jsonl" for name in names)
    assert capsys.readouterr().out.splitlines() == [f"{out / name}.jsonl: 0.00 h" for name in names]
    folder = mini / "LibriSpeech" / "train-clean-5" / "19" / "198"
    assert records(out / "train.jsonl") == [
        {
            "audio": str(folder / f"19-198-000{i}.flac"),
            "text": text,
            "speaker": "ls-19",
            "source": "librispeech-train-clean-5",
            "seconds": seconds,
        }
        for i, (text, seconds) in enumerate([("northanger abbey", 0.5), ("the house's", 1.0)])
    ]
    assert [u.text for u in read_manifest(out / "train.jsonl", LETTERS)] == ["northanger abbey", "the house's"]
    assert (
        (out / "dev.jsonl").read_text() == (out / "test.jsonl").read_text() == (out / "dev-clean-2.jsonl").read_text()
    )


def test_audio_below_the_manifest_is_relative_and_moves_with_it(mini: Path, tmp_path: Path) -> None:
    prepare(CORPORA["mini"], mini, mini)
    assert records(mini / "dev.jsonl")[0]["audio"] == "LibriSpeech/dev-clean-2/84/198/84-198-0000.flac"
    mini.rename(tmp_path / "moved")
    assert len(read_manifest(tmp_path / "moved" / "train.jsonl", LETTERS)) == 2


def test_parts_may_lie_in_the_source_itself(tmp_path: Path) -> None:
    part = write_part(tmp_path / "dev-clean")
    assert provide("dev-clean", tmp_path) == provide("dev-clean", part) == part


def test_the_corpora_are_the_published_parts() -> None:
    assert CORPORA["960"].parts == [
        *("train-clean-100", "train-clean-360", "train-other-500"),
        *("dev-clean", "dev-other", "test-clean", "test-other"),
    ]
    assert CORPORA["mini"].parts == ["train-clean-5", "dev-clean-2"]
    assert url("train-clean-5") == "https://www.openslr.org/resources/31/train-clean-5.tar.gz"
    assert url("test-other") == "https://www.openslr.org/resources/12/test-other.tar.gz"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("CHAPTER 7", r"19-198\.trans\.txt, line 1: got '7'"), ("", r"line 1: got no text")],
)
def test_a_bad_transcript_is_named(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=complaint):
        read_part(write_part(tmp_path / "part", texts=(text,)))


def test_a_missing_or_damaged_recording_is_named(mini: Path, tmp_path: Path) -> None:
    recording = mini / "LibriSpeech/train-clean-5/19/198/19-198-0001.flac"
    for damage in (lambda: recording.write_bytes(b"fLaC"), recording.unlink):
        damage()
        with pytest.raises(
            CorpusError, match=r"line 2: .*19-198-0001\.flac: cannot be read .*; extract the part again"
        ):
            prepare(CORPORA["mini"], mini, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "dev-clean").mkdir()
    with pytest.raises(CorpusError, match=r"dev-clean: holds no \*\.trans\.txt"):
        read_part(provide("dev-clean", tmp_path))


def archive(folder: Path, part: str = "dev-clean") -> bytes:
    write_part(folder / "LibriSpeech" / part)
    with tarfile.open(folder / "made.tar.gz", "w:gz") as file:
        file.add(folder / "LibriSpeech", "LibriSpeech")
    return (folder / "made.tar.gz").read_bytes()


def test_an_archive_is_extracted_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "dev-clean.tar.gz").write_bytes(archive(tmp_path))
    part = provide("dev-clean", source, md5=file_md5(source / "dev-clean.tar.gz"))
    assert part == source / "LibriSpeech" / "dev-clean"
    assert len(read_part(part)) == 2
    (source / "dev-clean.tar.gz").unlink()
    assert provide("dev-clean", source) == part
    assert [path.name for path in source.iterdir()] == ["LibriSpeech"]


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    data = archive(tmp_path / "made")
    path = tmp_path / "dev-clean.tar.gz"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"dev-clean\.tar\.gz: md5 .*, expected 0000.*; delete it and call again"):
        provide("dev-clean", tmp_path, md5="0" * 32)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorpusError, match=r"dev-clean\.tar\.gz: cannot be unpacked .*; delete it and call again"):
        provide("dev-clean", tmp_path)
    path.write_bytes(archive(tmp_path / "other", "dev-other"))
    with pytest.raises(CorpusError, match="holds no LibriSpeech/dev-clean"):
        provide("dev-clean", tmp_path)
    assert not (tmp_path / "LibriSpeech").exists()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file, also from the middle; breaks off after `limit` bytes."""

    data = bytes(range(256)) * 5000
    limit = 10**9
    ranges: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if self.path == "/missing" or start >= len(self.data):
            self.send_error(404 if self.path == "/missing" else 416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : start + self.limit])

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    handler = type("Handler", (Server,), {"ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield handler, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_broken_download_goes_on(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, address = server
    target = tmp_path / "a" / "x.tar.gz"
    handler.limit = 700_000
    with pytest.raises(
        CorpusError, match=r"/x: .*(broke off at 700000 of 1280000|cannot be downloaded).* call again to go on"
    ):
        download(f"{address}/x", target)
    assert not target.exists()
    handler.limit = 10**9
    download(f"{address}/x", target)
    assert handler.ranges == [None, "bytes=700000-"]
    assert hashlib.md5(target.read_bytes()).digest() == hashlib.md5(handler.data).digest()
    assert [path.name for path in target.parent.iterdir()] == ["x.tar.gz"]


def test_a_download_that_only_lacked_its_name(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, address = server
    (tmp_path / "x.tar.gz.partial").write_bytes(handler.data)
    download(f"{address}/x", tmp_path / "x.tar.gz")
    assert (tmp_path / "x.tar.gz").read_bytes() == handler.data


def test_what_the_server_refuses_is_said(server: tuple[type[Server], str], tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="/missing: the server answered 404; fetch it by hand into"):
        download(f"{server[1]}/missing", tmp_path / "x.tar.gz")


def test_without_a_network_the_command_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "url", lambda part: f"http://127.0.0.1:9/{part}.tar.gz")
    assert run(monkeypatch, "--corpus", "mini", "--source", tmp_path / "s", "--out", tmp_path / "o") == 1
    error = capsys.readouterr().err
    assert error.startswith("prepare: http://127.0.0.1:9/train-clean-5.tar.gz: cannot be downloaded (")
    assert error.count("\n") == 1
    assert "put the archive into" in error
