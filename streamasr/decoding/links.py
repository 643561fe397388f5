"""The words of many hypotheses as linked lists that share their beginnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from streamasr.bundle import Evidence
from streamasr.decoding.hypothesis import HypothesisWord


@dataclass(
    slots=True, eq=False
)  # a frozen one takes three times as long to make, and a second of speech makes hundreds
class Link:
    """A word of a hypothesis and the words before it. Never changed."""

    before: Link | None
    text: str
    first_frame: int
    last_frame: int
    sums: tuple[float, ...]  # of its tokens' log-probabilities: sum, minimum, number; of the blank's; the word's own
    begin: int  # first frame of the first word of all
    depth: int  # words up to this one
    name: int  # of the sequence of words up to this one: equal sequences, equal names

    @property
    def evidence(self) -> Evidence:
        """Only made of the sums when it is asked for: few of the words that a beam thinks of are."""
        total, least, tokens, blank, lm_log_prob = self.sums
        blank /= self.last_frame - self.first_frame + 1
        return Evidence(total / tokens, least, int(tokens), blank, lm_log_prob)

    @property
    def lm_log_prob(self) -> float:
        return self.sums[-1]


def chain(link: Link | None) -> tuple[Link, ...]:
    """The words up to this one, the first one first."""
    return tuple(reversed([*_back(link)]))


def words_of(link: Link | None) -> tuple[HypothesisWord, ...]:
    """The same as they are shown."""
    return tuple(HypothesisWord(x.text, x.first_frame, x.last_frame, x.evidence) for x in chain(link))


def shared(links: Iterable[Link | None]) -> int:
    """How many of the first words all hypotheses have in common."""
    deep: dict[int, dict[int, Link]] = {}  # by how many words there are, the beginnings that are to be one
    for link in set(links):
        if link is None:
            return 0
        deep.setdefault(link.depth, {})[link.name] = link
    depth = max(deep, default=0)
    while depth:
        level = deep.pop(depth)
        if not deep and len(level) == 1:
            return depth
        depth -= 1
        above = deep.setdefault(depth, {})
        for link in level.values():
            if (before := link.before) is not None:
                above[before.name] = before
    return 0


def until(link: Link | None, frame: int) -> Link | None:
    """The last of these words that had ended before `frame`."""
    while link is not None and link.last_frame >= frame:
        link = link.before
    return link


def begins(link: Link | None, beginning: Link) -> bool:
    """True where these words begin with those."""
    while link is not None and link.depth > beginning.depth:
        link = link.before
    return link is not None and link.name == beginning.name


def pack(links: Sequence[Link | None]) -> Any:
    """As JSON data, what is shared only once."""
    rows: list[Any] = []
    places: dict[int, int] = {id(None): -1}
    for link in links:
        new = []
        for member in _back(link):
            if id(member) in places:
                break
            new.append(member)
        for member in reversed(new):
            places[id(member)] = len(rows)
            rows.append(
                [
                    *(places[id(member.before)], member.text, member.first_frame, member.last_frame),
                    list(member.sums),
                    *(member.begin, member.depth, member.name),
                ]
            )
    return [rows, [places[id(link)] for link in links]]


def unpack(values: Any) -> list[Link | None]:
    """The inverse of pack."""
    made: list[Link | None] = []
    rows, places = values
    for before, text, first, last, sums, begin, depth, name in rows:
        older = made[before] if before >= 0 else None
        made.append(Link(older, text, first, last, tuple(sums), begin, depth, name))
    return [made[place] if place >= 0 else None for place in places]


def _back(link: Link | None) -> Iterator[Link]:
    while link is not None:
        yield link
        link = link.before
