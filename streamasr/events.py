"""What a stream says: plain data. Seconds appear here and nowhere else inside; they count from the stream's start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A recognised word; `confidence` estimates the probability that it is right."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Partial:
    """What the current utterance sounds like so far; may still change. Empty: it was noise after all."""

    text: str
    start_s: float
    end_s: float
    stable: str = ""  # a beginning of `text`, whole words, that will not be taken back


@dataclass(frozen=True)
class Final:
    """A finished utterance; it will not change."""

    text: str
    words: tuple[Word, ...]
    start_s: float
    end_s: float
    # Where asked for: texts, `text` first, and by how much less likely than that (nats, 0 or below).
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Gap:
    """Audio that was lost before it reached the stream."""

    start_s: float
    end_s: float


Event = Partial | Final | Gap


@dataclass(frozen=True)
class Transcript:
    """All finals of one recording, and what was wrong with the recording, if anything was."""

    finals: tuple[Final, ...]
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The utterances, one a line."""
        return "\n".join(final.text for final in self.finals)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all utterances."""
        return tuple(word for final in self.finals for word in final.words)
