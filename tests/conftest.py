"""What several test files need: the shared corpus where it is there, and a small random bundle."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that wait for one another on small tensors

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "speech").is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


def tiny_model(cell: str = "gru", seed: int = 0, **changes: Any) -> Any:
    """A random AcousticModel, small, but with every part of a real one; each weight moves its output."""
    torch = pytest.importorskip("torch")
    from streamasr.nn.acoustic_model import AcousticModel, ModelConfig

    torch.manual_seed(seed)
    heads = {"letters": ["<blank>", " ", "'", *"abcdefghijklmnopqrstuvwxyz"], "phones": ["<blank>", "AA", "B"]}
    values = {"conv_channels": 16, "width": 24, "lookahead": [1, 2, 0], "cell": cell, **changes}
    model = AcousticModel(ModelConfig(**{"heads": heads, **values})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "ahead" in name or "adapter" in name:  # fresh ones do nothing yet
                weight.normal_()
        model.front.stages["normalise"].mean.uniform_(-6.0, -4.0)
        model.front.stages["normalise"].scale.uniform_(0.2, 0.5)
    return model


@pytest.fixture(scope="session")
def tiny_bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Cell -> the bundle of tiny_model(cell), exported once and read back."""
    pytest.importorskip("onnx")
    from export.onnx import make_bundle
    from streamasr.bundle import read_bundle

    folder = tmp_path_factory.mktemp("bundles")

    @cache
    def bundle_of(cell: str) -> Any:
        make_bundle(tiny_model(cell), folder / cell, cell, ())
        return read_bundle(folder / cell)

    return bundle_of


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_of: Callable[[str], Any]) -> Any:
    """The bundle of a small random model, as a user would have it."""
    return tiny_bundle_of("gru")
