"""Language models as ARPA files: bad lines, files that are packed."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest

from streamasr.decoding.arpa import read_arpa
from streamasr.errors import BundleError
from tests.test_ngram import arpa_text, make

SMALL = (
    "\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-1 <s> -0.5\n-1 </s>\n-1 a -0.1\n\n\\2-grams:\n-1 <s> a\n\n\\end\\\n"
)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("\\data\\", "data", r"no line \\data\\"),
        ("ngram 2=1", "ngram 2=x", "line 3: expected 'ngram 2=COUNT'"),
        ("ngram 2=1", "ngram 2=1" + 9 * "0", "line 3: expected 'ngram 2=COUNT'"),
        ("ngram 2=1", "ngram 2=2", "line 13: 1 2-grams, .* announces 2"),
        ("ngram 1=3", "ngram 1=2", "line 8: more than the 2 1-grams"),
        ("-1 a -0.1", "-1 a -0.1 b", "line 8: expected log10 probability, 1 words"),
        ("-1 a -0.1", "one a -0.1", "line 8: expected log10"),
        ("-1 a -0.1", "1 a -0.1", "line 8: expected log10"),
        ("-1 a -0.1", "nan a -0.1", "line 8: expected log10"),
        ("-1 a -0.1", "-1 a inf", "line 8: expected log10"),
        ("-1 a -0.1", "-1 <s> -0.1", "line 8: the word '<s>' for the second time"),
        ("-1 </s>", "-1 b", "the 1-grams lack </s>"),
        ("-1 <s> a", "-1 <s> c", "line 11: 'c' is not among the 1-grams"),
        ("-1 <s> a", "-1 <s>", "line 11: expected log10 probability, 2 words"),
        ("\\2-grams", "\\3-grams", r"line 10: expected \\2-grams:"),
        ("\\end\\\n", "", r"ends before \\end"),
        ("ngram 2=1\n", "ngram 2=1\nngram 3=1\nngram 4=1\nngram 5=1\n", "order 5, expected 1 to 4"),
    ],
)
def test_bad_arpa(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "bad.arpa"
    path.write_text(SMALL)
    assert read_arpa(path).counts == (4, 1)  # <unk> was added
    assert SMALL.count(old) >= 1
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(BundleError, match=says) as caught:
        read_arpa(path)
    assert "\n" not in str(caught.value)


def test_unknown_in_capitals_is_unknown_in_every_order(tmp_path: Path) -> None:
    (tmp_path / "small.arpa").write_text(SMALL.replace("-1 <s> a", "-1 a <unk>").replace("<unk>", "<UNK>"))
    assert read_arpa(tmp_path / "small.arpa").words.count("<unk>") == 1
    assert read_arpa(tmp_path / "small.arpa").counts == (4, 1)


def test_orphans_and_doubles(tmp_path: Path) -> None:
    path = tmp_path / "bad.arpa"
    three = SMALL.replace("ngram 2=1", "ngram 2=1\nngram 3=1").replace("\\end", "\\3-grams:\n\n-1 a a a\n\n\\end")
    path.write_text(three)
    with pytest.raises(BundleError, match="line 16: an n-gram without the shorter n-gram"):
        read_arpa(path)
    path.write_text(SMALL.replace("ngram 2=1", "ngram 2=2").replace("-1 <s> a", "-1 <s> a\n-1 <s> a"))
    with pytest.raises(BundleError, match="line 12: an n-gram for the second time"):
        read_arpa(path)


def test_packed_arpa(tmp_path: Path) -> None:
    plain = arpa_text(3, seed=4)
    expected, _ = make(tmp_path, plain)
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(plain.encode()))
    (tmp_path / "lm.arpa.xz").write_bytes(lzma.compress(plain.encode()))
    for name in ("lm.arpa.gz", "lm.arpa.xz"):
        arpa = read_arpa(tmp_path / name)
        for one, other in zip(arpa.levels, expected.levels, strict=True):
            np.testing.assert_array_equal(one.keys, other.keys)
            np.testing.assert_array_equal(one.log_prob, other.log_prob)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
        with pytest.raises(BundleError, match="cannot be unpacked"):
            read_arpa(tmp_path / name)
