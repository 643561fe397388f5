"""The rules for the end of an utterance."""

from __future__ import annotations

from streamasr.bundle import EndpointRule
from streamasr.decoding.hypothesis import Spoken
from streamasr.endpoint import is_endpoint

RULES = (EndpointRule(0.8), EndpointRule(0.4, 15.0))


def test_silence_alone_never_ends_anything():
    assert not is_endpoint(None, 10_000, 0.04, RULES)


def test_enough_silence_after_words_does():
    assert not is_endpoint(Spoken(0, 19), 29, 0.04, RULES)
    assert is_endpoint(Spoken(0, 20), 30, 0.04, RULES)


def test_a_long_utterance_needs_less():
    assert not is_endpoint(Spoken(0, 10), 370, 0.04, RULES)
    assert is_endpoint(Spoken(0, 10), 375, 0.04, RULES)


def test_no_rules_no_endpoint():
    assert not is_endpoint(Spoken(0, 10_000), 10_010, 0.04, ())
