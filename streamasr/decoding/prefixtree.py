"""Words as sequences of a head's tokens, laid into one tree, so that words that begin alike are searched once."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding.spellings import Spellings

ROOT = 0
BITS = np.uint64(1) << np.arange(64, dtype=np.uint64)
Ints = NDArray[np.int64]


class PrefixTree:
    """Read-only arrays, nodes numbered breadth first, so that a node's children stand side by side, by token.

    words_at[words_from[n] : words_from[n + 1]] are the words that end at node n; best[n] is the largest of
    `worth` among the words at or below it (what a search that stands at n may still hope for).
    """

    def __init__(self, spellings: Spellings, worth: NDArray[np.float32]) -> None:
        """worth: (words,), what each word may be worth to a search."""
        table, lengths, words = spellings.table, spellings.lengths, spellings.words
        depth = table.shape[1]
        changes = np.ones((len(table), depth), dtype=bool)  # a row's prefix of d + 1 tokens is not the row's above
        changes[1:] = np.logical_or.accumulate(table[1:] != table[:-1], axis=1)
        parents, tokens = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.uint8)]
        above, count = np.zeros(len(table), dtype=np.int64), 1  # each row's node at the depth before
        end = np.zeros(len(table), dtype=np.int64)  # each row's last node
        for d in range(depth):
            begins = changes[:, d] & (lengths > d)
            parents.append(above[begins])
            tokens.append(table[begins, d])
            above = count - 1 + np.cumsum(begins)
            count += int(begins.sum())
            end = np.where(lengths == d + 1, above, end)
        parent, token = np.concatenate(parents), np.concatenate(tokens)
        self.token = token  # by which a node is entered
        self.roots: tuple[int, ...] = ()  # words begin there too
        self.loop = range(0)  # nodes where an unknown word is
        self._first = np.searchsorted(parent[1:], np.arange(count)) + 1  # a node's first child
        self._children = np.zeros(count, dtype=np.uint64)
        np.bitwise_or.at(self._children, parent[1:], BITS[token[1:]])
        by_node = np.argsort(end, kind="stable")
        self.words_at = words[by_node]
        self.words_from = np.searchsorted(end[by_node], np.arange(count + 1))
        self.best = np.full(count, -np.inf, dtype=np.float64)
        np.maximum.at(self.best, end, worth[words])
        start = count
        for level in reversed(parents[1:]):  # the deepest first
            np.maximum.at(self.best, level, self.best[start - len(level) : start])
            start -= len(level)

    def with_loop(self, tokens: Sequence[int], word: int, worth: float) -> PrefixTree:
        """This tree with nodes beside it for any sequence of these tokens; `word` ends at each of them."""
        spellings = Spellings.of([bytes([token]) for token in tokens], [0] * len(tokens))
        other = PrefixTree(spellings, np.array([worth], dtype=np.float32))
        other._first[:], other._children[:] = 1, other._children[ROOT]
        whole = self.joined(other, word)
        whole.loop = range(len(self), len(whole))
        return whole

    def in_loop(self, nodes: Ints) -> NDArray[np.bool_]:
        """(Q,) nodes -> which of them are of the loop."""
        inside: NDArray[np.bool_] = (nodes >= self.loop.start) & (nodes < self.loop.stop)
        return inside

    def joined(self, other: PrefixTree, first_word: int) -> PrefixTree:
        """This tree with another one beside it, whose words are numbered from `first_word` on."""
        whole, count = copy.copy(self), len(self)
        whole.roots = (*self.roots, count)
        whole.token = np.concatenate([self.token, other.token])
        whole._first = np.concatenate([self._first, other._first + count])
        whole._children = np.concatenate([self._children, other._children])
        whole.words_at = np.concatenate([self.words_at, other.words_at + np.int32(first_word)])
        whole.words_from = np.concatenate([self.words_from[:-1], other.words_from + len(self.words_at)])
        whole.best = np.concatenate([self.best, other.best])
        return whole

    def __len__(self) -> int:
        return len(self.token)

    def extend(self, nodes: Ints, tokens: Ints, among: NDArray[np.bool_] | None = None) -> tuple[Ints, Ints, Ints]:
        """(Q,) nodes, (K,) ascending tokens -> which of Q, which token, which child, for every child there is.

        among: (Q, K), the pairs that are asked for; None: all.
        """
        source = None
        if self.roots:  # whoever stands at one root stands at all
            at_root = np.flatnonzero(nodes == ROOT)
            source = np.concatenate([np.arange(len(nodes)), *(at_root for _ in self.roots)])
            nodes = np.concatenate([nodes, np.repeat(self.roots, len(at_root))])
        children = self._children[nodes]
        bits = BITS[tokens]
        there = (children[:, None] & bits) != 0
        if among is not None:
            there &= among if source is None else among[source]
        pairs = there.ravel().nonzero()[0]
        of = pairs // len(tokens)
        by = pairs - of * len(tokens)
        before = np.bitwise_count(children[of] & (bits - np.uint64(1))[by])
        child = self._first[nodes[of]] + before
        return (of if source is None else source[of]), tokens[by], child

    def words(self, nodes: Ints) -> tuple[Ints, NDArray[np.int32]]:
        """(Q,) nodes -> for every word that ends at one of them: which of the Q, which word."""
        start = self.words_from[nodes]
        count = self.words_from[nodes + 1] - start
        of = np.repeat(np.arange(len(nodes)), count)
        before = np.cumsum(count) - count  # words of the nodes before
        return of, self.words_at[np.arange(len(of)) + (start - before)[of]]
