"""`streamasr inspect`: a picture of what the model hears: log-mel, token probabilities, words (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.bundle import FeatureConfig
from streamasr.errors import OutputError, StreamasrError
from streamasr.events import Final
from streamasr.recognizer import Recognizer
from streamasr.sources import open_file
from streamasr.sources.resample import Resampler

Floats = NDArray[np.float32]
LONGEST_S = 60.0  # more would not fit a picture


def draw(recognizer: Recognizer, audio: str | Path, output: Path) -> None:
    """Transcribe a recording (its first minute) and draw it into `output`, a PNG, PDF or SVG."""
    try:
        import librosa
        from matplotlib.figure import Figure
    except ImportError as error:
        raise StreamasrError(f"inspect needs {error.name}: pip install 'streamasr[plot]'") from error

    samples = _read(audio, recognizer.bundle.sample_rate)
    seconds = len(samples) / recognizer.bundle.sample_rate
    tokens = recognizer.tokens
    probabilities = np.exp(recognizer.acoustic.whole(samples)[:, recognizer.head])
    finals = recognizer.transcribe(samples).finals
    figure = Figure(figsize=(max(8.0, min(1.8 * seconds, 40.0)), 6.0), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    mel = _log_mel(librosa, samples, recognizer.bundle.features)
    axes[0].imshow(mel, origin="lower", aspect="auto", extent=(0.0, seconds, 0, len(mel)), cmap="magma")
    axes[0].set(ylabel="mel band", title=Path(audio).name)
    _draw_tokens(axes[1], probabilities, tokens, recognizer.acoustic.graph.stride / recognizer.bundle.sample_rate)
    for axis in axes:
        _draw_words(axis, finals, label=axis is axes[1])
    axes[1].set(xlim=(0.0, seconds), ylim=(0.0, 1.25), xlabel="time (s)", ylabel="probability")
    try:
        figure.savefig(output, dpi=80)
    except (OSError, ValueError) as error:
        raise OutputError(f"{output}: cannot be written: {error}") from error


def _read(audio: str | Path, rate: int) -> Floats:
    with open_file(audio) as source:
        resampler, pieces, count = Resampler(source.rate, rate), [], 0
        for chunk in source.chunks():
            pieces.append(resampler.push(chunk))
            count += len(chunk)
            if count > LONGEST_S * source.rate:
                break
    return np.concatenate([*pieces, resampler.finish()])[: int(LONGEST_S * rate)]


def _log_mel(librosa: Any, samples: Floats, config: FeatureConfig) -> NDArray[np.float64]:
    past = np.zeros(config.n_fft - config.hop, dtype=np.float32)
    samples = np.pad(samples, (0, max(0, config.hop - len(samples))))
    power = librosa.feature.melspectrogram(
        y=np.concatenate([past, samples]),
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop,
        win_length=config.window,
        n_mels=config.mels,
        center=False,
    )
    mel: NDArray[np.float64] = np.log(power + config.floor)
    return mel


def _draw_tokens(axis: Any, probabilities: Floats, tokens: tuple[str, ...], frame_s: float) -> None:
    """Each token that ever rises above the blank, as a line labelled at its peaks."""
    times = (np.arange(len(probabilities)) + 0.5) * frame_s
    axis.plot(times, probabilities[:, 0], color="0.8", linewidth=1.0, label="blank")
    for token in range(1, len(tokens)):
        curve = probabilities[:, token]
        if curve.max(initial=0.0) < 0.3:
            continue
        line = axis.plot(times, curve, linewidth=1.2)[0]
        peaks = np.flatnonzero((curve >= 0.3) & (curve >= np.roll(curve, 1)) & (curve > np.roll(curve, -1)))
        for peak in peaks:
            label = "␣" if tokens[token] == " " else tokens[token]
            axis.text(times[peak], curve[peak] + 0.02, label, ha="center", color=line.get_color(), fontsize=8)
    axis.legend(loc="lower right")


def _draw_words(axis: Any, finals: tuple[Final, ...], label: bool) -> None:
    for word in (word for final in finals for word in final.words):
        axis.axvline(word.start_s, color="tab:cyan", linewidth=0.8)
        axis.axvline(word.end_s, color="tab:cyan", linewidth=0.8, linestyle=":")
        if label:
            text = f"{word.text}\n{100 * word.confidence:.0f} %"
            axis.text((word.start_s + word.end_s) / 2.0, 1.12, text, ha="center", va="bottom", fontsize=8)
