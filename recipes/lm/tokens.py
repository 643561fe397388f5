"""What the recurrent model reads: frequent words are tokens of their own, rare ones share that of their ending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.lm.text import Ids, Vocabulary

LONGEST_ENDING = 3  # letters
ENDING_OF = 60  # rare words at least share an ending, or it is shortened
LONGEST = 64  # words of a sentence that are read

Tokens = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tokenising:
    """Tokens are ordered: the more frequent, the lower. Arrays over word numbers, </s> and <s> among them."""

    token: Tokens
    share: Floats  # log-probability of the word where its token is known
    frequency: NDArray[np.float64]  # (tokens,) of each, of all words

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self.frequency)


def tokenise(vocabulary: Vocabulary, counts: NDArray[np.float64], frequent: int) -> Tokenising:
    """counts: (words + 2,) how often each was seen. <unk>, <s> and </s> are tokens of their own too."""
    words, special = vocabulary.words, (0, vocabulary.end, vocabulary.start)
    seen = counts.copy()
    seen[list(special)] = np.inf
    own = set(np.argsort(-seen, kind="stable")[: frequent + len(special)].tolist())
    rare = [number for number in range(len(words)) if number not in own]
    endings = _endings([words[number] for number in rare])
    group_of = {number: f"word {number}" for number in own} | dict(zip(rare, endings, strict=True))
    groups: Counter[str] = Counter()
    counts = counts + 1.0  # every word may come
    counts[vocabulary.start] = 0.0  # this one never comes: it goes before
    for number, group in group_of.items():
        groups[group] += counts[number]
    ranked = [group for group, _ in groups.most_common()]
    place = {group: i for i, group in enumerate(ranked)}
    token = np.array([place[group_of[number]] for number in range(len(words) + 2)], dtype=np.int64)
    total = np.array([groups[group] for group in ranked])
    share = np.log(np.maximum(counts, 1.0) / np.maximum(total[token], 1.0))
    return Tokenising(token, share.astype(np.float32), total / total.sum())


def _endings(words: Sequence[str]) -> list[str]:
    """The longest ending of each word that is common enough; "-" for the few that have none."""
    left, found = dict(enumerate(words)), [""] * len(words)
    for length in range(LONGEST_ENDING, -1, -1):
        of = {i: "-" + word[len(word) - length :] for i, word in left.items() if len(word) >= length}
        common = Counter(of.values())
        for i, ending in of.items():
            if length == 0 or common[ending] >= ENDING_OF:
                found[i] = ending
                del left[i]
    return found


@dataclass
class Corpus:
    """Sentences as tokens, in an order of their own; `place` is the next one."""

    tokens: Tokens
    first: Tokens  # of each sentence: where its <s> stands
    length: Tokens  # of what is to be foretold: its words and </s>
    place: int = 0

    @classmethod
    def of(cls, stream: Ids, vocabulary: Vocabulary, tokenising: Tokenising, seed: int) -> Corpus:
        """From the numbers of sentences one after the other."""
        first = np.flatnonzero(stream == vocabulary.start)
        length = np.diff(np.append(first, len(stream))) - 1
        order = np.random.default_rng(seed).permutation(len(first))
        return cls(tokenising.token[stream], first[order], np.minimum(length[order], LONGEST))

    def take(self, words: int) -> list[Tokens]:
        """The next sentences, of so many words in all; from the beginning again after the last."""
        taken: list[Tokens] = []
        while words > 0:
            first, length = int(self.first[self.place]), int(self.length[self.place])
            taken.append(self.tokens[first : first + length + 1])
            words -= length
            self.place = (self.place + 1) % len(self.first)
        return taken


def batches(sentences: list[Tokens], words: int, rng: np.random.Generator) -> Iterator[tuple[Tokens, Tokens]]:
    """Sentences of a length together, about so many words: (N, T) tokens, (N, T) those that come next or -1."""
    sentences = sorted(sentences, key=len)
    cuts, held = [0], 0
    for i, sentence in enumerate(sentences, 1):
        held += len(sentence) - 1
        if held >= words or i == len(sentences):
            cuts.append(i)
            held = 0
    for k in rng.permutation(len(cuts) - 1):
        rows = sentences[cuts[k] : cuts[k + 1]]
        whole = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int64)
        for row, sentence in zip(whole, rows, strict=True):
            row[: len(sentence)] = sentence
        yield np.maximum(whole[:, :-1], 0), whole[:, 1:]
