"""Training: manifests checked, epochs planned, runs continued exactly, and something learnt."""

from __future__ import annotations

import copy
import itertools
import json
import os
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from recipes.mini.data import speech_sources  # noqa: E402
from recipes.mini.pieces import word_pieces  # noqa: E402
from streamasr.errors import ManifestError, StreamasrError  # noqa: E402
from streamasr.manifest import Utterance, read_manifest  # noqa: E402
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig  # noqa: E402
from streamasr.training import evaluation  # noqa: E402
from streamasr.training.augment import AugmentConfig, reverberate  # noqa: E402
from streamasr.training.checkpoint import load_checkpoint, load_model  # noqa: E402
from streamasr.training.config import OptimiserConfig, TrainConfig  # noqa: E402
from streamasr.training.data import AudioCache, Batch, BatchConfig, BatchDataset, encode_text, plan_epoch  # noqa: E402
from streamasr.training.loop import Corpus, Objective, Trainer  # noqa: E402
from streamasr.training.optimiser import learning_rate, make_optimisers  # noqa: E402

ROOT = Path(__file__).parents[1]
RATE = 16000
LETTERS = [" ", "'", *string.ascii_lowercase]
TONES = {"a": 400.0, "b": 900.0, "c": 1900.0}
LEXICON = {"ab": [["AA", "B"]], "ba": [["B", "AA"]]}
HEADS = {"letters": ["<blank>", *LETTERS], "phones": ["<blank>", "AA", "B"]}
PLAIN = AugmentConfig(speed=0.0, gain_db=(0.0, 0.0), noise_probability=0.0, edge_s=0.0, frequency_masks=0, time_masks=0)


def tones(text: str) -> Any:
    """A tone a letter, with pauses, over faint hiss."""
    t = np.arange(int(0.16 * RATE)) / RATE
    pause = np.zeros(int(0.08 * RATE))
    parts = [pause]
    for letter in text:
        parts += [0.3 * np.sin(2 * np.pi * TONES[letter] * t) if letter != " " else pause, pause]
    audio = np.concatenate(parts)
    return (audio + 0.003 * np.random.default_rng(len(text)).standard_normal(len(audio))).astype(np.float32)


def write_corpus(folder: Path, texts: list[str], name: str = "train") -> Path:
    """Recordings and a manifest of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, text in enumerate(texts):
        audio = tones(text)
        soundfile.write(folder / f"{name}-{i}.wav", audio, RATE)
        record = {"audio": f"{name}-{i}.wav", "text": text, "speaker": "tone", "seconds": len(audio) / RATE}
        lines.append(json.dumps(record))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.jsonl"


def corpus(folder: Path, texts: list[str]) -> Corpus:
    train = read_manifest(write_corpus(folder, texts), LETTERS)
    return Corpus(train=train, dev=train[:2], noise=[], lexicon=LEXICON, cache=folder / "cache")


# Manifests


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record.pop(key)


BAD_LINES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing audio": (lambda r: r.update(audio="gone.wav"), r"gone\.wav: no such file"),
    "foreign letter": (
        lambda r: r.update(text="ab ß7"),
        r"the text holds '7', 'ß', outside the model's alphabet; spell",
    ),
    "upper case": (lambda r: r.update(text="Ab"), "the text holds 'A'"),
    "no time": (lambda r: r.update(seconds=0), "'seconds' is 0; expected a length above 0"),
    "time that is none": (lambda r: r.update(seconds=float("nan")), "'seconds' is nan; expected a length above 0"),
    "text for a number": (lambda r: r.update(seconds="3"), "'seconds' is '3', which is not of the right type"),
    **{f"no {key}": (without(key), f"no '{key}'; a line needs") for key in ("audio", "text", "speaker", "seconds")},
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_by_its_number(name: str, tmp_path: Path) -> None:
    edit, complaint = BAD_LINES[name]
    manifest = write_corpus(tmp_path, ["ab", "ba", "a"])
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    edit(records[1])
    manifest.write_text("\n\n".join(json.dumps(record) for record in records))
    with pytest.raises(ManifestError, match=rf"train\.jsonl, line 3: .*{complaint}") as caught:
        read_manifest(manifest, LETTERS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{}\n", "line 1: no 'audio'"),
        (b"\n{audio", "line 2: not JSON"),
        (b"[1]", "line 1: expected a JSON object, got list"),
        (b"\n \n", "holds no utterances"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_manifest_that_is_none(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"m\.jsonl.*{complaint}"):
        read_manifest(tmp_path / "m.jsonl", LETTERS)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.jsonl: cannot be read: No such file"):
        read_manifest(tmp_path / "gone.jsonl", LETTERS)


def test_audio_lies_relative_to_the_manifest(tmp_path: Path) -> None:
    utterances = read_manifest(write_corpus(tmp_path / "a" / "b", ["ab"]), LETTERS)
    assert utterances == [Utterance(tmp_path / "a/b/train-0.wav", "ab", "tone", pytest.approx(0.56), "")]


def test_an_unreadable_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"no audio")
    with pytest.raises(ManifestError, match=r"x\.wav: cannot be read as audio"):
        AudioCache([tmp_path / "x.wav"], tmp_path / "cache")


# Configurations


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("speed = 3", "c.toml: unknown key speed"),
        ("[augment]\npitch = 3", r"c.toml, \[augment\]: unknown key pitch"),
        ("[batch]\nsize = 3", r"c.toml, \[batch\]: unknown key size"),
        ("[model]\ndepth = 3", r"c.toml, \[model\]: unknown key depth"),
        ("[model]\nheads = 3", r"c.toml, \[model\]: unknown key heads"),
        ("seed =", "c.toml: not TOML"),
    ],
)
def test_a_bad_key_of_a_configuration_is_named(toml: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(toml)
    with pytest.raises(ManifestError, match=complaint):
        TrainConfig.read(tmp_path / "c.toml")


@pytest.mark.parametrize(
    "file", ["mini/first", "mini/second", "mini/third", "mini/fourth", "tiny/config", "finetune/config"]
)
def test_a_recipes_configuration_is_read(file: str) -> None:
    config = TrainConfig.read(ROOT / "recipes" / f"{file}.toml")
    assert TrainConfig.from_dict(config.to_dict(), "checkpoint") == config


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    config = TrainConfig(optimiser=OptimiserConfig(rate=1.0, warm_up_steps=10))
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 99, 0.5) == pytest.approx(0.5)
    for progress in (1.0, 1.3):  # half an epoch more than was asked for
        assert learning_rate(config, 99, progress) == pytest.approx(0.0)


def test_muon_moves_the_cells_matrices_and_adamw_all_else() -> None:
    model = tiny_model()
    muon, adamw = make_optimisers(model, OptimiserConfig())
    names = {id(weights): name for name, weights in model.named_parameters()}
    moved = [[names[id(p)] for group in o.param_groups for p in group["params"]] for o in (muon, adamw)]
    assert moved[0]
    assert all("cell.rnn.weight" in name for name in moved[0])
    assert sorted(moved[0] + moved[1]) == sorted(names.values())
    assert len(make_optimisers(model, OptimiserConfig(muon=False))) == 1


# Batches


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.lists(st.floats(0.2, 35.0), min_size=1, max_size=60),
    glue=st.floats(0.0, 1.0),
    noise=st.floats(0.0, 0.5),
    seed=st.integers(0, 1000),
)
def test_an_epoch_uses_every_utterance_once(seconds: list[float], glue: float, noise: float, seed: int) -> None:
    config = BatchConfig(batch_s=40.0, glue_probability=glue, glue_s=15.0, noise_only=noise)
    batches = plan_epoch(seconds, config, np.random.default_rng(seed))
    items = list(itertools.chain.from_iterable(batches))
    assert sorted(i for item in items for i in item.utterances) == list(range(len(seconds)))
    assert all(batches)
    for item in items:
        if item.utterances:
            assert item.seconds == pytest.approx(sum(seconds[i] for i in item.utterances))
            assert len(item.utterances) == 1 or item.seconds <= 15.0 + 1e-9
    for batch in batches:  # items are ordered by length within 5 %, so the last need not be the longest
        assert len(batch) == 1 or len(batch) * max(item.seconds for item in batch) <= 40.0 * 1.05 / 0.95 + 1e-6
    assert plan_epoch(seconds, config, np.random.default_rng(seed)) == batches


def dataset(folder: Path, texts: list[str], seed: int = 1, **batch: Any) -> BatchDataset:
    utterances = corpus(folder, texts).train
    cache = AudioCache([u.audio for u in utterances], folder / "cache")
    config = BatchConfig(**{"batch_s": 4.0, "noise_only": 0.3, **batch})
    return BatchDataset(
        utterances, cache, AudioCache([], folder / "cache"), HEADS, LEXICON, config, AugmentConfig(), (seed, 0)
    )


def test_a_room_adds_echoes_and_changes_neither_place_nor_loudness() -> None:
    audio = np.random.default_rng(1).standard_normal(4000).astype(np.float32)
    np.testing.assert_allclose(reverberate(audio, np.ones(1, np.float32)), audio, atol=1e-5)
    response = np.zeros(1001, np.float32)
    response[[0, 1000]] = 1.0, 0.5
    echoed = reverberate(audio, response)
    expected = audio.copy()
    expected[1000:] += 0.5 * audio[:-1000]
    expected *= np.sqrt(np.mean(audio**2) / np.mean(expected**2))
    np.testing.assert_allclose(echoed, expected, atol=1e-5)
    assert not reverberate(np.zeros(10, np.float32), response).any()


def test_rooms_are_heard_as_often_as_was_asked_for(tmp_path: Path) -> None:
    response = np.zeros(400, np.float32)
    response[[0, 399]] = 0.9
    soundfile.write(tmp_path / "room.wav", response, RATE)
    plain = dataset(tmp_path, ["ab", "cab", "ba"], noise_only=0.0)
    rooms = AudioCache([tmp_path / "room.wav"], tmp_path / "cache")
    for probability in (0.0, 1.0):
        plain.rooms, plain.augmentation = None, replace(PLAIN, room_probability=probability)
        dry = plain[0].audio
        plain.rooms = rooms
        assert torch.equal(plain[0].audio, dry) == (probability == 0.0)
    config = TrainConfig(augment=AugmentConfig(room_probability=0.5))
    with pytest.raises(StreamasrError, match="room_probability needs rooms"):
        Trainer(config, HEADS, corpus(tmp_path, ["ab"]), tmp_path)


def test_same_seed_same_batches(tmp_path: Path) -> None:
    texts = ["ab", "ba", "cab", "abc abc", "c", "b a"]
    first, second, other = (dataset(tmp_path, texts, seed) for seed in (1, 1, 2))
    assert len(first) == len(second) > 1
    for i in reversed(range(len(first))):  # in any order
        a, b = first[i], second[i]
        assert torch.equal(a.audio, b.audio)
        assert torch.equal(a.lengths, b.lengths)
        assert [None if t is None else t.tolist() for t in a.targets["letters"]] == [
            None if t is None else t.tolist() for t in b.targets["letters"]
        ]
    assert not torch.equal(first[0].audio, other[0].audio)


def test_a_batch_is_padded_with_zeros_and_knows_its_lengths(tmp_path: Path) -> None:
    for batch in map(dataset(tmp_path, ["ab", "ba", "cab", "a"]).__getitem__, range(2)):
        assert batch.audio.shape[1] == int(batch.lengths.max())
        for row, length in zip(batch.audio, batch.lengths, strict=True):
            assert (row[length:] == 0.0).all()
            assert row.abs().max() <= 1.0


def test_glued_texts_have_a_space_between_and_no_phones_where_a_word_is_unknown(tmp_path: Path) -> None:
    batches = dataset(tmp_path, ["ab", "cab"], glue_probability=1.0, noise_only=0.0)
    targets = batches[0].targets
    spelled = "".join(HEADS["letters"][k] for k in targets["letters"][0])
    assert spelled in ("ab cab", "cab ab")
    assert targets["phones"] == [None]
    assert encode_text("ab ba", HEADS, LEXICON)["phones"] == [1, 2, 2, 1]


def test_word_pieces_are_what_is_written_often_and_the_longest_is_said() -> None:
    texts = ["abab cab", "abab b"]
    assert word_pieces(texts, 2) == ["ab", "abab"]
    assert word_pieces(texts, 9) == ["ab", "abab", "cab"], "no more than there are"
    assert encode_text("abab abc", {"letters": ["<blank>", " ", "a", "b", "c", "ab", "abab"]}, {}) == {
        "letters": [6, 1, 5, 4]
    }
    with pytest.raises(KeyError, match="x"):
        encode_text("x", {"letters": ["<blank>", " ", "a"]}, {})


def test_the_card_names_sources_that_nobody_has_stated(tmp_path: Path) -> None:
    speech = tmp_path / "speech"
    speech.mkdir()
    common = {"audio": "a.wav", "text": "a", "speaker": "x", "seconds": 1800}
    lines = [{**common, "source": source} for source in ("mine", "", "ls-x")]
    (speech / "a.wav").touch()
    (speech / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {source.name: (source.licence, source.hours) for source in speech_sources(tmp_path)}
    assert found["mine"] == found["speech of a source that is not named"] == ("not stated", 0.5)
    assert ("CC BY 4.0", 0.5) in found.values()


# The objective


def objective(model: AcousticModel, **changes: Any) -> Objective:
    return Objective(model, TrainConfig(**{"augment": PLAIN, **changes}))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_noise_alone_and_unknown_words_give_finite_losses(bfloat16: bool) -> None:
    batch = Batch(
        audio=0.1 * torch.randn(2, 20_000),
        lengths=torch.tensor([20_000, 12_345]),
        targets={"letters": [torch.zeros(0, dtype=torch.long)] * 2, "phones": [None, None]},
    )
    loss = objective(tiny_model(), bfloat16=bfloat16)
    value = loss(batch, torch.Generator().manual_seed(0))
    value.backward()
    assert value > 0.0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_a_text_too_long_for_its_audio_costs_nothing() -> None:
    batch = Batch(torch.zeros(1, 3200), torch.tensor([3200]), {"letters": [torch.arange(1, 20)], "phones": [None]})
    loss = objective(tiny_model())(batch, torch.Generator().manual_seed(0))
    assert loss.item() == 0.0


def test_padding_does_not_change_the_loss() -> None:
    """A batch weighs its members by their tokens, however they are padded."""
    audio = 0.1 * torch.randn(1, 20_000)
    targets = {"letters": [torch.arange(1, 23)], "phones": [None]}
    loss = objective(tiny_model())
    short = loss(Batch(audio, torch.tensor([20_000]), targets), torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(audio, (0, 9_999))
    long = loss(Batch(padded, torch.tensor([20_000]), targets), torch.Generator().manual_seed(0))
    assert long.item() == pytest.approx(short.item(), rel=1e-4)


def test_views_that_agree_cost_nothing_more_and_others_do() -> None:
    batch = Batch(0.1 * torch.randn(2, 20_000), torch.tensor([20_000, 15_000]), {"letters": [torch.arange(1, 23)] * 2})
    model = tiny_model()

    def loss(**changes: Any) -> float:
        found = objective(model, head_weights={"letters": 1.0}, **changes)(batch, torch.Generator().manual_seed(0))
        return float(found)

    once = loss()
    assert loss(consistency=1.0) == pytest.approx(once, rel=1e-5)
    masked = AugmentConfig(frequency_masks=2, time_masks=5, time_width=30)
    little, much = loss(consistency=1e-9, augment=masked), loss(consistency=1.0, augment=masked)
    assert much > little + 1e-3
    # The divergence itself, by its definition, of two views whose log-probabilities are given.
    views = torch.randn(2, 7, 5).log_softmax(2).requires_grad_()
    p, q = views[0].exp(), views[1].exp()
    both = [(p * (views[0] - views[1]))[:6].sum(), (q * (views[1] - views[0]))[:6].sum()]
    found = Objective._disagreement(views, views.detach().flip(0), torch.tensor([6, 6]), [torch.arange(30)] * 2)
    torch.testing.assert_close(found, sum(both) / 60)
    (gradient,) = torch.autograd.grad(found, views)  # of log q in -p log q: each view is a target of the other one
    torch.testing.assert_close(gradient[:, :6], torch.stack([-q, -p])[:, :6] / 60)


def test_a_teacher_counts_by_how_much_it_disagrees() -> None:
    torch.manual_seed(1)
    batch = Batch(0.1 * torch.randn(2, 20_000), torch.tensor([20_000, 15_000]), {"letters": [torch.arange(1, 23)] * 2})
    model, other = tiny_model(), tiny_model(seed=1)
    heads = {"letters": 1.0}

    def loss(teacher: AcousticModel | None, **changes: Any) -> float:
        taught = Objective(model.eval(), TrainConfig(augment=PLAIN, head_weights=heads, **changes), teacher)
        return float(taught(batch, torch.default_generator).detach())

    alone = loss(None)
    assert loss(copy.deepcopy(model), teaching=1.0) == pytest.approx(alone, rel=1e-5)  # of one mind
    once, twice = (loss(other, teaching=weight) - alone for weight in (1.0, 2.0))
    assert once > 1e-3
    assert twice == pytest.approx(2.0 * once, rel=1e-4)
    assert loss(other, teaching=1.0, consistency=0.2) == pytest.approx(alone + once, rel=1e-4)


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    with pytest.raises(StreamasrError, match=r"the teacher has frames of \(samples\) 960, the student 640"):
        Objective(tiny_model(), TrainConfig(teaching=1.0), tiny_model(strides=[3, 2]))
    for teacher, weight, there in ((None, 0.5, "no"), (tiny_model(), 0.0, "a")):
        with pytest.raises(ManifestError, match=f"teaching is {weight:g} and there is {there} teacher"):
            Objective(tiny_model(), TrainConfig(teaching=weight), teacher)


def test_the_middle_layer_is_heard_in_time() -> None:
    """A network whose upper half passes everything on: its middle says what its end says, at the same frames."""
    model = tiny_model(lookahead=[2, 0, 0, 1])
    for weights in (w for name in ("gru3", "gru4", "ahead4") for w in model.body.stages[name].parameters()):
        torch.nn.init.zeros_(weights)
    torch.nn.init.ones_(model.body.stages["ahead4"].weight[0])
    features = torch.randn(2, 96, 80)
    end, middle = objective(model, intermediate=0.3)._encode(features)
    torch.testing.assert_close(end, model.encode(features), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(middle[:, : end.shape[1]], end, atol=1e-5, rtol=0.0)
    with pytest.raises(ManifestError, match="intermediate: needs two layers"):
        objective(model, intermediate=0.3, truncate_s=1.0)


def test_truncation_changes_gradients_and_not_outputs() -> None:
    model = tiny_model()
    features = torch.randn(1, 96, 80, requires_grad=True)
    whole, windowed = model.encode(features), model.encode(features, window=32)
    torch.testing.assert_close(windowed, whole, atol=1e-5, rtol=0.0)
    frame = 12  # of 24; leaves the second window with the network's delay
    assert 32 // 4 <= frame + model.delay < 64 // 4
    (through,) = torch.autograd.grad(whole[0, frame].square().sum(), features)
    (cut,) = torch.autograd.grad(windowed[0, frame].square().sum(), features)
    assert through[0, :32].abs().max() > 0.0
    assert cut[0, :32].abs().max() == 0.0
    assert cut[0, 32:64].abs().max() > 0.0


def test_the_window_is_whole_frames() -> None:
    assert objective(tiny_model(), truncate_s=0.5).window == 48
    assert objective(tiny_model(), truncate_s=0.0).window is None
    assert objective(tiny_model(lookahead=[], both=1, block_ms=320, ahead_ms=40), truncate_s=0.5).window == 64
    with pytest.raises(ManifestError, match="truncate_s: layers that read a whole utterance backwards"):
        objective(tiny_model(both=1), truncate_s=0.5)


# Runs

RUN = {
    "epochs": 2,
    "checkpoint_minutes": 0.0,  # after every step
    "model": {"width": 16, "conv_channels": 8, "lookahead": [1, 0], "dropout": 0.1},
    "batch": BatchConfig(batch_s=2.0, noise_only=0.2),
    "optimiser": OptimiserConfig(rate=3e-3, warm_up_steps=3),
}
TEXTS = ["ab", "ba", "cab", "abc", "c", "b a", "ab ba", "bb"]


class PowerCutError(Exception):
    """As if the power had gone."""


class Watched(Trainer):
    """Keeps its losses; is interrupted before a step is saved."""

    stop = -1

    def _report(self, loss: float, *rest: Any) -> None:
        if self.step == self.stop:
            raise PowerCutError
        vars(self).setdefault("losses", {})[self.step] = loss
        super()._report(loss, *rest)


def test_a_run_may_be_so_many_hours_of_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends within an epoch, with the step that reaches them, whatever that step costs; and is then done."""
    monkeypatch.setattr("streamasr.training.loop.plot_curve", lambda folder: None)
    data = corpus(tmp_path / "speech", TEXTS)
    config = TrainConfig(**RUN, heard_hours=1.3 * sum(u.seconds for u in data.train) / 3600.0)
    trainer = Watched(config, HEADS, data, tmp_path)
    trainer.run()
    wanted_s = 3600.0 * config.heard_hours
    assert wanted_s <= trainer.audio_s < wanted_s + 11.0  # a batch more at most, and noise has up to 10 s
    again = Watched(config, HEADS, data, tmp_path)
    again.run()
    assert again.step == trainer.step


def test_an_interrupted_run_goes_on_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamasr.training.loop.plot_curve", lambda folder: None)  # seconds of it, each epoch
    data = corpus(tmp_path / "speech", TEXTS)

    def trainer(name: str) -> Watched:
        (tmp_path / name).mkdir(exist_ok=True)
        return Watched(TrainConfig(**RUN), HEADS, data, tmp_path / name)

    straight = trainer("straight")
    straight.run()
    steps = len(straight.losses)
    assert steps >= 6
    losses: dict[int, float] = {}
    for stop in (2, steps // 2 + 2, -1):  # within the first epoch, within the second, at the end
        broken = trainer("broken")
        broken.stop = stop
        if stop == -1:
            broken.run()
        else:
            with pytest.raises(PowerCutError):
                broken.run()
        assert not losses.keys() & broken.losses.keys()
        losses |= broken.losses
    assert losses == straight.losses
    expected, found = (load_checkpoint(tmp_path / name / "last.pt") for name in ("straight", "broken"))
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value), name
    assert (found["epoch"], found["batch"], found["step"]) == (2, 0, steps)
    model = load_model([tmp_path / "broken" / "epoch-1.pt", tmp_path / "broken" / "epoch-2.pt"])
    assert model.config.heads == HEADS


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"model": Trap(), "model_config": {}}, tmp_path / "evil.pt")
    with pytest.raises(StreamasrError, match=r"evil\.pt: not a checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "trapped").exists()


TINY_TOML = """
dev_utterances = 4
[model]
width = 16
conv_channels = 8
lookahead = [1, 0]
[batch]
batch_s = 2.0
"""


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["epochs = 2", "heard_hours = 0.005"])
def test_two_processes_run_the_recipe_to_its_end(tmp_path: Path, budget: str) -> None:
    speech = tmp_path / "shared" / "speech"
    write_corpus(speech, TEXTS)
    write_corpus(speech, ["ab", "c", "ba"], name="dev")  # one process has no phones to be measured on
    (tmp_path / "shared" / "noise").mkdir()
    noise = np.random.default_rng(0).normal(0.0, 0.1, RATE)
    soundfile.write(tmp_path / "shared" / "noise" / "hiss.opus", noise, RATE, format="OGG", subtype="OPUS")
    (tmp_path / "shared" / "lexicon").mkdir()
    (tmp_path / "shared" / "lexicon" / "cmudict.dict").write_text("ab AE1 B\nba B AA1\n")
    (tmp_path / "tiny.toml").write_text(budget + TINY_TOML)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "recipes.mini.train", "--shared", tmp_path / "shared", "--config", tmp_path / "tiny.toml"]
    command += ["--work", tmp_path / "work", "--cache", tmp_path / "cache"]
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    saved = load_checkpoint(tmp_path / "work" / "last.pt")
    assert f"epoch {saved['epoch']}: words" in done.stdout
    assert saved["world"] == 2
    if budget.startswith("heard"):
        assert 18.0 <= saved["audio_s"] < 28.0
    else:
        assert saved["epoch"] == 2
    assert (tmp_path / "work" / "curve.png").exists()
    rows = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    assert {"dev_words", "dev_letters", "dev_phones"} <= rows[-1].keys()


# Evaluation and learning


def test_errors_are_counted_as_edits() -> None:
    count = evaluation.ErrorCount()
    count.add(["a", "b"], ["a", "c", "d"])
    count.add(list("a b"), list("ab"))
    count.add([], ["a"])
    assert (count.edits, count.length) == (2 + 1 + 1, 2 + 3)
    assert evaluation.collapse([0, 1, 1, 0, 1, 2, 2, 0]) == [1, 1, 2]
    assert evaluation.collapse([]) == []


def test_three_utterances_are_learnt_by_heart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    texts = ["ab", "cab", "bac c"]
    data = corpus(tmp_path, texts)
    cache = AudioCache([u.audio for u in data.train], data.cache)
    heads = {"letters": HEADS["letters"]}
    model = AcousticModel(ModelConfig(heads, conv_channels=32, width=48, lookahead=[1, 0]))
    model.front.stages["normalise"].mean.fill_(-8.0)
    model.front.stages["normalise"].scale.fill_(0.3)
    config = BatchConfig(glue_probability=0.0, noise_only=0.0)
    batch = BatchDataset(data.train, cache, AudioCache([], data.cache), heads, LEXICON, config, PLAIN, (0,))[0]
    loss = objective(model, head_weights={"letters": 1.0})
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98))
    for step in range(200):
        value = loss(batch, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 10 == 9:
            found = evaluation.greedy(model, cache)
            if ["".join(tokens["letters"]) for tokens in found] == texts:
                break
    targets = [encode_text(text, heads, LEXICON) for text in texts]
    spelled = [{"letters": [heads["letters"][k] for k in target["letters"]]} for target in targets]
    counts = evaluation.errors(data.train, found, spelled)
    assert counts["letters"].rate == counts["words"].rate == 0.0, f"after {step + 1} steps: {found}"
