"""What training makes small: finite, blind to padding, and what each part of it counts."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model

torch = pytest.importorskip("torch")

from tones import PLAIN, objective  # noqa: E402

from streamasr.errors import ManifestError, StreamasrError  # noqa: E402
from streamasr.nn.acoustic_model import AcousticModel  # noqa: E402
from streamasr.training.augment import AugmentConfig, disguise  # noqa: E402
from streamasr.training.config import TrainConfig  # noqa: E402
from streamasr.training.data import Batch  # noqa: E402
from streamasr.training.loop import Objective  # noqa: E402
from streamasr.training.risk import errors_in_time, expected_errors  # noqa: E402


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
        return float(found.detach())

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


def test_a_disguise_moves_formants_and_colours_all_frames_alike() -> None:
    """Of a tone: VTLP with factor f puts 1 kHz at 1000 / f Hz; and colour adds one line of gains to every frame."""
    model, rng = tiny_model(), torch.Generator().manual_seed(0)
    logmel = model.front.stages["logmel"]

    def features(hz: float) -> torch.Tensor:
        tone = torch.sin(2.0 * torch.pi * hz * torch.arange(16_000) / 16_000)[None]
        return logmel.step(tone, logmel.zero_state(1))[0][:, 10:]

    for factor in (0.85, 0.93, 1.1):
        rate = torch.rand(1, generator=rng.manual_seed(1)).item()  # what the one row will draw
        warp = AugmentConfig(warp=(factor - 1.0) / (2.0 * rate - 1.0))
        moved = disguise(features(1000.0), 8000.0, warp, rng.manual_seed(1))
        assert moved.mean(1).argmax() == features(1000.0 / factor).mean(1).argmax()
    rows = torch.randn(3, 40, 80)
    torch.testing.assert_close(disguise(rows, 8000.0, AugmentConfig(warp=1e-9), rng), rows)
    line = disguise(rows, 8000.0, AugmentConfig(colour_db=6.0), rng) - rows
    torch.testing.assert_close(line, line[:, :1].expand_as(line), atol=1e-5, rtol=0.0)
    most = 0.6 * math.log(10.0)  # 6 dB of power, in nats
    assert most / 2 < line.abs().max() <= most + 1e-5
    assert not torch.allclose(line[0, 0], line[1, 0], atol=0.1)
    both = disguise(rows, 8000.0, AugmentConfig(warp=0.2, colour_db=6.0), rng)
    assert both.shape == rows.shape
    assert both.isfinite().all()


def test_two_views_are_disguised_differently() -> None:
    batch = Batch(0.1 * torch.randn(2, 20_000), torch.tensor([20_000, 15_000]), {"letters": [torch.arange(1, 23)] * 2})
    disguised = replace(PLAIN, warp=0.2, colour_db=6.0)

    def loss(consistency: float) -> float:
        made = objective(tiny_model(), head_weights={"letters": 1.0}, augment=disguised, consistency=consistency)
        return float(made(batch, torch.Generator().manual_seed(0)).detach())

    assert loss(1.0) > loss(1e-9) + 1e-3


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


def test_errors_are_found_where_they_happen() -> None:
    path = np.array([0, 1, 1, 0, 1, 0, 0, 2, 0, 3])  # says 1 1 2 3
    at = errors_in_time(path, np.array([1, 2, 3]))
    assert at.nonzero()[0].tolist() in ([1], [4])
    assert at.sum() == 1.0
    at = errors_in_time(path, np.array([1, 1, 4, 3]))  # another one
    assert at.nonzero()[0].tolist() == [7]
    at = errors_in_time(path, np.array([1, 1, 5, 2, 3]))  # one that is missing, somewhere between two
    assert at.nonzero()[0].tolist() == [4, 5, 6, 7]
    assert at.sum() == pytest.approx(1.0)
    assert errors_in_time(np.zeros(4, int), np.array([1, 2])).tolist() == [0.5] * 4
    assert errors_in_time(path, np.zeros(0, int)).sum() == 4.0
    assert not errors_in_time(np.zeros(0, int), np.array([1])).size


def test_expected_errors_count_what_a_certain_path_gets_wrong_and_fall_by_descent() -> None:
    rng = torch.Generator().manual_seed(0)
    target, frames = torch.tensor([3, 1, 2]), torch.tensor([12])
    path = torch.tensor([0, 3, 0, 1, 1, 0, 0, 0, 4, 0, 0, 0, 5, 5])  # 4 in place of 2; the frames after 12 do not count
    certain = 50.0 * torch.nn.functional.one_hot(path, 6)[None].float()
    assert float(expected_errors(certain.log_softmax(2), frames, [target], rng)) == 1.0
    logits = 0.1 * certain
    logits[0, 8, 2] = 4.6  # it may be 2 after all
    logits.requires_grad_()
    descent = torch.optim.SGD([logits], 0.2)
    first = float(expected_errors(logits.detach().log_softmax(2), frames, [target], rng))
    for _ in range(300):
        descent.zero_grad()
        expected_errors(logits.log_softmax(2), frames, [target], rng).backward()
        descent.step()
    assert logits[0, :12].argmax(1).tolist() == [0, 3, 0, 1, 1, 0, 0, 0, 2, 0, 0, 0]
    assert float(expected_errors(logits.detach().log_softmax(2), frames, [target], rng)) < 0.3 < 0.5 < first
    assert torch.equal(logits[0, 12:], 0.1 * certain[0, 12:])


def test_risk_is_added_for_the_head_that_is_named() -> None:
    batch = Batch(0.1 * torch.randn(1, 20_000), torch.tensor([20_000]), {"letters": [torch.arange(1, 5)]})
    model = tiny_model()
    with torch.no_grad():
        head = model.body.stages["heads"].linear["letters"]
        head.weight.zero_()
        head.bias.copy_(50.0 * (torch.arange(len(head.bias)) == 0))  # the blank, always: every letter is missing

    def loss(**changes: Any) -> float:
        made = objective(model, head_weights={"letters": 1.0}, **changes)
        return float(made(batch, torch.Generator().manual_seed(0)).detach())

    assert loss(risk={"letters": 0.5}) - loss() == pytest.approx(0.5 * 4 / 20, rel=1e-3)  # 20: see _tokens
    with pytest.raises(ManifestError, match="head_weights: got phones"):
        TrainConfig(risk={"words": 1.0}).make_model({"letters": ["<blank>", "a"]})
