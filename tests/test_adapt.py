"""The adapter: nothing at first, the same gradients forwards and back, and a bundle that has learned one speaker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model
from test_finetune import TOY, manifest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from export.restore import restore  # noqa: E402
from recipes import program  # noqa: E402
from recipes.adapt.__main__ import main  # noqa: E402
from recipes.adapt.gradient import (  # noqa: E402
    Label,
    Recording,
    by_back_propagation,
    by_rtrl,
    by_truncated,
    ctc,
    errors,
)
from recipes.adapt.labels import Span, confident, label  # noqa: E402
from recipes.adapt.learn import LearnConfig, learn  # noqa: E402
from recipes.adapt.network import Adaptive, kept  # noqa: E402
from streamasr.bundle import read_bundle  # noqa: E402
from streamasr.events import Final, Transcript, Word  # noqa: E402
from streamasr.recognizer import load  # noqa: E402

RATE = 16000


def noise(samples: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0.0, 3000.0, samples).astype(np.int16)


def adaptive(*, started: bool = True) -> Adaptive:
    """Small, and with an adapter that has begun to learn."""
    model = Adaptive(tiny_model())
    if started:
        with torch.no_grad():
            model.adapter.cell.linear.weight.normal_(0.0, 0.3)
    return model


def recording(model: Adaptive, samples: int = 5 * RATE + 77, labels: Sequence[Label] | None = None) -> Recording:
    frames = model.frames(samples)
    targets = {"letters": [3, 4, 4, 1, 9], "phones": [1, 2, 2]}
    return Recording(model.hear(noise(samples)), tuple(labels or [Label(0, frames, targets)]))


def apart(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Norm of the difference, as a share of the expected one's."""
    assert found.keys() == expected.keys()
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected])
    return float(difference.norm() / torch.cat([value.flatten() for value in expected.values()]).norm())


@pytest.mark.parametrize("samples", [1, 639, 16000, 50001])
def test_a_fresh_adapter_changes_nothing(samples: int) -> None:
    """Piece by piece, too: what comes out is what the whole model gives."""
    plain, pcm = tiny_model(), noise(samples)
    model = Adaptive(tiny_model())
    with torch.no_grad():
        expected = plain(torch.from_numpy(pcm.astype(np.float32) / 32768.0)[None])[0]
    for pieces in (model.hear(pcm), kept(model.hear(pcm))):
        torch.testing.assert_close(model.log_probs(pieces), expected, atol=1e-5, rtol=0.0)


def test_the_errors_of_the_frames_are_the_loss_s_gradient() -> None:
    """Down to the scores below the softmax, where the convention of torch's CTC does not show any more."""
    model = adaptive()
    one = recording(model)
    log_probs = model.log_probs(one.pieces)
    loss, wrong = errors(model, log_probs, one.labels)
    scores = torch.randn_like(log_probs).requires_grad_()
    heads = torch.cat([torch.log_softmax(part, 1) for part in model.model.split_heads(scores).values()], dim=1)
    (expected,) = torch.autograd.grad(ctc(model, heads, one.labels), scores, retain_graph=True)
    _, by_frame = errors(model, heads.detach(), one.labels)
    (found,) = torch.autograd.grad(heads, scores, by_frame)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0)
    assert loss == pytest.approx(float(ctc(model, log_probs, one.labels)))
    assert wrong.shape == log_probs.shape


@pytest.mark.parametrize("case", ["whole", "two spans", "letters alone", "no label"])
def test_two_passes_forwards_equal_one_back(case: str) -> None:
    model = adaptive()
    spelled: dict[str, list[int] | None] = {"letters": [5, 6], "phones": [1]}
    labels = {
        "whole": None,
        "two spans": [Label(3, 40, spelled), Label(60, 100, {"letters": [7, 1, 8], "phones": [2, 1]})],
        "letters alone": [Label(0, 126, {**spelled, "phones": None})],
        "no label": [Label(0, 126, {"letters": None, "phones": None})],
    }[case]
    one = recording(model, labels=labels)
    loss, found = by_rtrl(model, one)
    expected_loss, expected = by_back_propagation(model, one)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    if case == "no label":
        assert not any(bool(value.any()) for value in [*found.values(), *expected.values()])
    else:
        assert apart(found, expected) < 1e-4  # the CTC's sums over hundreds, in 32 bits
        model.adapter.double(), model.heads.double()
        one = Recording(lambda pieces=one.pieces: (x.double() for x in pieces()), one.labels)
        assert apart(by_rtrl(model, one)[1], by_back_propagation(model, one)[1]) < 1e-10


def test_truncation_is_not_exact() -> None:
    model = adaptive()
    with torch.no_grad():
        model.adapter.cell.linear.bias[: len(model.adapter.cell.linear.bias) // 2] = -4.0
    one = recording(model)
    _, expected = by_back_propagation(model, one)
    _, long = by_truncated(model, one, 1000)
    _, short = by_truncated(model, one, 10)
    assert apart(long, expected) < 1e-4
    assert apart(short, expected) > 1e-2


def test_only_the_adapter_learns_and_the_best_is_kept() -> None:
    model = Adaptive(tiny_model())
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    one = recording(model, 2 * RATE)
    losses = learn(model, [one], [one], LearnConfig(rate=1e-2, epochs=6))
    assert min(losses) < 0.95 * losses[0]
    assert float(ctc(model, model.log_probs(one.pieces), one.labels)) == pytest.approx(min(losses))
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name]) == ("adapter" not in name), name


def test_only_finals_that_are_sure_are_taken() -> None:
    def final(text: str, start_s: float, end_s: float, confidence: float) -> Final:
        return Final(text, (Word(text, start_s, end_s, confidence),), start_s, end_s)

    class Heard:
        def transcribe(self, pcm: Any, rate: int) -> Transcript:
            finals = final("ba", 0.1, 0.5, 0.9), final("de", 0.6, 1.0, 0.2), final("go", 2.0, 2.9, 0.8)
            return Transcript((*finals, Final("", (), 3.0, 3.0)))

    found = confident(Heard(), noise(3 * RATE), 0.7)  # type: ignore[arg-type]
    assert found == [Span(0, 9600, "ba"), Span(27200, 48000, "go")]


def test_labels_are_frames_and_tokens() -> None:
    model, bundle = Adaptive(restore(read_bundle(TOY))), read_bundle(TOY)
    (one, none) = label(model, bundle, [[Span(640, 1300, "ba")], [Span(0, 640, "ä")]])
    assert none == ()
    assert (one[0].begin, one[0].end) == (1, 3)
    letters, phones = (model.model.config.heads[head] for head in ("letters", "phones"))
    assert one[0].targets["letters"] == [letters.index("b"), letters.index("a")]
    assert one[0].targets["phones"]
    assert all(0 < k < len(phones) for k in one[0].targets["phones"])


def test_a_whole_bundle_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, out = manifest(tmp_path / "own"), tmp_path / "new"
    main([*map(str, [TOY, own, "--out", out, "--epochs", 1, "--rate", 1e-3, "--general", own]), "--again"])
    old, new = read_bundle(TOY), read_bundle(out)
    assert new.network == {**old.network, "adapter": True}
    assert [spec.name for spec in new.graphs["fp32"].states][-1] == "body.adapter.h"
    assert (new.search, new.tuning) == (old.search, old.tuning)
    load(out, greedy=True).transcribe(tmp_path / "own" / "0.wav")
    assert "\n| general | " in capsys.readouterr().out
    again = Adaptive(restore(new))  # what has an adapter learns on with it
    assert sum("adapter" in name for name in again.model.body.stages) == 1


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--finals", "--least", "1"], "no final is surer than 1.0: give a lower --least"),
        (["--out", str(TOY)], "toy: exists already and is not overwritten"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(more: list[str], complaint: str, tmp_path: Path) -> None:
    line = [str(TOY), str(manifest(tmp_path / "own")), "--out", str(tmp_path / "new"), *more]
    with pytest.raises(SystemExit, match=complaint):
        program.run(lambda: main(line))
