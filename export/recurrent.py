"""A checkpoint of recipes.lm.train -> a graph for the run time: python -m export.recurrent CHECKPOINT LM OUT

Matrices are stored as 8-bit rows with a scale for each; ONNX Runtime makes them floats when it loads them. The graph
is written only if it agrees with torch. `python -m export.words` puts it into a bundle.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.graph import OPSET
from export.program import run
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.recurrent import ASKED, LOG_PROBS, NEW, ROWS, WORD, WORDS, Recurrent, fingerprint, read_states
from streamasr.errors import StreamasrError
from streamasr.nn.word_model import WordModel, WordModelConfig
from streamasr.training.checkpoint import load_checkpoint

LARGEST = 127
SMALL = 1024  # vectors of fewer values stay fp32
TOLERANCE = 1e-4


class _Step(nn.Module):
    """One word each, and the log-probabilities, in some of the rows, of those that are asked for to come next."""

    def __init__(self, model: WordModel) -> None:
        super().__init__()
        self.model = model
        self.names = [spec.name for spec in model.state_specs()]

    def forward(self, word: Tensor, rows: Tensor, asked: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        y, new = model.hidden(model.token[word][:, None], dict(zip(self.names, state, strict=True)))
        log_probs = model.following(y[:, 0][rows])
        return (log_probs[:, model.token[asked]] + model.share[asked], *(new[name] for name in self.names))


def load_word_model(path: Path, words: tuple[str, ...]) -> WordModel:
    """The model of a checkpoint, which must have learned these words in this order."""
    checkpoint = load_checkpoint(path)
    if checkpoint.get("vocabulary") != fingerprint(words):
        raise StreamasrError(f"{path}: learned other words; name the n-gram model that it was trained with")
    try:
        model = WordModel(WordModelConfig(**checkpoint["model_config"]))
        model.load_state_dict(checkpoint["model"])
    except (TypeError, RuntimeError) as error:
        raise StreamasrError(f"{path}: not of a recurrent language model: {error}".splitlines()[0]) from error
    return model.eval()


def read_word_model(path: Path, words: tuple[str, ...]) -> WordModel:
    """The model of a graph that `write_recurrent` wrote for these words, its weights as the graph stores them."""
    states = read_states(path)
    Recurrent(path, states, words)  # BundleError: it is of other words
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    weights = {}
    for name in (name.removesuffix(".small") for name in stored if name.startswith("model.")):
        if not name.endswith(".scale"):
            values = stored[name] if name in stored else stored[f"{name}.small"]
            values = values * stored.get(f"{name}.scale", 1).astype(np.float32) if values.dtype == np.int8 else values
            weights[name.removeprefix("model.")] = torch.from_numpy(values.astype(np.float32))
    tokens, embedding = weights["embedding.weight"].shape
    config = WordModelConfig(len(words) + 2, tokens, embedding, int(states[0].shape[-1]))
    model = WordModel(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise StreamasrError(
            f"{path}: stores its weights otherwise than this version would; export it again"
        ) from error
    return model.eval()


def rows_of_8_bits(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(rows, columns) -> integers, and (rows, 1) what they are multiplied by."""
    scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-9) / np.float32(LARGEST)
    return np.rint(values / scale).astype(np.int8), scale.astype(np.float32)


def round_weights(model: WordModel) -> None:
    """In place, to what the graph stores: 8-bit rows, long vectors as fp16."""
    with torch.no_grad():
        for values in (*model.parameters(), model.share):
            if values.ndim == 2:
                rows, scale = rows_of_8_bits(values.numpy())
                values.copy_(torch.from_numpy(rows * scale))
            elif values.numel() >= SMALL:
                values.copy_(values.half().float())


def write_recurrent(model: WordModel, words: tuple[str, ...], path: Path) -> None:
    """Write the graph for a numbering of words. `model` is rounded to what the graph stores."""
    if model.config.numbers != len(words) + 2:
        raise StreamasrError(
            f"the model knows {model.config.numbers - 2:,} words, the n-gram model {len(words):,}; name the one "
            "that it was trained with"
        )
    round_weights(model)
    step = _Step(model).eval()
    state = tuple(model.zero_state(2)[name] for name in step.names)
    word = torch.zeros(2, dtype=torch.int64)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs = [LOG_PROBS, *(NEW + name for name in step.names)]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracing exporter is deprecated; the other one loses the GRU's form
            torch.onnx.export(
                step,
                (word, word[:1], word[:1], *state),
                str(part),
                input_names=[WORD, ROWS, ASKED, *step.names],
                output_names=outputs,
                dynamic_axes={
                    **{name: {0: "N"} for name in [WORD, *step.names, *outputs]},
                    ROWS: {0: "R"},
                    ASKED: {0: "M"},
                    LOG_PROBS: {0: "R", 1: "M"},
                },
                opset_version=OPSET,
                do_constant_folding=False,  # so that matrices keep their names and rows
                dynamo=False,
            )
        graph = onnx.load(part)
        for node in graph.graph.node:
            if node.op_type == "GRU":
                attributes = {a.name: a.i for a in node.attribute}
                assert attributes.get("linear_before_reset") == 1, "the exporter lost linear_before_reset"
        _store_small(graph.graph)
        helper.set_model_props(graph, {WORDS: fingerprint(words)})
        onnx.checker.check_model(graph)
        onnx.save(graph, part)
        if not (off := difference(model, part, words)) <= TOLERANCE:
            raise StreamasrError(f"the graph differs from torch by {off:.1e}, more than {TOLERANCE:.0e}: not written")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _store_small(graph: onnx.GraphProto) -> None:
    """8-bit rows, fp16 vectors, 16-bit numbers, each made what it was by nodes at the beginning."""
    before: list[onnx.NodeProto] = []
    for place, tensor in enumerate(list(graph.initializer)):
        name, values = tensor.name, numpy_helper.to_array(tensor)
        small: NDArray[np.generic] | None = None
        if values.ndim == 2 and values.dtype == np.float32 and values.size >= SMALL:
            small, scale = rows_of_8_bits(values)
            assert np.array_equal(small * scale, values), f"{name}: was not rounded to 8-bit rows"
            graph.initializer.append(numpy_helper.from_array(scale, name + ".scale"))
            before.append(helper.make_node("Cast", [name + ".small"], [name + ".rows"], to=TensorProto.FLOAT))
            before.append(helper.make_node("Mul", [name + ".rows", name + ".scale"], [name]))
        elif values.ndim == 1 and values.dtype == np.float32 and values.size >= SMALL:
            small = values.astype(np.float16)
            before.append(helper.make_node("Cast", [name + ".small"], [name], to=TensorProto.FLOAT))
        elif values.dtype == np.int64 and values.size >= SMALL:
            small = values.astype(np.uint16)
            assert np.array_equal(small, values), f"{name}: does not fit 16 bits"
            before.append(helper.make_node("Cast", [name + ".small"], [name], to=TensorProto.INT64))
        if small is not None:
            graph.initializer[place].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(small), name + ".small"))
    for node in reversed(before):
        graph.node.insert(0, node)


def difference(model: WordModel, path: Path, words: tuple[str, ...]) -> float:
    """Largest absolute difference of the graph's log-probabilities from torch's, over random sentences."""
    rng = np.random.default_rng(0)
    sentences = [rng.integers(0, len(words), length).tolist() for length in (0, 1, 5, 20, 20)]
    found = Recurrent(path, model.state_specs(), words).score(sentences)
    return max(
        float(np.abs(scores - torch_scores(model, sentence)).max())
        for scores, sentence in zip(found, sentences, strict=True)
    )


@torch.no_grad()
def torch_scores(model: WordModel, sentence: list[int]) -> NDArray[np.float32]:
    """What Recurrent.score gives for one sentence, computed by torch in one go."""
    end = model.config.numbers - 2
    x, target = torch.tensor([end + 1, *sentence]), torch.tensor([*sentence, end])
    y, _ = model.step(model.token[x][None], model.zero_state(1))
    log_probs: NDArray[np.float32] = (y[0].gather(1, model.token[target][:, None])[:, 0] + model.share[target]).numpy()
    return log_probs


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.recurrent", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("lm", type=Path, metavar="LM", help="the n-gram model that it was trained with")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    words = Ngram.open(arguments.lm).words
    model = load_word_model(arguments.checkpoint, words)
    write_recurrent(model, words, arguments.out)
    print(
        f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB, differs from torch by "
        f"{difference(model, arguments.out, words):.1e} at most"
    )


if __name__ == "__main__":
    run(main, "export")
