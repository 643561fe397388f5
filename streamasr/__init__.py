"""streamasr: streaming speech recognition, small, exact, trainable and yours.

import streamasr
recognizer = streamasr.load()
print(recognizer.transcribe("talk.flac").text)
"""

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
from streamasr.version import __version__

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
