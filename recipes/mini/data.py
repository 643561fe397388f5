"""What the recipe learns from, and what it keeps back."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from streamasr.bundle import Source
from streamasr.decoding.g2p import G2p
from streamasr.errors import ManifestError
from streamasr.manifest import Utterance, read_manifest
from streamasr.recognizer import BUNDLED
from streamasr.training.lexicon import PHONES, read_lexicon
from streamasr.training.loop import Corpus

ROOMS = Path("work/rooms")  # impulse responses written by recipes.mini.rooms
SYNTHETIC = Path("work/synthetic/manifest.jsonl")  # speech written by recipes.mini.synthetic
TRAINED_G2P = Path("work/g2p/en.g2p")  # written by recipes.g2p.train
AUDIO = {".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}  # suffixes of recordings of noise
LETTERS = [" ", "'", *string.ascii_lowercase]
HEADS = {"letters": ["<blank>", *LETTERS], "phones": ["<blank>", *PHONES]}


def noise_files(shared: Path, held_out: bool) -> list[Path]:
    """Every other noise clip is for training; of the rest, those of recordings with no clip there are held out.

    ESC-10 cuts several clips (1-28135-A, 1-28135-B) from one recording.
    """
    files = sorted(path for path in (shared / "noise").rglob("*") if path.suffix.lower() in AUDIO)
    training = files[::2]
    seen = {_recording(path) for path in training}
    return [path for path in files[1::2] if _recording(path) not in seen] if held_out else training


def _recording(clip: Path) -> str:
    return "-".join(clip.stem.split("-")[:2])


def g2p_file() -> Path:
    """What recipes.g2p has trained, or else what is bundled."""
    return TRAINED_G2P if TRAINED_G2P.exists() else BUNDLED / "words.g2p"


def synthetic() -> list[Utterance]:
    """Speech that nobody said. ManifestError: it has not been made."""
    if not SYNTHETIC.exists():
        raise ManifestError(f"{SYNTHETIC}: no synthetic speech there; run recipes.mini.synthetic first")
    return read_manifest(SYNTHETIC, LETTERS)


def corpus(shared: Path, cache: Path, also: Sequence[Utterance] = ()) -> Corpus:
    """../shared as the recipe uses it; training words that CMUdict lacks are pronounced by the model of recipes.g2p.

    Not those of dev: there, the phone error counts only utterances whose pronunciation somebody wrote down.
    also: other speech that somebody may add to it, whose words are to be pronounced, too.
    """
    train = read_manifest(shared / "speech" / "train.jsonl", LETTERS)
    dev = read_manifest(shared / "speech" / "dev.jsonl", LETTERS)
    lexicon = read_lexicon(shared / "lexicon" / "cmudict.dict")
    unknown = {word for u in (*train, *also) for word in u.text.split()} - lexicon.keys()
    g2p = G2p.open(g2p_file())
    unknown -= {word for u in dev for word in u.text.split()}
    for word in sorted(unknown):
        with suppress(ValueError):  # a sign alone: its utterances teach the letters
            lexicon[word] = g2p.pronounce(word)
    noise, rooms = noise_files(shared, held_out=False), sorted(ROOMS.glob("*.flac"))
    return Corpus(train=train, dev=dev, noise=noise, lexicon=lexicon, cache=cache, rooms=rooms)


LICENCES = (  # prefix of a source's name in the manifests, what it is, its licence
    ("ls-", "LibriSpeech (Panayotov, Chen, Povey, Khudanpur 2015, from LibriVox)", "CC BY 4.0"),
    ("so762", "speechocean762 (Zhang et al. 2021)", "free for commercial and non-commercial use"),
    ("kathleen", "Kathleen (Rhasspy voice datasets)", "CC0"),
    ("commonvoice", "Common Voice English (Mozilla)", "CC0"),
    ("ljspeech", "LJ Speech (Keith Ito)", "public domain"),
    ("vctk", "VCTK (Yamagishi et al.)", "CC BY 4.0, ODC-By 1.0"),
    ("flite", "flite's voices awb, kal16, rms, slt (CMU), reading LibriSpeech's training transcripts", "BSD-like"),
)


def speech_sources(heard: Mapping[str, float]) -> tuple[Source, ...]:
    """Where speech comes from, with its licences and hours. heard: source in the manifests -> seconds."""
    seconds: Counter[tuple[str, str]] = Counter()
    for source, length in heard.items():
        other = (source or "speech of a source that is not named", "not stated")
        known = ((name, licence) for prefix, name, licence in LICENCES if source.startswith(prefix))
        seconds[next(known, other)] += length
    return (
        *(Source(name, licence, round(s / 3600.0, 2)) for (name, licence), s in sorted(seconds.items())),
        Source("ESC-10 (Piczak 2015), as noise", "CC BY 3.0", 0.0),
        Source("Google Speech Commands background recordings, as noise", "CC BY 4.0", 0.0),
        Source("CMU Pronouncing Dictionary, for phones, lexicon and pronunciation of other words", "BSD 2-clause", 0.0),
        Source("LibriSpeech's training transcripts, for the language model", "CC BY 4.0", 0.0),
        Source("Project Gutenberg, for the language model", "public domain in the USA", 0.0),
        Source("ELTeC-eng (COST Action CA16204), for the language model", "CC BY 4.0", 0.0),
    )
