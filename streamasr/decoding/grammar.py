"""A closed list of phrases as a language model: what an application can be told, and nothing else.

    # One phrase a line; an utterance is exactly one phrase.
    turn (on | off) the <lamp> [please]
    <lamp> = [kitchen | bed room] (light | lamp)

The phrases become one graph in which every word leads to one state, and states with the same future
are one. Where a phrase may go on in n ways, its end among them, each has the probability 1 / n.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamasr.errors import BundleError

MOST_STATES = 100_000  # of the graph
MOST_PLACES = 1_000_000  # in all phrases, with every rule written out where it is used
MOST_DEPTH = 20  # of brackets within each other, and of rules
MOST_CALLS = 300  # of one function within itself, for both of them together
PIECE = re.compile(r"\s+|<[^<>\s]*>|[()\[\]|=]|[^\s()\[\]|=<>]+|.")
CLOSING = {"(": ")", "[": "]"}
NO_WORD = ""

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Arcs = dict[str, int]  # word -> state


@dataclass(frozen=True)
class Way:
    """What can be said at one place: a word, a rule's name, or parts that are said in turn or one of them."""

    kind: str  # "word", "rule", "all", "one"
    text: str = ""
    parts: tuple[Way, ...] = ()
    where: str = ""  # file and line, for errors


class _Line:
    """Parses what stands right of `=`, or a whole phrase."""

    def __init__(self, pieces: Sequence[str], where: str) -> None:
        self._pieces, self._where, self._place = pieces, where, 0
        self._depth = 0  # of brackets that are open

    def parse(self) -> Way:
        way = self._choice()
        if self._place < len(self._pieces):
            raise self._error("a word, [, ( or <name>")
        return way

    def _choice(self) -> Way:
        ways = [self._sequence()]
        while self._peek() == "|":
            self._place += 1
            ways.append(self._sequence())
        return ways[0] if len(ways) == 1 else Way("one", parts=tuple(ways))

    def _sequence(self) -> Way:
        parts: list[Way] = []
        while (piece := self._peek()) and piece not in ("|", ")", "]", "="):
            self._place += 1
            if piece in CLOSING:
                self._depth += 1
                if self._depth > MOST_DEPTH:
                    raise self._error(f"at most {MOST_DEPTH} brackets within each other; give the inner ones a rule")
                inner = self._choice()
                self._depth -= 1
                if self._peek() != CLOSING[piece]:
                    raise self._error(f"{CLOSING[piece]} for the {piece} before it")
                self._place += 1
                parts.append(inner if piece == "(" else Way("one", parts=(inner, Way("all"))))
            elif piece in ("<", ">", "<>"):
                self._place -= 1
                raise self._error("a rule as <name>")
            else:
                parts.append(Way("rule" if piece[0] == "<" else "word", piece.lower(), where=self._where))
        if not parts:
            raise self._error("a word, [, ( or <name>")
        return parts[0] if len(parts) == 1 else Way("all", parts=tuple(parts))

    def _peek(self) -> str:
        return self._pieces[self._place] if self._place < len(self._pieces) else ""

    def _error(self, expected: str) -> BundleError:
        got = self._peek()
        after = " ".join(self._pieces[: self._place])
        return BundleError(
            f"{self._where}: got {repr(got) if got else 'the end of the line'}"
            f"{f' after {after!r}' if after else ''}, expected {expected}"
        )


@dataclass
class _Graph:
    """Places between words: arcs[i] are (word, next place), NO_WORD where nothing need be said."""

    arcs: list[list[tuple[str, int]]] = field(default_factory=list)

    def place(self, where: str) -> int:
        if len(self.arcs) >= MOST_PLACES:
            raise BundleError(f"{where}: the rules unfold into more than {MOST_PLACES:,} places; use fewer or shorter")
        self.arcs.append([])
        return len(self.arcs) - 1

    def add(
        self, way: Way, start: int, rules: dict[str, Way], within: tuple[str, ...], where: str, depth: int = 0
    ) -> int:
        """Everything that `way` can say from `start` on; where it ends."""
        if depth == MOST_CALLS:
            raise BundleError(f"{way.where or where}: brackets and rules lie too deep in each other; use fewer")
        if way.kind == "all":
            for part in way.parts:
                start = self.add(part, start, rules, within, where, depth + 1)
            return start
        if way.kind == "rule":
            if way.text not in rules:
                raise BundleError(f"{way.where}: got {way.text}, expected a rule that has a line '{way.text} = ...'")
            if way.text in within:
                chain = " -> ".join((*within, way.text))
                raise BundleError(f"{way.where}: got {chain}, expected rules that do not lead back to themselves")
            if len(within) == MOST_DEPTH:
                raise BundleError(f"{way.where}: got rules {MOST_DEPTH + 1} deep, expected at most {MOST_DEPTH}")
            return self.add(rules[way.text], start, rules, (*within, way.text), way.where, depth + 1)
        end = self.place(way.where or where)
        if way.kind == "word":
            self.arcs[start].append((way.text, end))
        for part in way.parts:
            self.arcs[self.add(part, start, rules, within, where, depth + 1)].append((NO_WORD, end))
        return end

    def reach(self, places: frozenset[int]) -> frozenset[int]:
        """Where one may stand without a further word."""
        found, left = set(places), list(places)
        while left:
            new = [to for word, to in self.arcs[left.pop()] if word == NO_WORD and to not in found]
            found.update(new)
            left += new
        return frozenset(found)


def _determined(graph: _Graph, start: int, final: int, where: str) -> tuple[list[Arcs], list[bool]]:
    """The graph of sets of places: arcs of each state, and whether a phrase may end there; state 0 is the start."""
    sets = [graph.reach(frozenset([start]))]
    numbers: dict[frozenset[int], int] = {sets[0]: 0}
    arcs: list[Arcs] = []
    for places in sets:  # grows
        following: dict[str, set[int]] = {}
        for place in places:
            for word, to in graph.arcs[place]:
                if word != NO_WORD:
                    following.setdefault(word, set()).add(to)
        arcs.append(made := {})
        for word in sorted(following):
            target = graph.reach(frozenset(following[word]))
            if numbers.setdefault(target, len(sets)) == len(sets):
                sets.append(target)
            made[word] = numbers[target]
        if len(sets) > MOST_STATES:
            raise BundleError(f"{where}: got more than {MOST_STATES:,} states, expected a simpler grammar")
    return arcs, [final in places for places in sets]


def _merged(arcs: list[Arcs], ends: list[bool]) -> tuple[list[Arcs], list[bool]]:
    """The same phrases; states of the same future are one."""
    order, seen, stack = [], {0}, [(0, iter(arcs[0].values()))]
    while stack:  # every state after all that follow it
        state, left = stack[-1]
        following = next((to for to in left if to not in seen), None)
        if following is None:
            order.append(state)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(arcs[following].values())))
    kept: dict[tuple[bool, tuple[tuple[str, int], ...]], int] = {}
    number: dict[int, int] = {}
    for state in order:
        future = ends[state], tuple((word, number[to]) for word, to in arcs[state].items())
        number[state] = kept.setdefault(future, len(kept))
    last = len(kept) - 1  # the start has the longest future: it comes last, and shall be 0
    made = sorted(((last - i, end, future) for (end, future), i in kept.items()), key=lambda row: row[0])
    return [{word: last - to for word, to in future} for _, _, future in made], [end for _, end, _ in made]


@dataclass(frozen=True, eq=False)
class Grammar:
    """A LanguageModel. States are numbers below `len(ends)`; word 0 is `<unk>`, which is nowhere allowed."""

    words: tuple[str, ...]
    unigram: Floats  # (words,) the best log-probability of each word, wherever it may be said
    keys: Ints  # (arcs,) state * len(words) + word, ascending
    following: Ints  # (arcs,) states
    each: Floats  # (states,) log-probability of each way to go on
    ends: NDArray[np.bool_]  # (states,) whether a phrase may end here
    start: int = 0
    unknown: int = 0

    @classmethod
    def open(cls, path: Path) -> Grammar:
        """Read a file of phrases; BundleError names the line that is wrong."""
        try:
            return cls.parse(path.read_text(encoding="utf-8-sig"), str(path))
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}; expected a grammar") from error
        except UnicodeDecodeError as error:
            raise BundleError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error

    @classmethod
    def parse(cls, text: str, name: str = "grammar") -> Grammar:
        """The same for a text; `name` stands in errors."""
        phrases, rules = _read(text, name)
        graph = _Graph()
        start, final = graph.place(name), graph.place(name)
        for rule, way in rules.items():  # what no phrase uses is to be right, too
            _Graph([[]]).add(way, 0, rules, (rule,), name)
        for where, way in phrases:
            begin = graph.place(where)
            end = graph.add(way, begin, rules, (), where)
            if end in graph.reach(frozenset([begin])):
                raise BundleError(f"{where}: got a phrase that may be empty, expected a word that is always said")
            graph.arcs[start].append((NO_WORD, begin))
            graph.arcs[end].append((NO_WORD, final))
        return cls._of(*_merged(*_determined(graph, start, final, name)))

    @classmethod
    def _of(cls, arcs: list[Arcs], ends: list[bool]) -> Grammar:
        words = ("<unk>", *sorted({word for out in arcs for word in out}))
        number = {word: i for i, word in enumerate(words)}
        each = -np.log([len(out) + end for out, end in zip(arcs, ends, strict=True)]).astype(np.float32)
        rows = [(s, number[word], to) for s, out in enumerate(arcs) for word, to in sorted(out.items())]
        states, spoken, following = np.array(rows, dtype=np.int64).T
        unigram = np.full(len(words), -np.inf, dtype=np.float32)
        np.maximum.at(unigram, spoken, each[states])
        return cls(words, unigram, states * len(words) + spoken, following, each, np.array(ends))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def checksum(self) -> int:
        """Equal for equal graphs."""
        arrays = (self.keys, self.following, self.ends.astype(np.uint8))
        return zlib.crc32(b"".join(array.tobytes() for array in arrays) + "\n".join(self.words).encode())

    def number(self, word: str) -> int:
        return self._numbers.get(word, self.unknown)

    def score(self, states: Ints, words: NDArray[np.int32]) -> tuple[Floats, Ints]:
        key = states * len(self.words) + words
        place = np.minimum(self.keys.searchsorted(key), len(self.keys) - 1)
        allowed = self.keys[place] == key
        score = np.where(allowed, self.each[states], np.float32(-np.inf)).astype(np.float32)
        return score, np.where(allowed, self.following[place], states)

    def end(self, states: Ints) -> Floats:
        log_probs: Floats = np.where(self.ends[states], self.each[states], np.float32(-np.inf)).astype(np.float32)
        return log_probs

    def accepts(self, phrase: str) -> bool:
        """Whether these words are one of the phrases."""
        state = np.array([self.start])
        for word in phrase.lower().split():
            score, state = self.score(state, np.array([self.number(word)], dtype=np.int32))
            if not np.isfinite(score[0]):
                return False
        return bool(self.ends[state[0]])


def _read(text: str, name: str) -> tuple[list[tuple[str, Way]], dict[str, Way]]:
    """The phrases, each with its line, and the rules."""
    phrases: list[tuple[str, Way]] = []
    rules: dict[str, Way] = {}
    for where, pieces in _lines(text, name):
        if len(pieces) > 1 and pieces[1] == "=" and pieces[0].startswith("<"):
            rule = pieces[0].lower()
            if rule in rules:
                raise BundleError(f"{where}: got {rule} again, expected one line for each rule; join them with |")
            rules[rule] = _Line(pieces[2:], where).parse()
        else:
            phrases.append((where, _Line(pieces, where).parse()))
    if not phrases:
        raise BundleError(f"{name}: got no phrase, expected at least one line that is no rule")
    return phrases, rules


def _lines(text: str, name: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if pieces := [piece for piece in PIECE.findall(line.partition("#")[0]) if not piece.isspace()]:
            yield f"{name}, line {number}", pieces
