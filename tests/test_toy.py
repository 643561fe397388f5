"""The committed toy bundle is whole, small, and still what its script makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamasr.acoustic import Acoustic
from streamasr.bundle import read_bundle

TOY = Path(__file__).parent / "data" / "toy"


def test_it_loads() -> None:
    bundle = read_bundle(TOY)
    Acoustic(bundle)
    assert [head.name for head in bundle.heads] == ["letters", "phones"]


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in TOY.iterdir()) < 900_000


def test_its_script_makes_the_same_network() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from toy import toy_model

    from export.graph import round_weights
    from export.verify import TOLERANCE, difference

    model = toy_model()
    round_weights(model)
    bundle = read_bundle(TOY)
    config = model.config.to_dict()
    assert bundle.network == {key: value for key, value in config.items() if key not in ("heads", "features")}
    assert {head.name: list(head.tokens) for head in bundle.heads} == model.config.heads
    assert difference(model, bundle) <= TOLERANCE
