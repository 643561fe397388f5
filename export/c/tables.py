"""A network as tables of C: sizes.h, which the engine's arrays take their lengths from, and model.c."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from export.c.graph import Affine, Ahead, Array, Conv, Gru, Network, Norm, Rule, Stage, rules_in_frames
from streamasr.bundle import Bundle

LINE = 118
TYPES = {"f4": "float", "f8": "double", "i1": "int8_t", "i4": "int32_t"}


def sizes_h(bundle: Bundle, network: Network) -> str:
    """Every length that the engine needs when it is compiled."""
    graph, features = network.graph, bundle.features
    (head, tokens), timing = bundle.head("letters"), bundle.tuning["greedy"].timing
    rules = rules_in_frames(bundle, graph)
    longest = 1 + min(rule.frames for rule in rules if not rule.quiet)  # frames that an utterance may have
    values, sums = _room(bundle, network)
    sizes = {
        "SAMPLE_RATE": (bundle.sample_rate, "Hz; lengths in samples:"),
        "BLOCK": (graph.block, "of one step"),
        "STRIDE": (graph.stride, "of one frame of the output"),
        "FLUSH": (graph.flush, "zeros after the end"),
        "TIMING_START": (timing.start, "from a word's first spike to its start"),
        "TIMING_END": (timing.end, "from the end of its last spike to its end"),
        "WINDOW": (features.window, ""),
        "HOP": (features.hop, ""),
        "N_FFT": (features.n_fft, ""),
        "MELS": (features.mels, "bands"),
        "FRAMES": (graph.block // graph.stride, "of one block"),
        "DELAY": (graph.delay, "frames by which the output lags"),
        "TOKENS": (len(tokens), "of the head of letters"),
        "HEAD": (head.start, "its first token's place among the"),
        "OUTPUTS": (sum(len(h.tokens) for h in bundle.heads), "tokens of all heads, which only the ONNX graph gives"),
        "SPACE": (tokens.index(" "), "the token that ends a word"),
        "RULES": (len(rules), "for the end of an utterance"),
        "STAGES": (len(network.stages), "between features and head"),
        "STATE": (network.state, "floats"),
        "VALUES": (values, "that any stage takes or gives, its past included"),
        "SUMS": (sums, "that any product gives"),
        "TEXT": (longest * max(len(token.encode()) for token in tokens[1:]) + 1, "bytes of the longest utterance"),
        "WORDS": ((longest + 1) // 2, "of the longest utterance"),
    }
    lines = [
        f"#define MODEL_{name} {f'({value})' if value < 0 else value}" + (f" /* {what} */" if what else "")
        for name, (value, what) in sizes.items()
    ]
    return "\n".join(
        [_title(bundle), "#ifndef STREAMASR_SIZES_H", "#define STREAMASR_SIZES_H", "", *lines, "", "#endif", ""]
    )


def _room(bundle: Bundle, network: Network) -> tuple[int, int]:
    """The most values that go into or come out of a stage for one block, and the most outputs of a product."""
    features, block = bundle.features, network.graph.block
    frames = block // features.hop
    values, sums = [features.window - features.hop + block, frames * features.mels], []
    for stage in network.stages:
        match stage.layer:
            case Conv(inputs, kernel, stride, affine):
                values.append((kernel - stride + frames) * inputs)
                frames //= stride
                values.append(frames * len(affine.bias))
                sums.append(frames * len(affine.bias))
            case Gru(_, affine, _):
                values.append(frames * affine.weight.shape[1])
                sums.append(frames * len(affine.bias))
            case Ahead(taps):
                values.append((len(taps) - 1 + frames) * taps.shape[1])
    return max(values), max(*sums, frames * len(network.head.bias))


def model_c(bundle: Bundle, network: Network) -> Iterator[str]:
    """The tables, piece by piece."""
    angles = 2.0 * np.pi * np.arange(bundle.features.n_fft) / bundle.features.n_fft
    yield f'{_title(bundle)}\n#include "model.h"\n'
    yield _array("model_window", network.window, "MODEL_WINDOW", static=False)
    yield _array("model_cosine", np.cos(angles), "MODEL_N_FFT", static=False)
    yield _array("model_sine", np.sin(angles), "MODEL_N_FFT", static=False)
    yield from _mels(network.filters)
    yield f"const double model_floor = {bundle.features.floor!r};\n"
    yield _array("model_mean", network.mean, "MODEL_MELS", static=False)
    yield _array("model_scale", network.scale, "MODEL_MELS", static=False)
    for stage in network.stages:
        yield from _layer(stage)
    rows = [f"{{.{type(s.layer).__name__.lower()} = &{s.name}, .state = {s.state}}}" for s in network.stages]
    yield _table("struct stage", "model_stages[MODEL_STAGES]", rows)
    yield from _norm("heads", network.head_norm)
    yield f"const struct norm model_head_norm = {_norm_fields('heads', network.head_norm)};\n"
    yield from _affine("heads", network.head)
    yield f"const struct affine model_head = {_affine_fields('heads', network.head)};\n"
    yield from _decoder(bundle, rules_in_frames(bundle, network.graph))


def _decoder(bundle: Bundle, rules: Iterable[Rule]) -> Iterator[str]:
    tuning = bundle.tuning["greedy"]
    weights = tuning.confidence
    yield _table("char *const", "model_tokens[MODEL_TOKENS]", map(_string, bundle.head("letters")[1]))
    yield _table("struct rule", "model_rules[MODEL_RULES]", [f"{{{rule.quiet}, {rule.frames}}}" for rule in rules])
    fields = (weights.bias, weights.mean_log_prob, weights.min_log_prob, weights.tokens)
    yield f"const struct confidence model_confidence = {{{', '.join(map(repr, fields))}}};\n"
    yield f"const double model_silence = {tuning.silence!r};\n"


def _mels(filters: Array) -> Iterator[str]:
    """Of each filter only the bins that are not 0."""
    rows, weights, start = [], [], 0
    for column in filters.T:
        bins = np.flatnonzero(column)
        first, last = (int(bins[0]), int(bins[-1]) + 1) if len(bins) else (0, 0)
        rows.append(f"{{{first}, {last - first}, mel_weights + {start}}}")
        weights.append(column[first:last])
        start += last - first
    yield _array("mel_weights", np.concatenate(weights))
    yield _table("struct mel", "model_mels[MODEL_MELS]", rows)


def _layer(stage: Stage) -> Iterator[str]:
    name = stage.name
    match stage.layer:
        case Conv(inputs, kernel, stride, affine):
            yield from _affine(name, affine)
            fields = _affine_fields(name, affine)
            yield f"static const struct conv {name} = {{{inputs}, {kernel}, {stride},\n    {fields}}};\n"
        case Gru(norm, from_input, from_hidden):
            yield from _norm(name, norm)
            yield from _affine(name + "_input", from_input)
            yield from _affine(name + "_hidden", from_hidden)
            products = {name + "_input": from_input, name + "_hidden": from_hidden}
            rows = [_affine_fields(product, affine) for product, affine in products.items()]
            yield _table("struct gru", name, [_norm_fields(name, norm), *rows], static=True)
        case Ahead(taps):
            yield _array(name + "_taps", taps.ravel())
            yield f"static const struct ahead {name} = {{{taps.shape[1]}, {len(taps) - 1}, {name}_taps}};\n"


def _norm(name: str, norm: Norm) -> Iterator[str]:
    yield _array(name + "_norm_weight", norm.weight)
    yield _array(name + "_norm_bias", norm.bias)


def _norm_fields(name: str, norm: Norm) -> str:
    return f"{{{name}_norm_weight, {name}_norm_bias, {_float(norm.epsilon)}}}"


def _affine(name: str, affine: Affine) -> Iterator[str]:
    yield _array(name + "_weight", affine.weight.ravel())
    yield _array(name + "_offset", affine.zero * affine.weight.astype(np.int32).sum(axis=1, dtype=np.int32))
    yield _array(name + "_scale", affine.scale)
    yield _array(name + "_bias", affine.bias)


def _affine_fields(name: str, affine: Affine) -> str:
    outputs, inputs = affine.weight.shape
    arrays = ", ".join(f"{name}_{what}" for what in ("weight", "offset", "scale", "bias"))
    return f"{{{inputs}, {outputs}, {arrays}, {_float(affine.step)}, {affine.zero}}}"


def _array(name: str, values: Array, length: str = "", static: bool = True) -> str:
    """One dimension of float, double, int8 or int32."""
    kind = TYPES[values.dtype.str[1:]]
    texts = map(_float, values) if kind == "float" else map(repr, values.tolist())
    return _filled(f"{'static ' if static else ''}const {kind} {name}[{length or len(values)}]", texts)


def _filled(head: str, texts: Iterable[str]) -> str:
    """A list of values over many lines."""
    lines, line = [head + " = {"], ""
    for text in texts:
        if len(line) + len(text) + 1 > LINE:
            lines.append(line)
            line = ""
        line += text + ","
    return "\n".join([*lines, line, "};", ""])


def _table(kind: str, name: str, rows: Iterable[str], static: bool = False) -> str:
    """One row a line."""
    return f"{'static ' if static else ''}const {kind} {name} = {{\n    " + ",\n    ".join(rows) + "};\n"


def _float(value: float) -> str:
    """The shortest text that is read back as the same float32."""
    text = str(np.float32(value))
    return (text if "." in text or "e" in text else text + ".0") + "f"


def _string(token: str) -> str:
    """A token as a C string; bytes that are not plain ASCII in octal, which ends after three digits."""
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in token.encode())
    return '"' + "".join(plain) + '"'


def _title(bundle: Bundle) -> str:
    return f"/* The model '{bundle.name}', version {bundle.version}, as written by python -m export.c */"
