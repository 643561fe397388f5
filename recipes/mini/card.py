"""The model card beside a bundle, written from the bundle itself: python -m recipes.mini.card BUNDLE"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.program import run
from streamasr.bundle import read_bundle

TEMPLATE = """\
# {name}

A streaming model for English: 16 kHz mono audio to letters and phones, by a unidirectional GRU with CTC; phones to
words by a lexicon and {models}.
Made by `recipes/{recipe}`, version {version}; this card is written from `bundle.json` by `python -m recipes.mini.card`.

| | |
|---|---|
| network | {layers} layers of {width} {cell} units, look-ahead {ahead} frames, {frame_ms:.0f} ms a frame |
| algorithmic latency | {latency_ms:.0f} ms, blocks of {block_ms:.0f} ms included |
| size | {graphs}; words {words_mb:.1f} MB |
| used unless another is asked for | {default} |
| largest difference in log-probability | {parity} |

## Measured

With its words (`beam`) and as greedy letters without a language model (`greedy`), word and letter error rates:

| | % |
|---|---|
{measured}

More, with the commands: `recipes/{recipe}/RESULTS.md`.

## Made from

| source | licence | hours |
|---|---|---|
{sources}

The weights are released under the licence of streamasr; the attribution above must be kept.

## Limits

- Trained on a few hours of mostly read speech: spontaneous, noisy, far-field or strongly accented speech is recognised
  much worse than the figures above, which are for books read aloud.
- English only, lower case, no punctuation, numbers as words.
- Only the words of its lexicon, and hotwords, are found; another name comes out as words that sound like it, or with
  `--open-vocabulary` as letters that do.
- Not for decisions about people: it was not tested for equal quality across speakers.
"""


FROM = {"fp32": "torch", "int8": "fp32"}


def write_card(folder: Path, recipe: str = "mini") -> None:
    """Write README.md into the bundle's folder. recipe: the folder in recipes/ that made it."""
    bundle = read_bundle(folder)
    graph = bundle.graphs["fp32"]
    network = bundle.network
    again = " and a recurrent one" if bundle.search and bundle.search.rescoring else ""
    text = TEMPLATE.format(
        name=bundle.name,
        recipe=recipe,
        models="an n-gram language model" + again,
        version=bundle.version,
        layers=len(network["lookahead"]),
        width=network["width"],
        cell=network["cell"].upper(),
        ahead=" + ".join(str(frames) for frames in network["lookahead"]),
        frame_ms=1000 * graph.stride / bundle.sample_rate,
        block_ms=1000 * graph.block / bundle.sample_rate,
        latency_ms=1000 * graph.latency / bundle.sample_rate,
        graphs=", ".join(f"{g.file} {(folder / g.file).stat().st_size / 1e6:.1f} MB" for g in bundle.graphs.values()),
        default=bundle.default,
        words_mb=sum((folder / f).stat().st_size for f in bundle.search.sha256) / 1e6 if bundle.search else 0.0,
        parity=", ".join(f"{name} from {FROM[name]} {g.parity:.1g}" for name, g in bundle.graphs.items()),
        measured="\n".join(
            f"| {key.replace('_', ' ')} | {100 * value:.1f} |" for key, value in bundle.measured.items()
        ),
        sources="\n".join(f"| {s.name} | {s.licence} | {s.hours or ''} |" for s in bundle.sources),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--recipe", default="mini", help="the folder in recipes/ that made it (default mini)")
    arguments = parser.parse_args()
    write_card(arguments.bundle, arguments.recipe)


if __name__ == "__main__":
    run(main)
