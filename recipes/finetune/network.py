"""What may be changed about a network before it learns again: which stages stay, which letters it writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from streamasr.errors import StreamasrError
from streamasr.nn.acoustic_model import AcousticModel

LETTERS = "letters"
PLACE = f"body.stages.heads.linear.{LETTERS}"


def freeze(model: AcousticModel, names: Iterable[str]) -> None:
    """The stages called so do not learn. StreamasrError names those there are."""
    stages = model.body.stages
    frozen = set(names)
    if unknown := sorted(frozen - set(stages)):
        raise StreamasrError(f"--freeze {' '.join(unknown)}: no such stage; choose from {' '.join(stages)}")
    if frozen == set(stages):
        raise StreamasrError("--freeze: nothing is left that could learn; leave a stage out")
    for name in frozen:
        stages[name].requires_grad_(False)


def with_alphabet(model: AcousticModel, letters: Iterable[str]) -> AcousticModel:
    """The model with another head of letters: the space and `letters`, each once. Those it knows keep their weights."""
    old = model.config.heads[LETTERS]
    tokens = [old[0], " ", *dict.fromkeys(letter for letter in letters if letter != " ")]
    made = AcousticModel(replace(model.config, heads={**model.config.heads, LETTERS: tokens}))
    shared = {name: value for name, value in model.state_dict().items() if PLACE not in name}
    made.load_state_dict(shared, strict=False)
    source, target = _letters(model), _letters(made)
    kept = [(i, old.index(token)) for i, token in enumerate(tokens) if token in old]
    new, before = (list(places) for places in zip(*kept, strict=True))
    with torch.no_grad():
        target.bias.fill_(source.bias[before].mean())  # a fresh letter is no likelier than the others
        target.weight[new] = source.weight[before]
        target.bias[new] = source.bias[before]
    return made


def mix(model: AcousticModel, before: Mapping[str, Tensor], share: float, *, fresh: bool) -> None:
    """Average the weights with those `before`, which get `share` (Wortsman et al. 2022, arXiv 2109.01903).

    On the straight line between the two, what was known comes back sooner than what was learned goes.
    fresh: the letters had no weights worth keeping.
    """
    with torch.no_grad():
        for name, value in model.named_parameters():  # each once; in a state dictionary, some are twice
            if not (fresh and name.startswith(PLACE)):
                value.lerp_(before[name], share)


def _letters(model: AcousticModel) -> nn.Linear:
    head = model.get_submodule(PLACE)
    assert isinstance(head, nn.Linear)
    return head
