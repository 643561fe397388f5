"""How wrong a model is: greedy CTC over a list of utterances, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import torch

from streamasr.manifest import Utterance
from streamasr.nn.acoustic_model import AcousticModel
from streamasr.training.data import AudioCache


@dataclass
class ErrorCount:
    """Edits and the length of the reference, added up over utterances."""

    edits: int = 0
    length: int = 0

    def add(self, reference: Sequence[str], hypothesis: Sequence[str]) -> None:
        """Token sequences; an empty reference counts every token of the hypothesis as an error."""
        self.length += len(reference)
        if not reference:
            self.edits += len(hypothesis)
            return
        # Tokens become words for the library, so that letters, phones and words count alike.
        found = jiwer.process_words(" ".join(map(_visible, reference)), " ".join(map(_visible, hypothesis)))
        self.edits += found.substitutions + found.deletions + found.insertions

    @property
    def rate(self) -> float:
        """Edits per token of the reference."""
        return self.edits / max(self.length, 1)


def _visible(token: str) -> str:
    return "_" if token == " " else token


def collapse(best: Sequence[int], blank: int = 0) -> list[int]:
    """The greedy CTC rule: repeats merge, blanks vanish."""
    return [token for token, before in zip(best, [blank, *best], strict=False) if token not in (before, blank)]


def greedy(model: AcousticModel, cache: AudioCache, batch: int = 16) -> list[dict[str, list[str]]]:
    """The best tokens of each head for every recording of the cache, in its order."""
    order = sorted(range(len(cache)), key=cache.seconds)
    results: list[dict[str, list[str]]] = [{} for _ in order]
    with torch.no_grad():
        for start in range(0, len(order), batch):
            members = order[start : start + batch]
            audio = [torch.from_numpy(cache[i]) for i in members]
            outputs = model.split_heads(model(torch.nn.utils.rnn.pad_sequence(audio, batch_first=True)))
            for row, i in enumerate(members):
                frames = model.frames(len(audio[row]))
                for head, tokens in model.config.heads.items():
                    best = outputs[head][row, :frames].argmax(dim=1).tolist()
                    results[i][head] = [tokens[k] for k in collapse(best)]
    return results


def errors(
    utterances: Sequence[Utterance],
    found: Sequence[dict[str, list[str]]],
    targets: Sequence[dict[str, list[str] | None]],
) -> dict[str, ErrorCount]:
    """Error of each head's tokens ("letters", "phones", ...) and of the words spelled by the letters."""
    counts: dict[str, ErrorCount] = {"words": ErrorCount()}
    for utterance, hypothesis, target in zip(utterances, found, targets, strict=True):
        for head, tokens in hypothesis.items():
            reference = target[head]
            if reference is not None:
                counts.setdefault(head, ErrorCount()).add(reference, tokens)
            if head == "letters":
                counts["words"].add(utterance.text.split(), "".join(tokens).split())
    return counts
