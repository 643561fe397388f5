"""The checkpoints of a run -> the bundled model: python -m recipes.mini.bundle

Averages the weights of the last epochs (how many, is chosen by the letters of dev), mixes in those of other runs
(--beside), exports, adds the words of recipes.lm and an int8 graph (the default, if dev's words allow), and fits word
times and confidence on dev.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from export.onnx import make_bundle, must_be_free
from export.quantize import quantize
from export.words import add_recurrent, add_words
from recipes.finetune.network import mix
from recipes.mini.card import write_card
from recipes.mini.data import TRAINED_G2P, corpus, speech_sources
from recipes.mini.priors import add_priors
from recipes.mini.tune import ALIGNMENTS, tune
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import BeamConfig, Rescoring
from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.recognizer import BUNDLED
from streamasr.training import evaluation
from streamasr.training.checkpoint import begin, epochs, load_checkpoint, load_model
from streamasr.training.data import AudioCache
from streamasr.training.loop import Corpus

# Written by recipes.lm.build and recipes.g2p.train; not the bundle's own, which makes way for the new one.
WORDS = (Path("work/lm/en.lm"), Path("work/lm/en.lex"), TRAINED_G2P)
RECURRENT = Path("work/lm/en.rnn")  # of recipes.lm.train and export.recurrent; may be missing

# Chosen on dev (RESULTS.md, "The search"): blank penalty, width and bonuses for networks of earlier sittings, all else
# for that of the ninth.
BEAM = BeamConfig(width=14.0, token_width=7.0, blank_penalty=2.25, lm_weight=1.2, word_bonus=0.6)
RESCORING = Rescoring(RECURRENT.name, (), share=0.85, lm_weight=1.2, word_bonus=0.5, decide=25, margin=5.0)

COMPARED = 400  # utterances that fp32 and int8 both hear


def letter_error(model: AcousticModel, data: Corpus, cache: AudioCache) -> float:
    """Greedy letter error on all of dev."""
    found = evaluation.greedy(model, cache)
    targets: list[dict[str, list[str] | None]] = [{"letters": list(u.text), "phones": None} for u in data.dev]
    return evaluation.errors(data.dev, found, targets)["letters"].rate


def choose_average(checkpoints: Sequence[Path], data: Corpus) -> AcousticModel:
    """The average of the last 1, 2, 3 or 5 checkpoints, whichever is best on dev."""
    cache = AudioCache([u.audio for u in data.dev], data.cache)
    best: tuple[float, AcousticModel] | None = None
    for number in (n for n in (1, 2, 3, 5) if n <= len(checkpoints)):
        model = load_model(checkpoints[-number:])
        error = letter_error(model, data, cache)
        print(f"average of {number}: letter error on dev {100 * error:.2f} %", flush=True)
        if best is None or error < best[0]:
            best = (error, model)
    assert best is not None, "no checkpoints"
    return best[1]


def mix_in(model: AcousticModel, others: Sequence[AcousticModel]) -> None:
    """Half of the weights become those of others, the same share for each (Wortsman et al. 2022, arXiv 2203.05482).

    They must have begun with the same weights, some time ago, and may look less far ahead.
    """
    longer = [AcousticModel(model.config) for _ in others]
    for one, other in zip(longer, others, strict=True):
        begin(one, other)
    names = [name for name, _ in model.named_parameters()]
    theirs = {name: torch.stack([one.get_parameter(name) for one in longer]).mean(0) for name in names}
    mix(model, theirs, 0.5, fresh=False)


@dataclass(frozen=True)
class Place:
    """Where a build reads and writes."""

    work: Path  # folder of the run
    out: Path  # of the bundle
    results: Path  # the document with a section `int8`
    shared: Path
    cache: Path
    write: bool  # into the results
    beside: tuple[Path, ...] = ()  # folders of other runs, whose last weights are mixed in

    @classmethod
    def from_arguments(cls, doc: str | None, work: Path, out: Path, results: Path) -> Place:
        """The command line, with these defaults."""
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--shared", type=Path, default=Path("../shared"))
        parser.add_argument("--work", type=Path, default=work, help="folder of the run")
        parser.add_argument("--cache", type=Path, default=Path("work/cache"), help="folder for decoded audio")
        parser.add_argument("--out", type=Path, default=out)
        parser.add_argument(
            "--beside", type=Path, nargs="+", default=[], metavar="RUN", help="mix in the last weights of other runs"
        )
        parser.add_argument("--write", action="store_true", help=f"what int8 costs into {results.name}")
        given = parser.parse_args()
        return cls(given.work, given.out, results, given.shared, given.cache, given.write, tuple(given.beside))


def build(
    place: Place, words: tuple[Path, Path, Path], beam: BeamConfig, recurrent: tuple[Path, Rescoring] | None
) -> None:
    """All of it, beside the bundle that there may be, which makes way for the new one when that is whole."""
    folders = (place.work, *place.beside)
    checkpoints, *others = map(epochs, folders)
    for folder, found in zip(folders, (checkpoints, *others), strict=True):
        if not found:
            raise StreamasrError(f"{folder}: no epoch-*.pt there; run recipes.mini.train first")
    if missing := [str(path) for path in words if not path.exists()]:
        raise StreamasrError(f"{', '.join(missing)}: not there; run recipes.g2p.train and recipes.lm.build first")
    if not ALIGNMENTS.is_file():
        raise StreamasrError(f"{ALIGNMENTS}: not there; run recipes.mini.align first")
    if (heard := load_checkpoint(checkpoints[-1]).get("sources")) is None:
        raise StreamasrError(f"{checkpoints[-1]}: does not say what speech it has heard; train on with this version")
    must_be_free(place.out)
    data = corpus(place.shared, place.cache)
    model = choose_average(checkpoints, data)
    if others:
        mix_in(model, [load_model(found[-1:]) for found in others])
        error = letter_error(model, data, AudioCache([u.audio for u in data.dev], data.cache))
        print(f"with {len(others)} others: letter error on dev {100 * error:.2f} %", flush=True)
    with tempfile.TemporaryDirectory(dir=place.out.parent, prefix=f".{place.out.name}.") as beside:
        made = Path(beside) / place.out.name
        bundle = make_bundle(model, made, made.name, speech_sources(heard))
        print(f"{place.out}: differs from torch by {bundle.graphs['fp32'].parity:.1e} at most")
        add_words(made, "phones", words, beam)
        add_priors(made, data.train)
        if recurrent:
            add_recurrent(made, *recurrent)
        _quantize(made, place)
        tune(made, place.shared)
        write_card(made, place.results.parent.name)
        shutil.rmtree(place.out, ignore_errors=True)
        made.rename(place.out)


def _quantize(folder: Path, place: Place) -> None:
    """Add the int8 graph, if it costs little enough."""
    try:
        _, report = quantize(folder, place.shared / "speech" / "dev.jsonl", most=COMPARED)
    except StreamasrError as error:
        print(f"{place.out}: stays with fp32 alone: {error}")
    else:
        print("\n".join(report))
        if place.write:
            write_section(place.results, "int8", "\n".join(report))


def main() -> None:
    place = Place.from_arguments(__doc__, Path("work/mini"), BUNDLED, Path(__file__).parent / "RESULTS.md")
    build(place, WORDS, BEAM, (RECURRENT, RESCORING) if RECURRENT.exists() else None)


if __name__ == "__main__":
    run(main)
