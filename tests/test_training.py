"""Training: configurations read, runs continued exactly, and something learnt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import tiny_model

torch = pytest.importorskip("torch")

from tones import HEADS, LEXICON, PLAIN, RATE, corpus, objective, write_corpus  # noqa: E402

from streamasr.errors import ManifestError, StreamasrError  # noqa: E402
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig  # noqa: E402
from streamasr.training import evaluation  # noqa: E402
from streamasr.training.checkpoint import load_checkpoint, load_model, save_checkpoint  # noqa: E402
from streamasr.training.config import OptimiserConfig, TrainConfig  # noqa: E402
from streamasr.training.data import AudioCache, BatchConfig, BatchDataset, encode_text  # noqa: E402
from streamasr.training.loop import Trainer  # noqa: E402
from streamasr.training.muon import Muon  # noqa: E402
from streamasr.training.optimiser import learning_rate, make_optimisers  # noqa: E402

ROOT = Path(__file__).parents[1]


# Configurations


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("speed = 3", "c.toml: unknown key 'speed'"),
        ("[augment]\npitch = 3", r"c.toml, \[augment\]: unknown key 'pitch'"),
        ("[batch]\nsize = 3", r"c.toml, \[batch\]: unknown key 'size'"),
        ("[model]\ndepth = 3", r"c.toml, \[model\]: unknown key 'depth'"),
        ("[model]\nheads = 3", r"c.toml, \[model\]: unknown key 'heads'"),
        ("seed =", "c.toml: not TOML"),
        ('epochs = "20"', "c.toml.epochs: expected float, got '20'"),
        ("epochs = 0", "c.toml: epochs is 0, expected more than 0"),
        ("batch = 5", r"c.toml, \[batch\]: expected an object, got 5"),
        ('[model]\nwidth = "8"', r"c.toml, \[model\].width: expected int, got '8'"),
        ("[model]\nlookahead = [1, 0.5]", r"c.toml, \[model\].lookahead\[1\]: expected int, got 0.5"),
        ("[augment]\ngain_db = [1]", r"c.toml, \[augment\].gain_db: expected 2 entries"),
    ],
)
def test_a_bad_key_of_a_configuration_is_named(toml: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(toml)
    with pytest.raises(ManifestError, match=complaint):
        TrainConfig.read(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"model": {"cell": "lsmt"}}, "model: unknown cell 'lsmt'"),
        ({"model": {"join": [1]}}, "model: join has 1 entries, lookahead 4"),
        ({"head_weights": {"letter": 1.0}}, "head_weights: got letter, expected some of letters, phones"),
        ({"head_weights": {}}, "head_weights: got none"),
        ({"head_weights": {"phones": 1.0}, "risk": {"letters": 1.0}}, "risk: got letters, expected some of phones"),
    ],
)
def test_a_network_that_cannot_be_is_said_in_one_line(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ManifestError, match=complaint):
        TrainConfig.from_dict(values, "c.toml").make_model(HEADS)


SITTINGS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


@pytest.mark.parametrize("file", [*(f"mini/{sitting}" for sitting in SITTINGS), "tiny/config", "finetune/config"])
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


def test_muon_goes_where_torchs_goes() -> None:
    """Which rounds to bfloat16, eight bits: a step of a hundredth differs by less than a thousandth of one."""
    torch.manual_seed(0)
    start = [torch.randn(96, 32), torch.randn(32, 96), torch.randn(40, 40)]
    ours, theirs = ([w.clone().requires_grad_() for w in start] for _ in range(2))
    optimisers = (
        Muon(ours, lr=0.01, weight_decay=0.1, momentum=0.95),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert float((one - before).detach().abs().max()) > 0.01
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0.0)


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


def test_a_run_is_not_continued_as_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = corpus(tmp_path / "speech", TEXTS)
    Trainer(TrainConfig(**RUN), HEADS, data, tmp_path)._save("last.pt")
    for change, named in (({"seed": 2}, "seed"), ({"augment": PLAIN}, "augment")):
        with pytest.raises(StreamasrError, match=rf"last\.pt began with another {named}; .*start in a new folder"):
            Trainer(TrainConfig(**{**RUN, **change}), HEADS, data, tmp_path)
    with pytest.raises(StreamasrError, match=r"last\.pt began with another speech"):
        Trainer(TrainConfig(**RUN), HEADS, replace(data, train=data.train[1:]), tmp_path)
    done = Trainer(TrainConfig(**{**RUN, "epochs": 1e-9, "dev_utterances": 1}), HEADS, data, tmp_path)
    done.epoch = 1
    done.run()
    assert "trained to its end" in capsys.readouterr().out


def test_synthetic_speech_is_heard_at_the_beginning(tmp_path: Path) -> None:
    data = corpus(tmp_path, TEXTS)
    mixed = replace(data, train=data.train[:3], synthetic=data.train[3:])
    for epochs, heard in ((0, 8), (1, 3), (2, 8)):
        run = Trainer(TrainConfig(**RUN, synthetic_epochs=epochs), HEADS, mixed, tmp_path)
        run.epoch = 1
        said = {i for items in run._dataset().batches for item in items for i in item.utterances}
        assert said == set(range(heard))
        assert sum(run._sources().values()) == pytest.approx(sum(u.seconds for u in data.train), abs=0.1)


def test_a_run_begins_with_a_network_that_looks_less_far_ahead(tmp_path: Path) -> None:
    """And says the same until it has learned better; one that looks farther, or with other layers, is refused."""
    theirs = tiny_model(seed=2)
    own = {key: value for key, value in theirs.config.to_dict().items() if key not in ("heads", "features")}
    settings = {**RUN, "model": {**own, "lookahead": [1, 2, 1]}}
    data = corpus(tmp_path, ["ab"])
    run = Trainer(TrainConfig(**settings), theirs.config.heads, data, tmp_path, theirs)
    audio = 0.1 * torch.randn(1, 20_000)
    with torch.no_grad():
        torch.testing.assert_close(run.model.eval()(audio), theirs(audio))
    for ahead in ([1, 1, 0], [2, 2]):
        settings["model"] = {**own, "lookahead": ahead}
        with pytest.raises(StreamasrError, match=r"the model to start from has another lookahead than the"):
            Trainer(TrainConfig(**settings), theirs.config.heads, data, tmp_path, theirs)


def test_a_full_disk_loses_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "last.pt", {"model": {}, "model_config": {}})

    def full(values: Any, file: Any) -> None:
        file.write(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 662\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StreamasrError, match=r"last\.pt: cannot be written, is the disk full\? \(\[enforce .* 662\)$"):
        save_checkpoint(tmp_path / "last.pt", {})
    assert load_checkpoint(tmp_path / "last.pt") == {"model": {}, "model_config": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "words.pt", {"model": {}, "model_config": {"numbers": 5}})
    with pytest.raises(StreamasrError, match=r"words\.pt: of another kind of model"):
        load_model([tmp_path / "words.pt"])


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
