"""Every stage of the network keeps the streaming law."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import tiny_model
from law import check_law, torch_stage

torch = pytest.importorskip("torch")

from streamasr.bundle import FeatureConfig  # noqa: E402
from streamasr.nn.acoustic_model import (  # noqa: E402
    BatchNorm,
    Heads,
    Join,
    LookAhead,
    ModelConfig,
    Normalise,
    RecurrentLayer,
    Subsample,
    VariationalDropout,
)
from streamasr.nn.adapter import Adapter  # noqa: E402
from streamasr.nn.attention import Attention  # noqa: E402
from streamasr.nn.bidirectional import Bidirectional  # noqa: E402
from streamasr.nn.cells import CELLS  # noqa: E402
from streamasr.nn.features import LogMel  # noqa: E402
from streamasr.nn.stage import Chain, Stage  # noqa: E402


def normalise() -> Stage:
    stage = Normalise(10)
    stage.mean.normal_()
    stage.scale.uniform_(0.1, 2.0)
    return stage


def look_ahead(frames: int, width: int = 10) -> Stage:
    stage = LookAhead(width, frames)
    torch.nn.init.normal_(stage.weight)  # a fresh one does not look ahead yet
    return stage


def attention(past: int) -> Stage:
    stage = Attention(12, past, 0.5)
    torch.nn.init.normal_(stage.distance)
    return Chain([("widen", Subsample(10, 12, 1)), ("attention", stage)])


def adapter() -> Stage:
    stage = Adapter(10)
    torch.nn.init.normal_(stage.cell.linear.weight)  # a fresh one adds nothing yet
    return stage


def chain() -> Stage:
    return Chain([("a", Subsample(10, 12)), ("b", look_ahead(2, 12)), ("c", RecurrentLayer("gru", 12, 0.5))])


STAGES = {
    "normalise": normalise,
    "subsample": lambda: Subsample(10, 12),
    "look-ahead 1": lambda: look_ahead(1),
    "look-ahead 5": lambda: look_ahead(5),
    **{cell: lambda cell=cell: RecurrentLayer(cell, 10, 0.5) for cell in CELLS},
    "batch norm": lambda: RecurrentLayer("gru", 10, 0.5, variational=True, norm="batch"),
    "heads": lambda: Heads(10, {"letters": ["<blank>", "a", "b"], "phones": ["<blank>", "AA"]}),
    "subsample by 3": lambda: Subsample(10, 12, 3),
    "join": lambda: Join(10, 3),
    **{f"both, {cell}": lambda cell=cell: Bidirectional(cell, 10, 2, 0.5, 4, 2) for cell in CELLS},
    "both, nothing ahead": lambda: Bidirectional("gru", 10, 2, 0.5, 3, 0),
    "both, much ahead": lambda: Bidirectional("gru", 10, 2, 0.5, 2, 5),
    "attention": lambda: attention(4),
    "adapter": adapter,
    "chain": chain,
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_keeps_the_law(name: str) -> None:
    torch.manual_seed(1)
    check_law(torch_stage(STAGES[name](), inputs=(10,)))


def test_log_mel_keeps_the_law() -> None:
    check_law(torch_stage(LogMel(FeatureConfig())))


@pytest.mark.parametrize("cell", CELLS)
def test_the_whole_model_keeps_the_law(cell: str) -> None:
    check_law(torch_stage(tiny_model(cell)), lengths=(1, 2, 5, 23))


def test_variational_dropout_drops_the_same_units_in_all_frames() -> None:
    torch.manual_seed(1)
    dropped = VariationalDropout(0.5)(torch.ones(3, 7, 20))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == dropped[:, :1]).all()
    assert not (dropped[0] == dropped[1]).all()


def test_batch_norm_is_fixed_once_learned() -> None:
    """What it learned is the mean and variance of each unit over batch and time."""
    norm, x = BatchNorm(5), 3.0 + 2.0 * torch.randn(4, 50, 5)
    for _ in range(200):
        norm(x)
    norm.eval()
    expected = (x - x.mean((0, 1))) / (x.var((0, 1)) + norm.eps).sqrt()
    torch.testing.assert_close(norm(x), expected, atol=1e-3, rtol=0.0)
    torch.testing.assert_close(norm(x[:1, :1]), expected[:1, :1], atol=1e-3, rtol=0.0)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown norm 'group': choose one of layer, batch"):
        tiny_model(norm="group")


def test_a_delay_is_filled_with_the_time_before_the_stream() -> None:
    stage = look_ahead(3)
    x = torch.randn(1, 20, 10)
    y, _ = stage.step(x, stage.zero_state(1))
    expected = sum(x[:, i : 17 + i] * stage.weight[i] for i in range(4))
    torch.testing.assert_close(y[:, 3:], expected)


def test_forward_is_step_and_then_the_zeros_of_finish() -> None:
    model = tiny_model()
    audio = 0.1 * torch.randn(2, 5 * model.stride + 123)
    with torch.no_grad():
        whole = model(audio)
        padded = torch.nn.functional.pad(audio, (0, (model.delay + 1) * model.stride - 123))
        stepped, _ = model.step(padded, model.zero_state(2))
    assert whole.shape[1] == model.frames(audio.shape[1]) == 6
    torch.testing.assert_close(whole, stepped[:, model.delay :], atol=1e-5, rtol=0.0)


def test_each_head_is_a_distribution() -> None:
    model = tiny_model()
    with torch.no_grad():
        heads = model.split_heads(model(0.1 * torch.randn(1, 4000)))
    for name, tokens in model.config.heads.items():
        assert heads[name].shape[2] == len(tokens)
        torch.testing.assert_close(heads[name].exp().sum(2), torch.ones(heads[name].shape[:2]))


def test_the_state_specs_are_the_state() -> None:
    model = tiny_model("lstm")
    _, state = model.step(torch.zeros(3, model.stride), model.zero_state(3))
    specs = {spec.name: (3, *spec.shape[1:]) for spec in model.state_specs()}
    assert {name: tuple(value.shape) for name, value in state.items()} == specs
    assert {name: tuple(value.shape) for name, value in model.zero_state(3).items()} == specs


def test_a_delay_that_no_stride_can_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="a delay of 1 frames cannot pass a stride of 2"):
        Chain([("ahead", LookAhead(4, 1)), ("conv", Subsample(4, 4))])


def test_a_configuration_survives_a_checkpoint() -> None:
    config = tiny_model("lstm").config
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_the_checker_sees_who_breaks_the_law() -> None:
    class Leaky(Stage):
        """Normalises over the piece it is given: another cutting, another result."""

        def step(self, x, state):  # type: ignore[no-untyped-def]
            return x - x.mean(dim=1, keepdim=True), {}

    class InPlace(LookAhead):
        """Writes its new state into the old one."""

        def step(self, x, state):  # type: ignore[no-untyped-def]
            y, new = super().step(x, state)
            state["past"].copy_(new["past"])
            return y, new

    class Hidden(Stage):
        """Keeps something to itself."""

        seen = 0.0

        def step(self, x, state):  # type: ignore[no-untyped-def]
            self.seen += 1e-3
            return x + self.seen, {}

    class Mixing(Stage):
        """Members of a batch see each other."""

        def step(self, x, state):  # type: ignore[no-untyped-def]
            return x + 1e-3 * x.sum(dim=0, keepdim=True), {}

    class Borrowing(Stage):
        """Its state lies in the caller's buffer."""

        def state_specs(self):  # type: ignore[no-untyped-def]
            return LookAhead(10, 1).state_specs()

        def step(self, x, state):  # type: ignore[no-untyped-def]
            return x, {"past": x[:, -1:]}

    for stage, complaint in (
        (Leaky(), "cut"),
        (InPlace(10, 2), "changed in place"),
        (Hidden(), "differs"),
        (Mixing(), "member"),
        (Borrowing(), "input's memory"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            check_law(torch_stage(stage, inputs=(10,)))


def test_silence_gives_finite_numbers() -> None:
    model = tiny_model()
    with torch.no_grad():
        assert np.isfinite(model(torch.zeros(1, 16000)).numpy()).all()
