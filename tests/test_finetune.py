"""Fine-tuning: what is frozen stays, what is best is kept, and a bundle comes out that is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from recipes import program  # noqa: E402
from recipes.finetune.__main__ import KEPT_BACK, main, read_arguments  # noqa: E402
from recipes.finetune.adapt import adapt, pronunciations  # noqa: E402
from recipes.finetune.network import PLACE, freeze, mix, with_alphabet  # noqa: E402
from recipes.finetune.report import measure, table  # noqa: E402
from recipes.finetune.tune import CONFIG, split, within  # noqa: E402
from streamasr.bundle import read_bundle, write_bundle  # noqa: E402
from streamasr.errors import StreamasrError  # noqa: E402
from streamasr.manifest import Utterance  # noqa: E402
from streamasr.recognizer import load  # noqa: E402
from streamasr.training.config import TrainConfig  # noqa: E402
from streamasr.training.loop import Corpus  # noqa: E402

RATE = 16000
TOY = Path(__file__).parent / "data" / "toy"
TEXTS = ["ba", "de fi", "go", "bu da", "fe", "gi ba"]  # words of the toy
LEXICON = {word: [["AA", "B"]] for text in TEXTS for word in text.split()}


def utterances(folder: Path, texts: Sequence[str] = TEXTS) -> list[Utterance]:
    """Half a second of noise for each text, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i, text in enumerate(texts):
        path = folder / f"{i}.wav"
        soundfile.write(path, np.random.default_rng(i).normal(0.0, 0.1, RATE // 2), RATE)
        made.append(Utterance(path, text, "noise", 0.5))
    return made


def manifest(folder: Path, texts: Sequence[str] = TEXTS) -> Path:
    """The same, written down."""
    lines = [
        json.dumps({"audio": u.audio.name, "text": u.text, "speaker": u.speaker, "seconds": u.seconds})
        for u in utterances(folder, texts)
    ]
    (folder / "own.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "own.jsonl"


def corpus(folder: Path) -> Corpus:
    train = utterances(folder)
    return Corpus(train=train, dev=train, noise=[], lexicon=LEXICON, cache=folder / "cache")


def config(rate: float, epochs: float) -> TrainConfig:
    read = TrainConfig.read(CONFIG)
    return replace(read, epochs=epochs, optimiser=replace(read.optimiser, rate=rate, warm_up_steps=1))


def weights(model: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# The network


def test_frozen_stages_stay_and_others_move(tmp_path: Path) -> None:
    model = tiny_model()
    before = weights(model)
    freeze(model, ["conv1", "gru2"])
    adapt(model, corpus(tmp_path), config(rate=1e-3, epochs=1), patience=0)
    for name, _ in model.named_parameters():
        frozen = name.startswith(("body.stages.conv1.", "body.stages.gru2."))
        assert torch.equal(model.state_dict()[name], before[name]) == frozen, name
    assert float(torch.tensor(1e-40) * 1.0) > 0.0, "denormal numbers are still flushed, for all of the process"


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        (["gru7", "conv1"], "--freeze gru7: no such stage; choose from conv1 conv2 gru1 ahead1 gru2 ahead2 gru3 heads"),
        (list(tiny_model().body.stages), "nothing is left that could learn"),
    ],
)
def test_what_cannot_be_frozen_is_named(stages: list[str], complaint: str) -> None:
    with pytest.raises(StreamasrError, match=complaint):
        freeze(tiny_model(), stages)


def test_letters_that_stay_keep_their_weights() -> None:
    model = tiny_model()
    made = with_alphabet(model, "bäab")
    assert made.config.heads == {**model.config.heads, "letters": ["<blank>", " ", "b", "ä", "a"]}
    old, new = model.get_submodule(PLACE), made.get_submodule(PLACE)
    kept = [model.config.heads["letters"].index(token) for token in ("<blank>", " ", "b", "a")]
    assert torch.equal(new.weight[[0, 1, 2, 4]], old.weight[kept])
    assert torch.equal(new.bias[[0, 1, 2, 4]], old.bias[kept])
    for name, value in model.state_dict().items():
        assert PLACE in name or torch.equal(made.state_dict()[name], value), name


def test_a_mixture_lies_between_and_leaves_fresh_letters_alone() -> None:
    model, before = tiny_model(seed=1), weights(tiny_model(seed=0))
    after = weights(model)
    mix(model, before, 0.25, fresh=True)
    for name, value in model.named_parameters():
        expected = after[name] if PLACE in name else 0.75 * after[name] + 0.25 * before[name]
        torch.testing.assert_close(value, expected, msg=name)
    mix(model, before, 1.0, fresh=False)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


# Learning


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    """At such a rate everything gets worse, so the start is best, and it is soon over."""
    model = tiny_model()
    before = weights(model)
    losses = adapt(model, corpus(tmp_path), config(rate=3.0, epochs=9), patience=2)
    assert len(losses) == 1 + 2
    assert losses[0] < min(losses[1:])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not model.training


def test_what_was_heard_is_learned(tmp_path: Path) -> None:
    model = tiny_model()
    losses = adapt(model, corpus(tmp_path), config(rate=1e-2, epochs=4), patience=0)
    assert len(losses) == 1 + 4
    assert min(losses) < 0.9 * losses[0]


def test_words_are_pronounced_as_the_bundle_does_it(tmp_path: Path) -> None:
    bundle = read_bundle(TOY)
    found = pronunciations(bundle, utterances(tmp_path, ["ba dabo", "ba xylo"]))
    assert found.keys() == {"ba", "dabo"}  # the second by its model, the last with letters that this never saw
    assert all(phone in bundle.head("phones")[1] for ways in found.values() for way in ways for phone in way)
    assert pronunciations(replace(bundle, search=None), utterances(tmp_path)) == {}


def test_what_is_kept_back_is_spread_and_never_empty(tmp_path: Path) -> None:
    made = [replace(u, seconds=30.0) for u in utterances(tmp_path)]
    assert split(made, 3) == ([made[0], made[1], made[3], made[4]], [made[2], made[5]])
    assert split(made, 10) == (made[:5], made[5:])
    with pytest.raises(StreamasrError, match="one utterance cannot be split"):
        split(made[:1], 10)
    assert within(made, 1.0) == made[:2]
    assert within(made, 0.1) == made[:1]


# The program


@pytest.fixture
def two_graphs(tmp_path: Path) -> Path:
    """The toy with a second graph that is its default."""
    folder = tmp_path / "old"
    shutil.copytree(TOY, folder)
    old = read_bundle(folder)
    write_bundle(replace(old, graphs={**old.graphs, "int8": old.graphs["fp32"]}, default="int8"))
    return folder


def test_a_whole_bundle_comes_out(two_graphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, out = manifest(tmp_path / "own"), tmp_path / "new"
    line = [two_graphs, own, "--out", out, "--general", own, "--epochs", 1, "--rate", 1e-3, "--freeze", "conv1"]
    main([*map(str, line), "--source", "me", "--licence", "CC0"])
    old, new = read_bundle(two_graphs), read_bundle(out)
    assert (new.name, new.default, list(new.graphs)) == ("new", "fp32", ["fp32"])
    assert new.graphs["fp32"].sha256 != old.graphs["fp32"].sha256
    for part in ("language", "heads", "network", "search", "tuning", "endpoint"):
        assert getattr(new, part) == getattr(old, part), part
    assert new.sources[:-1] == old.sources
    assert (new.sources[-1].name, new.sources[-1].licence) == ("me", "CC0")
    for greedy in (False, True):
        load(out, greedy=greedy).transcribe(tmp_path / "own" / "0.wav")
    said = capsys.readouterr().out
    assert f"\n| {KEPT_BACK} | 0.0 | beam | " in said
    assert "\n| general | 0.1 | greedy | " in said
    assert "no graph int8; `python -m export.quantize`" in said
    assert new.measured.keys() == {
        f"{decoder}_{speech}_{unit}"
        for decoder in ("beam", "greedy")
        for speech in ("kept_back", "general")
        for unit in ("wer", "cer")
    }


def test_another_alphabet_and_other_words(tmp_path: Path) -> None:
    own, out, lm = manifest(tmp_path / "own", ["ba", "dä", "fi"]), tmp_path / "new", tmp_path / "other.lm"
    for suffix in (".lm", ".lex"):
        shutil.copyfile(TOY / f"words{suffix}", lm.with_suffix(suffix))
    main([*map(str, [TOY, own, "--out", out, "--epochs", 1, "--lm", lm]), "--alphabet", "abdfgiä"])
    new = read_bundle(out)
    assert new.head("letters")[1] == ("<blank>", " ", *"abdfgiä")
    assert new.head("phones")[1] == read_bundle(TOY).head("phones")[1]
    assert new.search == read_bundle(TOY).search
    load(out, greedy=True).transcribe(tmp_path / "own" / "0.wav")


def bad(folder: Path, *, texts: Sequence[str] = TEXTS, more: Sequence[str] = (), manifest_name: str = "") -> list[str]:
    own = manifest(folder / "own", texts)
    return [str(TOY), str(own.with_name(manifest_name or own.name)), "--out", str(folder / "new"), *more]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"manifest_name": "gone.jsonl"}, r"gone\.jsonl: cannot be read: No such file"),
        ({"texts": ["ba", "dä"]}, r"own\.jsonl, line 2: the text holds 'ä', outside the model's alphabet"),
        ({"texts": ["ba"]}, "one utterance cannot be split"),
        ({"more": ["--freeze", "gru9"]}, "--freeze gru9: no such stage"),
        ({"more": ["--out", str(TOY)]}, "toy: exists already and is not overwritten"),
        ({"more": ["--lm", "gone.lm"]}, r"gone\.lm: no such file; make both with `streamasr lm`"),
        ({"more": ["--general", "gone.jsonl"]}, r"gone\.jsonl: cannot be read"),
        ({"more": ["--config", "gone.toml"]}, r"gone\.toml: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    line = bad(tmp_path, **changes)
    with pytest.raises(SystemExit, match=complaint) as caught:
        program.run(lambda: main(line))
    assert isinstance(caught.value.code, str)  # printed, and the exit status is 1
    assert "\n" not in caught.value.code
    assert not (tmp_path / "new").exists()


def test_nobody_is_told_to_go_on_where_nothing_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        program.run(stopped, "interrupted")
    assert (caught.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.parametrize(
    "wrong", [["--hold-out", "1"], ["--keep", "1.5"], ["--rate", "fast"], ["--epochs", "-1"], ["--minutes", "nan"]]
)
def test_numbers_out_of_range_are_refused(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_arguments(["bundle", "manifest", "--out", "new", *wrong])
    assert caught.value.code == 2
    assert f"{wrong[0]}: {wrong[1]}: expected " in capsys.readouterr().err


def test_a_table_says_before_and_after(tmp_path: Path) -> None:
    speech = {"mine": utterances(tmp_path)}
    scores = measure(TOY, speech)
    assert scores["mine", "beam"].words.length == 9
    rows = table(speech, scores, scores).splitlines()
    assert len(rows) == 2 + 2
    cells = rows[2].split(" | ")
    assert cells[3] == cells[4]
