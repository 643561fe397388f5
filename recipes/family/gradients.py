"""How far gradients reach back through each cell: python -m recipes.family.gradients

Draws gradients.png: of a layer's state at a moment of real speech, how much of the gradient of one random direction of
it is left at its own state so many frames earlier, for the trained members and for a simple network whose recurrent
weights are made smaller or larger, or whose input is not normalised; and the norm of the whole gradient over the
training of some of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recipes.family.members import FAMILY, Experiment
from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from streamasr.errors import StreamasrError
from streamasr.manifest import read_manifest, spread
from streamasr.nn.acoustic_model import AcousticModel, RecurrentLayer
from streamasr.nn.stage import Stage
from streamasr.training.checkpoint import epochs, load_model

HERE = Path(__file__).parent
CELLS = ("rnn", "lstm", "gru", "mingru")
FRAMES = 75  # of 40 ms: three seconds
UTTERANCES = 12
SCALES = {"rnn, recurrent weights halved": 0.5, "rnn, doubled": 2.0, "rnn, doubled, no squashing": 2.0}


def inputs(model: AcousticModel, speech: list[Tensor]) -> tuple[RecurrentLayer, list[Tensor], list[Tensor]]:
    """The last recurrent layer, and of each utterance, (1, frames, width): what its cell hears, and before the norm."""
    layers = [stage for stage in model.body.stages.values() if isinstance(stage, RecurrentLayer)]
    raw: list[Tensor] = []
    step = layers[-1].step

    def listen(x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        raw.append(x)
        return step(x, state)

    layers[-1].step = listen  # type: ignore[method-assign]
    with torch.no_grad():
        for audio in speech:
            model(audio)
        heard = [layers[-1].norm(x) for x in raw]
    layers[-1].step = step  # type: ignore[method-assign]
    return layers[-1], heard, raw


def reach(cell: Stage, heard: list[Tensor], squashed: bool = True) -> NDArray[np.float64]:
    """(FRAMES,): geometric mean over utterances of what is left of a gradient after 0, 1, 2, ... frames."""
    logs = []
    generator = torch.Generator().manual_seed(0)
    for x in heard:
        state = {name: value.requires_grad_() for name, value in cell.zero_state(1).items()}
        states = [state]
        with torch.enable_grad():
            for frame in x[:, -FRAMES:].split(1, dim=1):
                state = _step(cell, frame, state, squashed)
                for value in state.values():
                    value.retain_grad()
                states.append(state)
            last = states[-1]["h"]
            direction = torch.randn(last.shape, generator=generator)
            (last * direction / direction.norm()).sum().backward()  # type: ignore[no-untyped-call]
        norms = [float(sum(v.grad.square().sum() for v in s.values() if v.grad is not None)) ** 0.5 for s in states]
        logs.append(np.log(np.maximum(norms[:0:-1], 1e-30)))
    return np.exp(np.mean(logs, axis=0))


def _step(cell: Stage, x: Tensor, state: dict[str, Tensor], squashed: bool) -> dict[str, Tensor]:
    if squashed:
        return cell.step(x, state)[1]
    assert isinstance(cell.rnn, nn.RNN)
    rnn = cell.rnn
    h = x[:, 0] @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + state["h"] @ rnn.weight_hh_l0.T + rnn.bias_hh_l0
    return {"h": h}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, help="in place of the experiment's folder")
    arguments = parser.parse_args()
    work = arguments.work or Experiment.read(FAMILY).work
    utterances = [u for u in read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS) if u.seconds > 5.0]
    chosen = spread(utterances, UTTERANCES)
    speech = [torch.from_numpy(read_16k(u.audio))[None] for u in chosen]
    curves = {}
    for name in CELLS:
        checkpoints = epochs(work / name)
        if not checkpoints:
            raise StreamasrError(f"{work / name}: not trained; run recipes.family.train first")
        layer, heard, raw = inputs(load_model(checkpoints[-1:]), speech)
        curves[name] = reach(layer.cell, heard)
        if name == "rnn":
            curves["rnn, what it hears not normalised"] = reach(layer.cell, raw)
            weight = layer.cell.rnn.weight_hh_l0
            for what, scale in SCALES.items():
                with torch.no_grad():
                    weight.mul_(scale)
                curves[what] = reach(layer.cell, heard, squashed="squashing" not in what)
                with torch.no_grad():
                    weight.div_(scale)
    draw(curves, work)
    write_section(HERE / "RESULTS.md", "gradients", "\n".join(table(curves)))


def table(curves: dict[str, NDArray[np.float64]]) -> list[str]:
    """Markdown."""
    moments = [1, 5, 25, FRAMES - 1]
    lines = ["| cell | " + " | ".join(f"after {40 * k} ms" for k in moments) + " |", "|---|" + "---|" * len(moments)]
    for name, curve in curves.items():
        lines.append(f"| {name} | " + " | ".join(f"{curve[k]:.1e}" for k in moments) + " |")
    return [*lines, "", "![gradients through time, and over training](gradients.png)"]


def draw(curves: dict[str, NDArray[np.float64]], work: Path) -> None:
    """Left: through time. Right: over training, before clipping."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="tight")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        left.plot(np.arange(len(curve)) * 40, curve, label=name, linestyle="--" if "," in name else "-")
    left.set(xlabel="ms back", ylabel="what is left of the gradient", yscale="log", ylim=(1e-9, 1e6))
    left.legend(fontsize=7)
    for name in CELLS:
        rows = [json.loads(line) for line in (work / name / "log.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "norm" in row]
        right.plot([row["step"] for row in rows], [row["norm"] for row in rows], label=name, linewidth=0.8)
    right.axhline(1.0, color="grey", linewidth=0.8)
    right.set(xlabel="step", ylabel="norm of the gradient before clipping at 1", yscale="log")
    right.legend(fontsize=7)
    figure.savefig(HERE / "gradients.png", dpi=100)


if __name__ == "__main__":
    run(main)
