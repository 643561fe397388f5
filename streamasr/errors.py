"""What can go wrong, drawn as a tree:

StreamasrError
├── AudioError (ValueError)        the samples or the file cannot be used
│   └── DeviceError                the microphone cannot be used
├── BundleError (ValueError)       the model on disk is not what it should be
├── StreamError (RuntimeError)     a stream was used after its end, or continued with a foreign snapshot
├── OutputError (OSError)          a result cannot be written
└── ManifestError (ValueError)     a training manifest is not what it should be

Every message is one line for a person: what was got, what was expected, how to mend it.
"""

from __future__ import annotations


class StreamasrError(Exception):
    """The root: catch this to catch them all."""


class AudioError(StreamasrError, ValueError):
    """The samples or the file cannot be used."""


class DeviceError(AudioError):
    """The microphone cannot be used."""


class BundleError(StreamasrError, ValueError):
    """The model on disk is not what it should be."""


class StreamError(StreamasrError, RuntimeError):
    """A stream was used after its end, or continued with a foreign snapshot."""


class OutputError(StreamasrError, OSError):
    """A result cannot be written."""


class ManifestError(StreamasrError, ValueError):
    """A training manifest is not what it should be."""
