"""When an utterance ends: a few rules over the decoder's hypothesis, looked at after every frame."""

from __future__ import annotations

from collections.abc import Sequence

from streamasr.bundle import EndpointRule
from streamasr.decoding.hypothesis import Spoken

# Ends even a word that never ends, so that no noise can make an utterance grow for ever.
LAST_RESORT = EndpointRule(trailing_s=0.0, utterance_s=60.0)


def is_endpoint(spoken: Spoken | None, frame: int, frame_s: float, rules: Sequence[EndpointRule]) -> bool:
    """True when any rule holds after `frame`. An utterance without words never ends: there is nothing to finish."""
    if spoken is None:
        return False
    trailing_s = spoken.quiet_frames * frame_s
    utterance_s = (frame - spoken.first_frame) * frame_s
    return any(trailing_s >= rule.trailing_s and utterance_s >= rule.utterance_s for rule in rules)
