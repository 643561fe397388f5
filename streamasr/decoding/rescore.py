"""The last word on an utterance's likeliest texts: a recurrent language model mixed with the n-gram's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import BeamConfig, Rescoring
from streamasr.decoding.links import Link
from streamasr.decoding.recurrent import Recurrent
from streamasr.decoding.vocabulary import LanguageModel


@dataclass(frozen=True)
class Ending:
    """A hypothesis of a beam, taken for a sentence that ends here."""

    place: int  # in the beam
    words: tuple[Link, ...]
    log_prob: float
    ngram_end: float  # what the n-gram model says of its end: part of log_prob, there weighted


@dataclass(frozen=True)
class Scores:
    """What two models make of a text: log-probabilities of its words, but those that all begin with, and of its end."""

    ngram: NDArray[np.float64]
    recurrent: NDArray[np.float64]

    def gain(self, beam: BeamConfig, config: Rescoring) -> float:
        """What the text's score changes by where the mixture takes the n-gram model's place."""
        mixed = mixture(self.ngram, self.recurrent, config.share)
        bonus = (config.word_bonus - beam.word_bonus) * (len(mixed) - 1)
        return config.lm_weight * float(mixed.sum()) - beam.lm_weight * float(self.ngram.sum()) + bonus


def mixture(ngram: NDArray[np.float64], recurrent: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Log of the probabilities' linear interpolation; `share` is the recurrent model's, above 0 and below 1."""
    return np.asarray(np.logaddexp(np.log1p(-share) + ngram, np.log(share) + recurrent))


@dataclass(frozen=True)
class Rescorer:
    """A recurrent model, and how it is weighed."""

    model: Recurrent
    config: Rescoring

    def order(self, endings: Sequence[Ending], lm: LanguageModel, beam: BeamConfig) -> list[tuple[int, float]]:
        """Their places and log-probabilities with the mixture of both models, the best first.

        What all begin with is left to the n-gram model: it cannot change the order.
        """
        scores = self.scores(endings, lm)
        found = [
            (ending.place, ending.log_prob + score.gain(beam, self.config))
            for ending, score in zip(endings, scores, strict=True)
        ]
        return sorted(found, key=lambda item: -item[1])

    def scores(self, endings: Sequence[Ending], lm: LanguageModel) -> list[Scores]:
        """What both models make of each, from the first word on that is not the same in all.

        A phrase of several words counts as one; where one of them is no word of the models, both say the same.
        """
        texts = [[word.text for word in ending.words] for ending in endings]
        alike = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False)))
        known = {text: [lm.number(part) for part in text.split()] for text in {*chain(*texts)}}
        numbers = [[known[text] for text in own] for own in texts]
        common = sum(map(len, numbers[0][:alike])) if numbers else 0
        found = self.model.score([[*chain(*own)] for own in numbers], common)
        result = []
        for ending, own, scores in zip(endings, numbers, found, strict=True):
            words = ending.words[alike:]
            ngram = np.array([*(w.lm_log_prob for w in words), ending.ngram_end], dtype=np.float64)
            recurrent, place = ngram.copy(), 0
            for i, word in enumerate(own[alike:]):
                if lm.unknown not in word:
                    recurrent[i] = scores[place : place + len(word)].sum(dtype=np.float64)
                place += len(word)
            recurrent[-1] = scores[-1]
            result.append(Scores(ngram, recurrent))
        return result
