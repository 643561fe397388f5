"""How far a bundle's graph is from the torch model it was made of, over many chunks of carried state."""

from __future__ import annotations

import numpy as np
import torch

from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle
from streamasr.nn.acoustic_model import AcousticModel

TOLERANCE = 1e-4
STEPS = 100


def difference(model: AcousticModel, bundle: Bundle, steps: int = STEPS) -> float:
    """Largest absolute difference of log-probabilities and states over `steps` blocks of two streams.

    The audio is noise whose level swings from silence to clipping, so that every part of the network moves.
    """
    acoustic = Acoustic(bundle)
    rng = np.random.default_rng(0)
    block = acoustic.graph.block
    envelope = np.repeat(10.0 ** rng.uniform(-5.0, 0.0, (2, steps)), block, axis=1)
    audio = np.clip(rng.standard_normal((2, steps * block)) * envelope, -1.0, 1.0).astype(np.float32)
    state, torch_state = acoustic.zero_state(2), model.zero_state(2)
    worst = 0.0
    with torch.no_grad():
        for i in range(steps):
            piece = audio[:, i * block : (i + 1) * block]
            found, state = acoustic.step(piece, state)
            expected, torch_state = model.step(torch.from_numpy(piece), torch_state)
            pairs = [(found, expected), *((state[name], torch_state[name]) for name in state)]
            # np.max keeps a NaN; Python's max would lose it, and a broken network would pass.
            worst = float(np.max([worst, *(np.abs(a - b.numpy()).max(initial=0.0) for a, b in pairs)]))
    return worst
