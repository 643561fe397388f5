"""streamasr: streaming speech recognition, small, exact, trainable and yours.

import streamasr
recognizer = streamasr.load()
print(recognizer.transcribe("talk.flac").text)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamasr.version import __version__

if TYPE_CHECKING:
    from streamasr.bundle import EndpointRule
    from streamasr.errors import (
        AudioError,
        BundleError,
        DeviceError,
        ManifestError,
        OutputError,
        StreamasrError,
        StreamError,
    )
    from streamasr.events import Event, Final, Gap, Partial, Transcript, Word
    from streamasr.recognizer import Recognizer, load
    from streamasr.stream import Stream

__all__ = [
    "AudioError",
    "BundleError",
    "DeviceError",
    "EndpointRule",
    "Event",
    "Final",
    "Gap",
    "ManifestError",
    "OutputError",
    "Partial",
    "Recognizer",
    "Stream",
    "StreamError",
    "StreamasrError",
    "Transcript",
    "Word",
    "__version__",
    "load",
]

_ROOMS = {
    "EndpointRule": "bundle",
    "Recognizer": "recognizer",
    "load": "recognizer",
    "Stream": "stream",
} | dict.fromkeys(("Event", "Final", "Gap", "Partial", "Transcript", "Word"), "events")


def __getattr__(name: str) -> Any:
    """Import a room when something of it is first asked for, so that the program can catch a Ctrl-C meanwhile."""
    if name not in __all__:
        raise AttributeError(f"module 'streamasr' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"streamasr.{_ROOMS.get(name, 'errors')}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
