"""Videos, and what else PyAV reads: whole, cut, damaged, and without PyAV."""

import sys

import numpy as np
import pytest

from streamasr.sources import open_file, open_stdin
from tests.test_files import RATE, in_pipe, read, refused, tone, wav


def make_video(path, form, codec, rate, seconds=4):
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=form) as container:
        track = container.add_stream(codec, rate=rate)
        track.layout = "stereo"
        planes = np.ascontiguousarray(tone(seconds, 2, rate).T)
        for start in range(0, planes.shape[1] - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(planes[:, start : start + 1024].copy(), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, start
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


@pytest.mark.parametrize(
    ("form", "codec", "rate"), [("mp4", "aac", 44100), ("webm", "libopus", 48000), ("adts", "aac", 16000)]
)
def test_video(tmp_path, form, codec, rate):
    path = tmp_path / "a"
    make_video(path, form, codec, rate)
    for source in (open_file(path), open_stdin(None, in_pipe(path.read_bytes()))):
        with source:
            samples = np.concatenate(list(source.chunks()))
        assert (source.rate, source.warnings) == (rate, [])
        assert source.seconds is None or abs(source.seconds - 4) < 0.1
        expected = tone(4, 2, rate).mean(1)
        at = max(range(0, 4000), key=lambda k: samples[k : k + rate] @ expected[:rate])  # the codec's delay
        assert np.corrcoef(samples[at : at + 3 * rate], expected[: 3 * rate])[0, 1] > 0.99


def test_cut_video(tmp_path):
    path = tmp_path / "a.webm"
    make_video(path, "webm", "libopus", 48000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_file(path) as source:
        assert 1 < sum(map(len, source.chunks())) / 48000 < 3
    assert "truncated or damaged" in source.warnings[0]


def test_a_title_that_is_no_utf_8_is_no_obstacle(tmp_path):
    av, path = pytest.importorskip("av"), tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "zzzz"
        track = container.add_stream("aac", rate=RATE)
        frame = av.AudioFrame.from_ndarray(tone(0.5).T.copy(), format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux([*track.encode(frame), *track.encode(None)])
    path.write_bytes(path.read_bytes().replace(b"zzzz", b"z\xffzz"))
    with pytest.raises(UnicodeDecodeError), av.open(str(path)):
        pass
    assert len(read(open_file(path))[0]) >= RATE // 2


def test_a_video_whose_rate_changes_is_said_to_be_damaged(tmp_path):
    for rate in (44100, 32000):
        make_video(tmp_path / str(rate), "adts", "aac", rate, seconds=2)
    path = tmp_path / "a.aac"
    path.write_bytes((tmp_path / "44100").read_bytes() + (tmp_path / "32000").read_bytes())
    with open_file(path) as source:
        assert 1.9 < sum(map(len, source.chunks())) / 44100 < 2.2
    assert "truncated or damaged" in source.warnings[0]


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(1000))
    assert "pip install 'streamasr[video]'" in refused(path)


def test_playlists_are_not_followed(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a.wav").write_bytes(wav())
    path = tmp_path / "a.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.wav\n#EXT-X-ENDLIST\n")
    assert "neither libsndfile nor FFmpeg" in refused(path)
