"""Which phones go with which letter: expectation maximisation over all ways to share them out.

Every letter takes 0, 1 or 2 phones, in order. Words of as many letters and as many phones are
computed together. A word's segmentations all have as many units as it has letters, so the
probability of phones given the letter does the work of the joint one of Bisani and Ney (2008).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.g2p import ALPHABET
from streamasr.training.lexicon import PHONES

N_PHONES = len(PHONES)
CODES = 1 + N_PHONES + N_PHONES**2  # what one letter may stand for: nothing, a phone, two phones
ROUNDS = 8  # the alignment hardly moves after five
MIN_COUNT = 3.0  # units seen less often are slips of the dictionary or of the alignment; 12 is worse on dev

Table = NDArray[np.float64]  # (letters of ALPHABET, CODES): probability of the phones given the letter
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Pronunciations of as many letters and as many phones."""

    letters: Integers  # (entries, letters)
    phones: Integers  # (entries, phones)
    index: Integers  # (entries,): places in the list they were given in

    def emissions(self, table: Table, position: int) -> tuple[Table, ...]:
        """Probability that a letter takes no phone (entries, 1), each one (entries, p), each two (entries, p - 1)."""
        letter = self.letters[:, position, None]
        return table[letter, 0], table[letter, 1 + self.phones], table[letter, self.pairs]

    @property
    def pairs(self) -> Integers:
        """Codes of two neighbouring phones (entries, p - 1)."""
        return 1 + N_PHONES + self.phones[:, :-1] * N_PHONES + self.phones[:, 1:]


def group(entries: Iterable[tuple[str, list[str]]]) -> list[Group]:
    """Entries by their two lengths; those with more than two phones a letter, or other letters, are left out."""
    rows: dict[tuple[int, int], list[tuple[int, str, list[str]]]] = {}
    for index, (word, phones) in enumerate(entries):
        if 0 < len(phones) <= 2 * len(word) and set(word) <= set(ALPHABET):
            rows.setdefault((len(word), len(phones)), []).append((index, word, phones))
    place = {phone: i for i, phone in enumerate(PHONES)}
    return [
        Group(
            letters=np.array([[ALPHABET.index(letter) for letter in word] for _, word, _ in row]),
            phones=np.array([[place[phone] for phone in phones] for _, _, phones in row]),
            index=np.array([index for index, _, _ in row]),
        )
        for _, row in sorted(rows.items())
    ]


def estimate(groups: list[Group]) -> Table:
    """Probabilities of the phones given the letter; rare units end with none."""
    table = np.empty((len(ALPHABET), CODES))
    table[:, 0], table[:, 1 : 1 + N_PHONES], table[:, 1 + N_PHONES :] = 0.2, 0.7 / N_PHONES, 0.1 / N_PHONES**2
    for round_ in range(ROUNDS):
        counts = sum((expect(one, table) for one in groups), np.zeros_like(table))
        if round_ >= ROUNDS - 3:
            rare = counts < np.minimum(MIN_COUNT, 0.5 * counts.max(axis=1, keepdims=True))
            counts[rare] = 0.0  # the best of a rare letter stays
        table = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-300)
    return table


def expect(group: Group, table: Table) -> Table:
    """Expected number of each unit (letters, CODES): forward and backward over the letters."""
    (entries, length), width = group.letters.shape, group.phones.shape[1] + 1
    scores = [group.emissions(table, i) for i in range(length)]
    forward = np.zeros((length + 1, entries, width))
    forward[0, :, 0] = 1.0
    for i, (none, one, two) in enumerate(scores):
        forward[i + 1] = forward[i] * none
        forward[i + 1, :, 1:] += forward[i, :, :-1] * one
        forward[i + 1, :, 2:] += forward[i, :, :-2] * two
    total = forward[-1, :, -1]
    backward = np.zeros((entries, width))
    backward[total > 0.0, -1] = 1.0 / total[total > 0.0]
    counts = np.zeros(table.size)
    for i in reversed(range(length)):
        (none, one, two), letter = scores[i], group.letters[:, i, None] * CODES
        shares = (
            (letter, (forward[i] * none * backward).sum(axis=1, keepdims=True)),
            (letter + 1 + group.phones, forward[i, :, :-1] * one * backward[:, 1:]),
            (letter + group.pairs, forward[i, :, :-2] * two * backward[:, 2:]),
        )
        for codes, share in shares:
            counts += np.bincount(codes.ravel(), share.ravel(), minlength=table.size)
        before = backward * none
        before[:, :-1] += one * backward[:, 1:]
        before[:, :-2] += two * backward[:, 2:]
        backward = before
    return counts.reshape(table.shape)


def best(group: Group, table: Table) -> list[tuple[int, list[int]]]:
    """Place of an entry and its likeliest units (letter * CODES + code); none for entries that have no alignment."""
    (entries, length), width = group.letters.shape, group.phones.shape[1] + 1
    with np.errstate(divide="ignore"):
        logs = np.log(table)
    score = np.full((entries, width), -np.inf)
    score[:, 0] = 0.0
    taken = np.zeros((length, entries, width), dtype=np.int64)
    for i in range(length):
        none, one, two = group.emissions(logs, i)
        choices = np.full((3, entries, width), -np.inf)
        choices[0] = score + none
        choices[1, :, 1:] = score[:, :-1] + one
        choices[2, :, 2:] = score[:, :-2] + two
        taken[i], score = choices.argmax(axis=0), choices.max(axis=0)
    units = np.zeros((entries, length), dtype=np.int64)
    row, at = np.arange(entries), np.full(entries, width - 1)
    padded = np.pad(group.phones, ((0, 0), (0, 2)))
    for i in reversed(range(length)):
        many = taken[i, row, at]
        at = at - many
        first, second = padded[row, at], padded[row, at + 1]
        codes = np.choose(many, (np.zeros_like(first), 1 + first, 1 + N_PHONES + first * N_PHONES + second))
        units[:, i] = group.letters[:, i] * CODES + codes
    return [(int(group.index[e]), units[e].tolist()) for e in range(entries) if np.isfinite(score[e, -1])]


def align(entries: list[tuple[str, list[str]]]) -> list[list[int]]:
    """Each entry that has an alignment as its units, letter * CODES + code, in the order given."""
    groups = group(entries)
    table = estimate(groups)
    return [units for _, units in sorted(pair for one in groups for pair in best(one, table))]
