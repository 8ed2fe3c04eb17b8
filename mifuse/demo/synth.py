"""Synthetic emotional speech: a small source-filter synthesiser for the demo and the tests.

Emotion moves eight cues (pitch, its span and slope, rate, effort, dynamics, breath, smile) with wide overlap.
Speakers, room and microphone carry the domain. Numbers measured on this audio say nothing about real speech;
call it synthetic wherever one of them appears.
"""

from __future__ import annotations

import csv
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.labels import LABELS
from mifuse.errors import MifuseError
from mifuse.files import whole_file

Array = NDArray[np.float64]

RATE = 16_000  # Hz
N_FFT = 512  # samples: analysis frame of the vocal tract filter, 32 ms
HOP = 128  # samples: 8 ms between filter shapes; Hann windows at a quarter of the frame add up to a constant
SECONDS = 2.0  # length of a clip
FREQUENCIES = np.fft.rfftfreq(N_FFT, 1 / RATE)

CUES = ("pitch", "span", "slope", "rate", "effort", "dynamics", "breath", "smile")
# Mean of each cue in units of its spread between clips of one emotion.
EMOTIONS = {
    "angry": (0.8, 0.7, -0.4, 0.7, 1.5, 1.2, -0.6, -0.4),
    "happy": (1.1, 1.2, 1.0, 0.3, 0.4, 0.0, 0.0, 1.0),
    "neutral": (-0.2, -0.6, -0.2, 0.4, -0.2, -0.3, -0.4, -0.2),
    "sad": (-0.4, -0.8, -0.6, -1.2, -1.0, -0.6, 1.0, -0.2),
}
# F1, F2, F3 in Hz of an average adult (Peterson and Barney 1952, rounded).
VOWELS = np.array(
    [
        [280, 2250, 2900],
        [400, 1950, 2550],
        [550, 1800, 2500],
        [700, 1200, 2500],
        [590, 900, 2450],
        [450, 1050, 2300],
        [320, 880, 2250],
        [500, 1400, 2300],
    ],
    dtype=np.float64,
)
CONSONANTS = ("none", "stop", "fricative", "nasal")


@dataclass(frozen=True)
class Domain:
    """Where and how recordings were made."""

    gain: float = 1.3  # how far emotions are acted out; 0: not at all
    spread: float = 0.6  # spread of the cues between clips of one emotion
    habits: float = 0.3  # spread of the cues between speakers; 0: all speak alike
    offset: dict[str, float] = field(default_factory=dict)  # cue -> shift of everyone in the domain
    reverberation: tuple[float, float] = (
        0.1,
        0.2,
    )  # s to fall by 60 dB, least and most of the speakers' rooms
    echo: float = 0.1  # energy of the room beside the direct sound; 0: none
    band: tuple[float, float] = (60.0, 7800.0)  # Hz that the microphone passes
    colour: float = 2.0  # dB, spread of the microphone's frequency response; 0: flat
    snr: tuple[float, float] = (35.0, 50.0)  # dB, least and most of the speakers' noise floors


DOMAINS = {
    "studio": Domain(),
    "phone": Domain(
        gain=1.2,
        offset={"rate": 0.8, "span": -0.6, "pitch": -0.3, "dynamics": 0.7, "effort": 0.5},
        reverberation=(0.2, 0.4),
        echo=0.25,
        band=(200.0, 3600.0),
        colour=4.0,
        snr=(20.0, 32.0),
    ),
}


@dataclass(frozen=True)
class Speaker:
    """A voice, the way it is used, and the room and microphone in front of it."""

    base: float  # Hz, habitual F0
    tract: float  # formants relative to the average adult
    habits: Array  # (cues,)
    room: Array  # impulse response
    response: Array  # magnitude at FREQUENCIES
    noise: float  # amplitude of the noise floor relative to the speech


def make_speaker(domain: Domain, rng: np.random.Generator) -> Speaker:
    """A random speaker with a room and a microphone of the domain."""
    high = rng.random() < 0.5  # two groups of voices, as women and men
    tract = (1.08 if high else 0.94) * np.exp(0.04 * rng.standard_normal())
    offset = np.array([domain.offset.get(cue, 0.0) for cue in CUES])
    decay = rng.uniform(*domain.reverberation)
    times = np.arange(int(decay * RATE)) / RATE
    room = rng.standard_normal(len(times)) * 10 ** (-3 * times / decay)
    room *= np.sqrt(domain.echo / max(float(room @ room), 1e-9))
    room[0] = 1.0
    knots = np.interp(FREQUENCIES, np.geomspace(80, 8000, 8), domain.colour * rng.standard_normal(8))
    low, top = domain.band
    edges = (
        1 / np.sqrt(1 + (low / np.maximum(FREQUENCIES, 1.0)) ** 8) / np.sqrt(1 + (FREQUENCIES / top) ** 16)
    )
    return Speaker(
        base=(200 if high else 115) * np.exp(0.1 * rng.standard_normal()),
        tract=tract,
        habits=offset + domain.habits * rng.standard_normal(len(CUES)),
        room=room,
        response=10 ** (knots / 20) * edges,
        noise=10 ** (-rng.uniform(*domain.snr) / 20),
    )


def _smooth(track: Array, frames: int) -> Array:
    """Moving Hann average along the first axis."""
    kernel = np.hanning(frames + 2)[1:-1]
    padded = np.pad(track, [(frames // 2, frames - 1 - frames // 2), (0, 0)], mode="edge")
    columns = [np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T]
    return np.stack(columns, axis=1)


def _articulate(
    cue: dict[str, float], tract: float, frames: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Tracks at the frame rate, each (frames,): formants F1 to F3 (frames, 3), accent, voice, hiss."""
    second = RATE / HOP
    formants = np.tile(VOWELS[-1], (frames, 1))
    accent, voice, hiss = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    at = int(rng.uniform(0.03, 0.1) * frames)
    end = frames - int(rng.uniform(0.03, 0.1) * frames)
    length = second / (4.5 * np.exp(0.2 * cue["rate"]))
    while at + 0.5 * length < end or not voice.any():
        size = max(int(length * np.exp(0.2 * rng.standard_normal())), 8)
        stress = rng.standard_normal()
        onset = int(size * rng.uniform(0.2, 0.4))
        consonant = CONSONANTS[rng.integers(len(CONSONANTS))]
        gain = 10 ** ((3 + 2 * np.exp(0.5 * cue["dynamics"])) * stress / 20)
        stop = min(at + size, end)
        formants[at:stop] = VOWELS[rng.integers(len(VOWELS))]
        accent[at:stop] = stress
        voice[at:stop] = gain
        quiet = slice(at, min(at + onset, end))
        if consonant != "none":
            voice[quiet] = gain * {"stop": 0.0, "fricative": 0.05, "nasal": 0.3}[consonant]
            hiss[quiet] = gain * (0.8 if consonant == "fricative" else 0.0)
            formants[quiet, 0] = 250
        if consonant == "stop":  # a burst of noise where the closure opens
            hiss[max(quiet.stop - 2, at) : quiet.stop] = 1.2 * gain
        at = stop
        if rng.random() < 0.06:
            at += int(rng.uniform(0.1, 0.25) * second)
    tracks = _smooth(np.column_stack([formants * tract * np.exp(0.04 * cue["smile"]), accent]), 9)
    gains = _smooth(np.column_stack([voice, hiss]), max(3, int(7 * np.exp(-0.25 * cue["dynamics"]))))
    return {"formants": tracks[:, :3], "accent": tracks[:, 3], "voice": gains[:, 0], "hiss": gains[:, 1]}


def _pulses(f0: Array) -> Array:
    """Derivative of Rosenberg's glottal flow at the F0 of each sample, (n,)."""
    phase = np.cumsum(f0 / RATE) % 1.0
    opening, closing = 0.4, 0.16  # shares of the period
    rise = np.sin(np.pi * phase / opening) / opening
    fall = -np.sin(np.pi * (phase - opening) / (2 * closing)) / closing
    return np.where(phase < opening, rise, np.where(phase < opening + closing, fall, 0.0)) / 3


def _tract(formants: Array, effort: float) -> NDArray[np.complex64]:
    """Transfer function of the vocal tract: five resonances and the tilt of the voice, (frames, bins)."""
    scale = formants[:, 2:] / 2500
    poles = np.concatenate([formants, 3400 * scale, 4400 * scale], axis=1).astype(np.float32)[:, :, None]
    frequencies = FREQUENCIES.astype(np.float32)
    response = np.ones((len(formants), len(FREQUENCIES)), np.complex64)
    for index, bandwidth in enumerate((70.0, 90.0, 140.0, 220.0, 300.0)):
        ratio = frequencies / poles[:, index]
        response *= 1 - ratio**2 + 1j * ratio * (bandwidth / poles[:, index])
    # Five poles fall too steeply towards 8 kHz; the higher ones, lumped, lift it again (Fant's correction).
    correction = np.exp(0.5 * (FREQUENCIES / 3500) ** 2)
    tilt = (1 + FREQUENCIES / 500) ** (0.35 * effort - 0.3)
    return (correction * tilt).astype(np.float32) / response


def _filter(source: Array, response: NDArray[np.complex64]) -> Array:
    """Overlap-add of the source through one response a frame."""
    frames = len(response)
    windows = np.lib.stride_tricks.sliding_window_view(source, N_FFT)[::HOP][:frames]
    shaped = np.fft.irfft(np.fft.rfft(windows * np.hanning(N_FFT + 1)[:-1]) * response, N_FFT)
    parts = shaped.reshape(frames, N_FFT // HOP, HOP)
    out = np.zeros((frames + N_FFT // HOP - 1, HOP))
    for i in range(N_FFT // HOP):
        out[i : i + frames] += parts[:, i]
    return out.ravel()


def synthesise(
    label: str,
    speaker: Speaker,
    domain: Domain,
    rng: np.random.Generator,
    seconds: float = SECONDS,
) -> Array:
    """One clip as (n,) samples in [-1, 1] at 16 kHz.

    >>> rng = np.random.default_rng(0)
    >>> clip = synthesise("happy", make_speaker(DOMAINS["studio"], rng), DOMAINS["studio"], rng, seconds=1.0)
    >>> clip.shape, bool(abs(clip).max() <= 1)
    ((16000,), True)
    """
    intensity = domain.gain * rng.uniform(0.6, 1.4)
    spread = domain.spread * rng.standard_normal(len(CUES))
    cue = dict(zip(CUES, intensity * np.array(EMOTIONS[label]) + speaker.habits + spread, strict=True))
    count = int(seconds * RATE)
    frames = count // HOP
    tracks = _articulate(cue, speaker.tract, frames, rng)
    times = np.arange(frames) * HOP / RATE
    semitones = 2.5 * cue["pitch"] + 1.5 * np.exp(0.5 * cue["span"]) * tracks["accent"]
    semitones += (1.5 * cue["slope"] - 2.0) * (times / seconds - 0.5)
    length = frames * HOP + N_FFT
    samples = np.arange(length) / HOP
    jitter = np.repeat(rng.standard_normal(length // 64 + 1), 64)[:length]
    f0 = speaker.base * 2 ** (np.interp(samples, np.arange(frames), semitones) / 12) * (1 + 0.01 * jitter)
    pulses = _pulses(np.clip(f0, 50, 600))
    noise = rng.standard_normal(length)
    breath = 0.05 * np.exp(0.6 * cue["breath"])
    voice, hiss = (np.interp(samples, np.arange(frames), tracks[name]) for name in ("voice", "hiss"))
    voiced = _filter((pulses + breath * noise) * voice, _tract(tracks["formants"], cue["effort"]))
    # Friction arises at the teeth, not in the throat: noise through a plain high-pass, past the tract.
    rough = 0.3 * np.diff(rng.standard_normal(length), prepend=0.0) * hiss
    clip = (voiced[:length] + rough[: len(voiced)])[N_FFT // 2 :][:count]
    clip = np.pad(clip, (0, count - len(clip)))
    return _record(clip * 10 ** (2 * cue["effort"] / 20), speaker, domain, rng)


def _record(speech: Array, speaker: Speaker, domain: Domain, rng: np.random.Generator) -> Array:
    """The speech as the speaker's room and microphone leave it, at a fixed input gain."""
    level = 0.08  # about -22 dB full scale for neutral speech of average effort
    size = 1 << (len(speech) + len(speaker.room) - 1).bit_length()
    grid = np.fft.rfftfreq(size, 1 / RATE)
    microphone = np.interp(grid, FREQUENCIES, speaker.response)
    spectrum = np.fft.rfft(speech, size) * np.fft.rfft(speaker.room, size) * microphone
    hum = np.fft.rfft(rng.standard_normal(size)) / np.sqrt(
        1 + grid / 300
    )  # noise of rooms falls with frequency
    reference = 3.5  # RMS of `synthesise` before recording, so that a quiet speaker is nearer the noise floor
    clip = np.fft.irfft(spectrum, size)[: len(speech)]
    noise = np.fft.irfft(hum * microphone, size)[: len(speech)]
    clip += noise * (speaker.noise * reference / max(float(noise.std()), 1e-9))
    return np.clip(clip * level / reference, -1, 1)


def make_domain(
    folder: str | Path,
    domain: str,
    *,
    speakers: int,
    clips_per_speaker: int,
    test_speakers: int = 0,
    seed: int = 0,
    seconds: float = SECONDS,
) -> Path:
    """Write clips of a domain (16-bit WAV) and `manifest.csv`; the same arguments write the same bytes.

    Args:
        folder: where to write; made when absent.
        domain: `studio` or `phone`.
        speakers: how many voices; the last `test_speakers` of them are the `test` split.
        clips_per_speaker: clips of each; how often which emotion comes differs between speakers.
        test_speakers: 0 leaves the `split` column out.

    Returns:
        The path of the manifest.
    """
    if domain not in DOMAINS:
        raise MifuseError(f"unknown synthetic domain {domain!r}: use one of {', '.join(DOMAINS)}")
    if not 0 <= test_speakers < speakers:
        raise MifuseError(f"{test_speakers} test speakers of {speakers}: leave at least one to adapt to")
    folder = Path(folder)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(speakers):
        rng = np.random.default_rng([seed, index])
        speaker = make_speaker(DOMAINS[domain], rng)
        shares = rng.dirichlet(np.full(len(LABELS), 8.0))  # nobody has all emotions equally often
        split = "test" if index >= speakers - test_speakers else "adapt"
        for clip in range(clips_per_speaker):
            label = str(rng.choice(LABELS, p=shares))
            name = f"clips/s{index:02d}_{clip:03d}.wav"
            _write_wav(folder / name, synthesise(label, speaker, DOMAINS[domain], rng, seconds))
            rows.append({"path": name, "label": label, "speaker": f"s{index:02d}", "split": split})
    columns = ["path", "label", "speaker"] + (["split"] if test_speakers else [])
    manifest = folder / "manifest.csv"
    with whole_file(manifest) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _write_wav(path: Path, samples: Array) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
