"""Where samples come from: files, standard input, microphones; and the way to the model's sample rate.

Everything here speaks one-dimensional float32 arrays of mono samples in [-1, 1] at the source's own
rate; `Resampler` brings them to the model's. sounddevice and av are imported when they are needed.
"""

from streamasr.sources.files import AudioSource, open_file, open_stdin
from streamasr.sources.gaps import Lost
from streamasr.sources.microphone import Device, Microphone, list_devices, open_microphone
from streamasr.sources.resample import Resampler
from streamasr.sources.samples import as_mono_float

__all__ = [
    "AudioSource",
    "Device",
    "Lost",
    "Microphone",
    "Resampler",
    "as_mono_float",
    "list_devices",
    "open_file",
    "open_microphone",
    "open_stdin",
]
