"""The recipe of the bundled model: from checkpoints to a bundle that takes another one's place, or does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from conftest import tiny_model  # noqa: E402
from tones import TONES, corpus, write_corpus  # noqa: E402

from export.restore import restore  # noqa: E402
from recipes.mini import bundle as recipe  # noqa: E402
from streamasr.bundle import BeamConfig, read_bundle  # noqa: E402
from streamasr.errors import StreamasrError  # noqa: E402
from streamasr.training.checkpoint import begin, load_model, save_checkpoint  # noqa: E402

TOY = Path(__file__).parent / "data" / "toy"
WORDS = (TOY / "words.lm", TOY / "words.lex", TOY / "words.g2p")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> recipe.Place:
    """Two checkpoints, dev, and nothing at `out` yet; what takes hours of speech is left out."""
    toy = read_bundle(TOY)
    (tmp_path / "run").mkdir()
    for number in (1, 2):
        torch.manual_seed(number)
        model = tiny_model(seed=number)
        config = {**model.config.to_dict(), "heads": {head.name: list(head.tokens) for head in toy.heads}}
        model = type(model)(type(model.config).from_dict(config))
        values = {"model": model.state_dict(), "model_config": config, "sources": {}}
        save_checkpoint(tmp_path / "run" / f"epoch-{number}.pt", values)
    data = corpus(tmp_path / "speech", ["ab", "ba", *TONES])
    monkeypatch.setattr(recipe, "corpus", lambda shared, cache: data)
    monkeypatch.setattr(recipe, "speech_sources", lambda heard: ())
    monkeypatch.setattr(recipe, "_quantize", lambda folder, place: None)
    monkeypatch.setattr(recipe, "ALIGNMENTS", Path(__file__))
    monkeypatch.setattr(recipe, "tune", lambda folder, shared: None)
    return recipe.Place(tmp_path / "run", tmp_path / "out", tmp_path / "RESULTS.md", tmp_path, tmp_path, write=False)


def weights(folder: Path) -> Any:
    return torch.nn.utils.parameters_to_vector(restore(read_bundle(folder)).parameters())


def build(place: recipe.Place, **changes: Any) -> Path:
    recipe.build(recipe.Place(**{**vars(place), **changes}), WORDS, BeamConfig(), None)
    return place.out


def test_a_bundle_with_words_and_a_card_comes_out(place: recipe.Place) -> None:
    out = build(place)
    search = read_bundle(out).search
    assert search is not None
    penalties = search.beam.token_penalties
    assert min(penalties) < 0 < max(penalties), "what is seldom believed in pays less than what often is"
    assert "# out" in (out / "README.md").read_text()
    assert {path.name for path in out.parent.iterdir()} == {"run", "out", "speech"}


def test_what_fails_late_leaves_the_old_bundle(place: recipe.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in build(place).iterdir()}

    def fails(folder: Path, shared: Path) -> None:
        raise StreamasrError("no words heard")

    monkeypatch.setattr(recipe, "tune", fails)
    with pytest.raises(StreamasrError, match="no words heard"):
        build(place)
    assert {path.name: path.read_bytes() for path in place.out.iterdir()} == before
    assert {path.name for path in place.out.parent.iterdir()} == {"run", "out", "speech"}


def test_what_is_missing_is_said_before_anything_is_done(
    place: recipe.Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipe, "ALIGNMENTS", tmp_path / "align-dev.jsonl")
    with pytest.raises(StreamasrError, match=r"align-dev\.jsonl: not there; run recipes\.mini\.align first"):
        build(place)
    monkeypatch.setattr(recipe, "ALIGNMENTS", Path(__file__))
    place.out.write_text("mine")
    with pytest.raises(StreamasrError, match="exists and is not a bundle"):
        build(place)
    assert place.out.read_text() == "mine"


def test_the_last_weights_of_other_runs_are_mixed_in(place: recipe.Place) -> None:
    runs = [alone(place.work / "epoch-1.pt"), alone(place.work / "epoch-2.pt")]
    one, other = (weights(build(place, work=run)) for run in runs)
    mixed = weights(build(place, work=runs[0], beside=(runs[1],)))
    torch.testing.assert_close(mixed, (one + other) / 2.0, atol=2e-3, rtol=0.0)  # rounded to 16 bits
    assert not torch.equal(mixed, one)
    mixed = weights(build(place, work=runs[0], beside=(runs[1], runs[0])))
    torch.testing.assert_close(mixed, 0.75 * one + 0.25 * other, atol=2e-3, rtol=0.0)
    with pytest.raises(StreamasrError, match=r"nowhere: no epoch-\*\.pt there"):
        build(place, beside=(place.work / "nowhere",))


def test_a_run_that_is_mixed_in_may_look_less_far_ahead(place: recipe.Place) -> None:
    old = load_model([place.work / "epoch-2.pt"])
    farther = [*old.config.lookahead[:-1], old.config.lookahead[-1] + 1]
    model = type(old)(replace(old.config, lookahead=farther))
    begin(model, old)
    far = place.work.with_name("far")
    far.mkdir()
    values = {"model": model.state_dict(), "model_config": model.config.to_dict(), "sources": {}}
    save_checkpoint(far / "epoch-1.pt", values)
    new = restore(read_bundle(build(place, work=far, beside=(alone(place.work / "epoch-2.pt"),))))
    for name, value in old.named_parameters():  # half of one is half of the other
        own = new.get_parameter(name)[: len(value)]
        torch.testing.assert_close(own, value, atol=2e-3, rtol=0.0)
    assert new.delay == old.delay + 1


def test_synthetic_speech_is_learned_from_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.mini import data, train

    seen: dict[str, Any] = {}

    class Listener:
        def __init__(self, config: Any, heads: Any, corpus: Any, *others: Any) -> None:
            seen["corpus"] = corpus

        def run(self) -> None:
            pass

    for name in ("train", "dev"):
        write_corpus(tmp_path / "speech", ["ab", "ba"], name=name)
    (tmp_path / "lexicon").mkdir()
    (tmp_path / "lexicon" / "cmudict.dict").write_text("ab AE1 B\nba B AA1\n")
    monkeypatch.setattr(train, "Trainer", Listener)
    monkeypatch.setattr(data, "SYNTHETIC", tmp_path / "made" / "train.jsonl")
    command = ["train", "--shared", str(tmp_path), "--work", str(tmp_path / "work"), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr("sys.argv", [*command, "--synthetic"])
    with pytest.raises(StreamasrError, match=r"no synthetic speech there; run recipes\.mini\.synthetic first"):
        train.main()
    write_corpus(tmp_path / "made", ["cab", "ba ' ab"])
    train.main()
    assert [u.text for u in seen["corpus"].train] == ["ab", "ba"]
    assert [u.text for u in seen["corpus"].synthetic] == ["cab", "ba ' ab"]
    assert "cab" in seen["corpus"].lexicon
    assert "'" not in seen["corpus"].lexicon, "nobody says it"
    monkeypatch.setattr("sys.argv", command)
    train.main()
    assert not seen["corpus"].synthetic
    assert [u.text for u in seen["corpus"].train] == ["ab", "ba"]


def alone(checkpoint: Path) -> Path:
    """A run that has kept only this one."""
    folder = checkpoint.parents[1] / f"run-{checkpoint.stem}"
    folder.mkdir(exist_ok=True)
    (folder / checkpoint.name).write_bytes(checkpoint.read_bytes())
    return folder
