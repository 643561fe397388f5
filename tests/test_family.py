"""Every member of the recurrent family: trained shape, law, export; and what does not fit together."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model
from law import check_law, onnx_stage, torch_stage

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import streamasr  # noqa: E402
from export.onnx import make_bundle  # noqa: E402
from export.restore import restore  # noqa: E402
from export.verify import TOLERANCE, verify  # noqa: E402
from streamasr.acoustic import Acoustic  # noqa: E402
from streamasr.nn.bidirectional import Bidirectional  # noqa: E402

CONTROLLED = {"lookahead": [], "both": 2, "block_ms": 160, "ahead_ms": 80}
MEMBERS: dict[str, dict[str, Any]] = {
    "latency-controlled": CONTROLLED,
    "latency-controlled lstm": {**CONTROLLED, "cell": "lstm"},
    "latency-controlled mingru": {**CONTROLLED, "cell": "mingru"},
    "both directions over one": {"lookahead": [1, 2], "both": 1, "block_ms": 160, "ahead_ms": 160},
    "hierarchical": {"strides": [2], "lookahead": [2, 1, 0], "join": [1, 2, 1]},
    "attention": {"attention": 6},
    "60 ms": {"strides": [3, 2]},
    "adapter": {"adapter": True},
    "batch norm": {"norm": "batch"},
}
WHOLE = {"lookahead": [], "both": 2}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_keeps_the_law_in_torch(name: str) -> None:
    check_law(torch_stage(tiny_model(**MEMBERS[name])), lengths=(1, 2, 5, 23))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_keeps_the_law_through_onnx(name: str, tmp_path: Path) -> None:
    model = tiny_model(**MEMBERS[name])
    bundle = make_bundle(model, tmp_path / "bundle", name, ())
    assert bundle.graphs["fp32"].parity <= TOLERANCE
    check_law(onnx_stage(Acoustic(bundle)), lengths=(1, 2, 5, 23))
    again = restore(bundle)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_offline_and_streaming_are_the_same_blocks() -> None:
    model = tiny_model(**CONTROLLED)
    audio = 0.1 * torch.randn(1, 8 * model.block + 77)
    with torch.no_grad():
        whole = model(audio)
        state, rows = model.zero_state(1), []
        for piece in model.pad(audio).split(model.block, dim=1):
            y, state = model.step(piece, state)
            rows.append(y)
    torch.testing.assert_close(torch.cat(rows, 1)[:, model.delay :][:, : whole.shape[1]], whole, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("cell", ["gru", "mingru"])
def test_latency_control_without_limits_is_the_whole_utterance(cell: str) -> None:
    """One block as long as the utterance: both ways of reading must agree."""
    torch.manual_seed(0)
    whole = Bidirectional(cell, 10, 2, 0.0, 0, 0).eval()
    blocks = Bidirectional(cell, 10, 2, 0.0, 24, 0).eval()
    blocks.load_state_dict(whole.state_dict())
    x = torch.randn(2, 24, 10)
    with torch.no_grad():
        expected, _ = whole.step(x, {})
        found, _ = blocks.step(x, blocks.zero_state(2))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0)


def test_nothing_beyond_the_look_ahead_is_heard() -> None:
    """And the last frame of a block hears what lies ahead of it, by every layer alike."""
    stage = Bidirectional("gru", 10, 3, 0.0, 4, 2).eval()
    x = torch.randn(1, 24, 10, requires_grad=True)
    y, _ = stage.step(x, stage.zero_state(1))
    y = y[:, stage.delay :]  # frame i speaks of x[i]; a stream's blocks begin `delay` before it
    for frame, last in ((5, 7), (4, 7), (6, 11), (9, 11)):
        (gradient,) = torch.autograd.grad(y[0, frame].sum(), x, retain_graph=True)
        heard = gradient[0].abs().sum(1).nonzero().max().item()
        assert heard == last


def test_training_and_running_agree() -> None:
    """With gradients the GRU runs through its own function, and blocks in one batch."""
    stage = Bidirectional("gru", 10, 2, 0.0, 4, 2).eval()
    x = torch.randn(2, 24, 10)
    trained, _ = stage.step(x, stage.zero_state(2))
    with torch.no_grad():
        run, _ = stage.step(x, stage.zero_state(2))
    assert trained.grad_fn is not None
    torch.testing.assert_close(trained, run, atol=1e-5, rtol=0.0)


@pytest.fixture(scope="module")
def whole_bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_bundle(tiny_model(**WHOLE), tmp_path_factory.mktemp("whole") / "bundle", "whole", ())


def test_a_whole_model_hears_any_length(whole_bundle: Any) -> None:
    model = restore(whole_bundle)
    rng = np.random.default_rng(0)
    for samples in (1, 639, 640, 12345, 48000):
        audio = (0.1 * rng.standard_normal(samples)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(audio)[None])[0].numpy()
        assert np.abs(Acoustic(whole_bundle).whole(audio) - expected).max() <= TOLERANCE


def test_a_whole_model_transcribes_for_any_cutting(whole_bundle: Any) -> None:
    recognizer = streamasr.Recognizer(whole_bundle, greedy=True)
    assert recognizer.stream().finish() == []
    audio = (0.1 * np.random.default_rng(1).standard_normal(40000)).astype(np.float32)
    expected = recognizer.transcribe(audio)
    assert expected.words
    stream, events = recognizer.stream(), []
    for start in range(0, len(audio), 777):
        events += stream.accept(audio[start : start + 777])
    assert not events
    assert [event for event in stream.finish() if isinstance(event, streamasr.Final)] == list(expected.finals)


def test_a_whole_model_says_how_much_is_too_much(whole_bundle: Any) -> None:
    stream = streamasr.Recognizer(whole_bundle, greedy=True).stream()
    with pytest.raises(streamasr.AudioError, match="more than 10 minutes: this model hears a recording as a whole"):
        stream.accept(np.zeros(16000 * 601, dtype=np.float32))


def test_a_whole_model_is_not_asked_to_run_live(whole_bundle: Any, capsys: Any) -> None:
    from streamasr.cli import main

    for command in (["live", "--greedy"], ["bench", "--utterances", "1"]):
        assert main([*command, "--model", str(whole_bundle.folder)]) == 1
        assert "hears a recording only as a whole, so not live; use `streamasr transcribe`" in capsys.readouterr().err


def test_a_whole_model_can_be_verified(whole_bundle: Any) -> None:
    assert verify(whole_bundle, []) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cell": "qrnn"}, "unknown cell 'qrnn': choose one of"),
        ({"both": 1, "block_ms": 100}, "block_ms is 100: expected a multiple of the 40 ms of a frame"),
        ({"both": 1, "ahead_ms": 80}, "ahead_ms is 80 without block_ms: nothing lies ahead of a whole utterance"),
        ({"both": 1, "cell": "mingru"}, "mingru in both directions needs block_ms"),
        ({"join": [2]}, "join has 1 entries, lookahead 3: expected one for each layer"),
        ({"join": [1, 2, 1]}, "a delay of 1 frames cannot pass a stride of 2"),
        ({"attention": 4, "both": 1}, "attention looks back on frames of the past: give block_ms"),
        ({"attention": 4, "norm": "batch"}, "variational and norm are for layers that read forwards"),
        ({"attention": 4, "width": 10}, "attention needs a width that 4 heads can share, got 10"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace(".", r"\.")):
        tiny_model(**changes)


@pytest.mark.parametrize(
    "file",
    ["family/members.toml", "mini/ablation.toml", "mini/longer.toml", "mini/regularise.toml", "mini/curve.toml"],
)
def test_the_members_of_an_experiment_have_about_a_million_parameters(file: str) -> None:
    from recipes.family.members import Experiment
    from streamasr.errors import ManifestError
    from streamasr.nn.acoustic_model import AcousticModel, ModelConfig

    experiment = Experiment.read(Path(__file__).parents[1] / "recipes" / file)
    assert f"<!-- {experiment.section} -->" in experiment.results.read_text(encoding="utf-8")
    for name, member in experiment.members.items():
        model = AcousticModel(ModelConfig.from_dict({"heads": member.heads(["ab"]), **member.config.model}))
        count = sum(parameter.numel() for parameter in model.body.parameters())
        assert 0.9e6 < count < 1.1e6 or "parameters" in member.says, f"{name}: {count:,}"
    with pytest.raises(ManifestError, match=f"no member qrnn: choose from {next(iter(experiment.members))}, "):
        experiment.choose(["qrnn"])


def test_synthetic_speech_joins_a_member_s_own(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recipes.family.members import Experiment
    from recipes.mini import synthetic
    from recipes.mini.data import corpus
    from recipes.mini.data import synthetic as synthetic_speech
    from streamasr.errors import ManifestError

    if not shutil.which("flite"):
        pytest.skip("the program flite is not there")
    member = Experiment.read(Path(__file__).parents[1] / "recipes/mini/regularise.toml").members["synthetic"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match=r"run recipes\.mini\.synthetic first"):
        member.speech(corpus(shared, tmp_path))
    monkeypatch.setattr("sys.argv", ["synthetic", "--shared", str(shared), "--hours", "0.005"])
    synthetic.main()
    whole = corpus(shared, tmp_path)
    spoken = [utterance for utterance in member.speech(whole).train if utterance.source == "flite"]
    assert len(spoken) >= 2
    assert 18.0 <= sum(utterance.seconds for utterance in spoken) < 40.0
    assert {word for utterance in spoken for word in utterance.text.split()} <= whole.lexicon.keys()
    assert {utterance.speaker for utterance in spoken} <= {"awb", "kal16", "rms", "slt"}
    monkeypatch.setattr("sys.argv", ["synthetic", "--shared", str(shared), "--hours", "0.01"])
    synthetic.main()
    more = synthetic_speech()
    assert more[: len(spoken)] == spoken
    assert len({utterance.text for utterance in more}) == len({utterance.audio for utterance in more}) > len(spoken)


def test_frame_labels_of_real_speech_are_learned(tmp_path: Path, shared: Path) -> None:
    """The labels say the text's phones in order, and the head of phones learns to say them frame by frame."""
    pytest.importorskip("pocketsphinx")
    from recipes.family.labels import SILENCE, align_all, learn_labels
    from recipes.mini.data import HEADS, corpus
    from streamasr.training.config import TrainConfig
    from streamasr.training.loop import Trainer

    whole = corpus(shared, tmp_path)
    few = replace(whole, train=[u for u in whole.train if u.seconds < 6.0][:40:2], dev=whole.dev[:1])
    config = TrainConfig(bfloat16=False, head_weights={"phones": 1.0}, model={"width": 32, "conv_channels": 16})
    trainer = Trainer(config, HEADS, few, tmp_path)
    tokens = HEADS["phones"]
    labels = align_all(few.train, trainer.cache, tokens, tmp_path / "labels.npz")
    known = [(u, own) for u, own in zip(few.train, labels, strict=True) if len(own)]
    assert len(known) >= 3
    for utterance, own in known:
        assert abs(len(own) - 100 * utterance.seconds) < 5
        said = [tokens[k] for k, _ in itertools.groupby(own.tolist()) if k != SILENCE]
        first, last = utterance.text.split()[0], utterance.text.split()[-1]
        assert any(said[: len(phones)] == phones for phones in few.lexicon[first])
        assert any(said[-len(phones) :] == phones for phones in few.lexicon[last])
    before = trainer.model.body.stages["heads"].linear["phones"].weight.clone()
    learn_labels(trainer, 0.002)
    assert not torch.equal(before, trainer.model.body.stages["heads"].linear["phones"].weight)
    assert trainer.step == 0


def test_rows_that_are_measured_again_take_their_old_place() -> None:
    from recipes.family.measure import joined
    from streamasr.errors import StreamasrError

    head, said = ["| member | CER % |", "|---|---|"], ["", "145 utterances of dev, 20 minutes."]
    before = [*head, "| a | 1 |", "| b | 2 |", "| en-mini | 3 |", *said]
    measured = [*head, "| b | 4 |", "| c | 5 |", "| en-mini | 6 |", *said]
    assert joined(measured, ["Not run yet."]) == measured
    assert joined(measured, before) == [*head, "| a | 1 |", "| b | 4 |", "| c | 5 |", "| en-mini | 6 |", *said]
    with pytest.raises(StreamasrError, match="not of 145 utterances of dev, 20 minutes"):
        joined(measured, [*before[:-1], "30 utterances of dev, 4 minutes."])
