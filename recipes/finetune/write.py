"""The network that has learned, and all else that was in its bundle, as a new bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from export.onnx import make_bundle
from export.words import add_words
from streamasr.bundle import Bundle, Source, read_bundle, write_bundle
from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.data import RATE
from streamasr.words import LEXICON


def check(old: Bundle, folder: Path, alphabet: str | None, lm: Path | None) -> None:
    """StreamasrError for what could not be learned or written after all, before hours are spent on it."""
    if folder.exists():
        raise StreamasrError(f"{folder}: exists already and is not overwritten; name a new folder")
    if old.sample_rate != RATE:
        raise StreamasrError(f"{old.folder}: made for {old.sample_rate} Hz, training is for {RATE} Hz")
    if alphabet and old.search and old.search.head == "letters":
        raise StreamasrError(f"{old.folder}: its words are spelled in letters, so --alphabet would lose them")
    if lm:
        if old.search is None:
            raise StreamasrError(f"{old.folder}: has no words that --lm could take the place of")
        for path in (lm, lm.with_suffix(LEXICON)):
            if not path.is_file():
                raise StreamasrError(f"{path}: no such file; make both with `streamasr lm`")


def write(model: AcousticModel, old: Bundle, folder: Path, source: Source, lm: Path | None) -> Bundle:
    """The old bundle with this network, in a new folder. lm: words (of `streamasr lm`) in place of the old ones.

    Its only graph is fp32, and nothing has been measured of it. What was fitted to the old network
    and stays near enough is kept: word times, confidence, endpoints.
    """
    made = make_bundle(model, folder, folder.name, (*old.sources, source))
    if old.search and not lm:
        for name in old.search.files:
            shutil.copyfile(old.file(name, old.search.sha256[name]), folder / name)
    kept = replace(made, language=old.language, tuning=old.tuning, search=old.search, endpoint=old.endpoint)
    write_bundle(kept)
    if old.search and lm:
        files = (lm, lm.with_suffix(LEXICON), old.folder / old.search.g2p)
        add_words(folder, old.search.head, files, old.search.beam)
    return read_bundle(folder)
