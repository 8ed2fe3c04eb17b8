"""A voice for models that take no audio: a picture, and a table of measures relative to the other voices."""

from __future__ import annotations

import functools
import io
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchaudio

from mifuse.clips.audio import SAMPLE_RATE, AudioCache, Samples
from mifuse.clips.manifest import Clip
from mifuse.voices.prosody import F0_RANGE, MEASURES, Norm, Prosody, measure
from mifuse_runtime.speaker import FLOOR, SILENT

VERSION = 1  # one more whenever the picture or the table changes
N_FFT, HOP = 512, 256  # samples: 32 and 16 ms
N_MELS, MEL_RANGE = 64, (60.0, 7600.0)  # of the picture, HTK; Hz
WIDTH, HEIGHT, DPI = 7.8, 4.9, 100  # inches and pixels an inch: 780 x 490, 510 tokens
LEAST_OF_SPEAKER = 3  # clips, for a z-score within the speaker

_DRAWING = threading.Lock()  # matplotlib keeps global state


class Voices:
    """The measures of all clips of a corpus, and what they are relative to.

    Args:
        clips: the corpus; more of it makes better z-scores. Labels are not read.
        progress: called after each clip that was measured.
        max_seconds: of longer clips only the first seconds are measured and shown.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        cache: AudioCache,
        progress: Callable[[], object] = lambda: None,
        max_seconds: float = 30.0,
    ) -> None:
        self._cache, self._longest = cache, int(max_seconds * SAMPLE_RATE)
        self._decoding = threading.Lock()  # one at a time: half an hour takes 450 MB
        # A clip is asked about K times; 512 pictures are 30 MB.
        self.evidence = functools.lru_cache(512)(self._evidence)
        values: dict[str, np.ndarray[Any, Any]] = {}
        speakers = defaultdict(list)
        for clip in clips:
            digest = cache.hash(clip)
            if digest not in values:
                values[digest] = measure(self._samples(clip)).values
                if clip.speaker:
                    speakers[clip.speaker].append(values[digest])
            progress()
        self.corpus = Norm.of(list(values.values()))
        self.speakers: Mapping[str, Norm] = {
            name: Norm.of(mine) for name, mine in speakers.items() if len(mine) >= LEAST_OF_SPEAKER
        }

    def _samples(self, clip: Clip) -> Samples:
        with self._decoding:
            cut = self._cache.samples(clip)[: self._longest]
            samples: Samples = cut.copy()  # a view would keep all of it
        return samples

    def _evidence(self, clip: Clip) -> tuple[bytes, str]:
        """The picture as PNG and the table as text of one clip."""
        samples = self._samples(clip)
        prosody = measure(samples)
        return picture(samples, prosody), self.table(prosody, clip.speaker)

    def table(self, prosody: Prosody, speaker: str | None) -> str:
        """One line a measure: value, unit, z-score in the collection and, where known, in the speaker."""
        norms = {f"z, {self.corpus.count} recordings": self.corpus}
        own = self.speakers.get(speaker or "")
        if own:
            norms[f"z, {own.count} recordings of this speaker"] = own
        lines = [" | ".join(["measure", "value", *norms])]
        scores = [norm.z(prosody.values) for norm in norms.values()]
        for i, (unit, what) in enumerate(MEASURES.values()):
            row = [what, f"{prosody.values[i]:.3g} {unit}", *(f"{z[i]:+.1f}" for z in scores)]
            lines.append(" | ".join(row))
        return "\n".join(lines)


def picture(samples: Samples, prosody: Prosody, kind: str = "png") -> bytes:
    """Log-mel spectrogram with the contours of F0 and energy, time in seconds.

    Args:
        samples: (n,) at 16 kHz.
        kind: `png`, or `svg` for documents.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _DRAWING, mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "mifuse"}):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
        FigureCanvasAgg(figure)
        # Places by hand: a layout that is solved for costs as much as all the rest.
        grid = {"left": 0.08, "right": 0.92, "bottom": 0.1, "top": 0.98, "hspace": 0.06}
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1], gridspec_kw=grid)
        _spectrogram(upper, samples)
        _contours(upper, lower, prosody)
        file = io.BytesIO()
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return file.getvalue()


def _spectrogram(axis: Any, samples: Samples) -> None:
    low, high = MEL_RANGE
    spectrogram = torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE, N_FFT, hop_length=HOP, f_min=low, f_max=high, n_mels=N_MELS, pad_mode="constant"
    )
    whole = np.pad(samples, (0, -len(samples) % HOP))
    power = spectrogram(torch.from_numpy(whole)).numpy()  # (N_MELS, frames)
    seconds = power.shape[1] * HOP / SAMPLE_RATE
    decibels = 10 * np.log10(power / max(power.sum(axis=0).max(), SILENT) + FLOOR)
    axis.imshow(
        decibels, origin="lower", aspect="auto", cmap="magma", vmin=-60, vmax=0,
        extent=(0, seconds, 0, N_MELS), interpolation="nearest",
    )  # fmt: skip
    ticks = [hertz for hertz in (125, 250, 500, 1000, 2000, 4000) if hertz > MEL_RANGE[0]]
    low, high = _mel(low), _mel(high)
    axis.set_yticks([N_MELS * (_mel(hertz) - low) / (high - low) for hertz in ticks], ticks)
    axis.set_ylabel("Hz (mel)")
    axis.set_xlim(0, seconds)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _contours(upper: Any, lower: Any, prosody: Prosody) -> None:
    pitch = upper.twinx()
    pitch.plot(prosody.times, prosody.f0, ".", color="white", ms=3.5)
    pitch.set_yscale("log")
    pitch.set_ylim(F0_RANGE)
    pitch.set_yticks([75, 100, 150, 200, 300, 400], ["75", "100", "150", "200", "300", "400"])
    pitch.minorticks_off()
    pitch.set_ylabel("F0, Hz (white)")
    lower.set_facecolor("black")
    lower.plot(prosody.times, prosody.energy, color="cyan", lw=1.2)
    lower.set_ylim(prosody.energy.max() - 50, prosody.energy.max() + 3)
    lower.set_ylabel("dB (cyan)")
    lower.set_xlabel("time, s")
