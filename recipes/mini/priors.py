"""How rare each token is, into the search of a bundle: python -m recipes.mini.priors BUNDLE

Like every network that is trained to tell classes apart, one with CTC believes more in tokens that are frequent, before
it has heard anything; the language model then counts that once more. So the search takes a part of the logarithm of
each token's share of training speech off its log-probability, as hybrid recognisers do (Bourlard and Morgan 1994,
"Connectionist speech recognition"). The blank, most frequent of all, has a penalty of its own
(`BeamConfig.blank_penalty`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from streamasr.acoustic import Acoustic
from streamasr.bundle import Bundle, read_bundle, write_bundle
from streamasr.errors import BundleError
from streamasr.manifest import Utterance, read_manifest

WEIGHT = 0.3  # chosen on half of dev (RESULTS.md, "The search")
HEARD = 200  # utterances of training


def token_penalties(bundle: Bundle, head: str, utterances: Sequence[Utterance]) -> tuple[float, ...]:
    """Of each token but the blank: less for those that it believes in seldom. Over this speech their mean is 0."""
    acoustic, (where, tokens) = Acoustic(bundle), bundle.head(head)
    believed = np.zeros(len(tokens))
    for utterance in tqdm(utterances, "priors"):
        believed += np.exp(acoustic.whole(read_16k(utterance.audio))[:, where]).sum(axis=0)
    share = believed[1:] / believed[1:].sum()
    rarity = np.log(share)
    return tuple(round(float(penalty), 3) for penalty in WEIGHT * (rarity - share @ rarity))


def add_priors(folder: Path, train: Sequence[Utterance]) -> None:
    """Write them into a bundle that has words."""
    bundle = read_bundle(folder)
    if bundle.search is None:
        raise BundleError(f"{folder}: has no words to search for, expected a bundle with a language model")
    found = token_penalties(bundle, bundle.search.head, train[:: max(1, len(train) // HEARD)])
    beam = replace(bundle.search.beam, token_penalties=found)
    write_bundle(replace(bundle, search=replace(bundle.search, beam=beam)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    arguments = parser.parse_args()
    add_priors(arguments.bundle, read_manifest(arguments.shared / "speech" / "train.jsonl", LETTERS))


if __name__ == "__main__":
    run(main)
