"""Samples as callers have them to mono float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mifuse_runtime.errors import AudioError

Floats = NDArray[np.float32]
Channel = str | int  # `mix`, `left`, `right`, or a number from 0

MAX_CHANNELS = 64
SILENCE_DB, SILENCE_FRAME = 40.0, 0.025  # dB below the loudest frame, and seconds of a frame
CANCELLED = 1e-3  # of the channels' power, 30 dB down: a mean with less is of channels that cancel
FAINT = 1e-9  # power, -90 dBFS: quieter channels are silence
MAX_PEAK = 8.0  # decoders overshoot full scale a little; more means integers passed as floats


def mono(samples: ArrayLike, channel: Channel | Mixer = "mix") -> Floats:
    """Float32 (n,) from float samples in [-1, 1] or int16, 1-D or (n, channels); channels as `Mixer` does.

    `channel` of a recording that comes in pieces is one `Mixer` for all of them.

    >>> mono(np.array([[16384, 0], [-32768, -32768]], np.int16))
    array([ 0.25, -1. ], dtype=float32)

    Raises:
        AudioError: another type or shape, or no such channel.
    """
    mixer = channel if isinstance(channel, Mixer) else Mixer(channel)
    if isinstance(samples, np.ndarray) and samples.ndim == 1 and samples.dtype == np.float32:
        return samples if mixer.index is None else mixer.mono(samples[:, None])
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise AudioError(f"samples are not an array ({error})") from error
    whole = array.dtype == np.int16
    if not whole and array.dtype.kind != "f":
        raise AudioError(f"samples are {array.dtype}: pass float32 in [-1, 1] or int16")
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[1] <= MAX_CHANNELS):
        hint = "; transpose it if channels come first" if array.ndim == 2 else ""
        raise AudioError(f"samples have shape {array.shape}: pass (n,) or (n, channels){hint}")
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are found by the caller
        floats: Floats = array.astype(np.float32, copy=False)
        floats = floats / np.float32(32768) if whole else floats
        return mixer.mono(floats if floats.ndim == 2 else floats[:, None])


class Mixer:
    """Makes blocks (n, channels) of one recording mono: one channel of it, or the mean of all.

    Channels that cancel each other (one of them wired the wrong way round) have no mean: the first is taken
    then, with one warning in the log.
    """

    def __init__(self, channel: Channel = "mix") -> None:
        self.index = channel_index(channel)  # None: the mean of all
        self._warned = False

    def mono(self, block: Floats) -> Floats:
        """The block as (n,).

        Raises:
            AudioError: there is no such channel.
        """
        channels = block.shape[1]
        if self.index is not None:
            if self.index >= channels:
                raise AudioError(f"there is no channel {self.index}: there are {channels}, counted from 0")
            return block[:, self.index]
        if channels == 1:
            return block[:, 0]
        mean: Floats = block.mean(axis=1, dtype=np.float32)
        if not cancels(block, mean):
            return mean
        if not self._warned:
            import logging  # 0.7 MB that hardly any recording needs

            logging.getLogger(__name__).warning(
                "the channels cancel each other (opposite phase): the first is taken; name one to choose"
            )
        self._warned = True
        return block[:, 0]


def channel_index(channel: Channel) -> int | None:
    """Number of a channel, None for the mean of all.

    Raises:
        AudioError: no such name.
    """
    names = {"mix": None, "left": 0, "right": 1}
    if channel in names:
        return names[str(channel)]
    if (isinstance(channel, int) and channel >= 0) or (isinstance(channel, str) and channel.isdecimal()):
        return int(channel)
    raise AudioError(f"channel {channel!r}: use mix, left, right or a number from 0")


def cancels(block: Floats, mean: Floats) -> bool:
    """Whether channels (n, c) are each other's opposites, so that their mean (n,) is next to nothing."""
    power = float(np.einsum("ij,ij->", block, block)) / block.shape[1]
    return bool(power > FAINT * block.shape[0] and float(mean @ mean) < CANCELLED * power)


def checked(samples: Floats) -> Floats:
    """The samples, if they can be recognised.

    Raises:
        AudioError: none at all, NaN or infinite ones, or integers passed as floats.
    """
    if not samples.size:
        raise AudioError("there are no samples: the audio is empty")
    highest = peak(samples)
    if not np.isfinite(highest):
        raise AudioError("samples hold NaN or infinity: repair the recording, or set such samples to 0")
    if highest > MAX_PEAK:
        raise AudioError(f"float samples reach {highest:g}: divide them to [-1, 1], int16 by 32768")
    return samples


def peak(samples: Floats) -> float:
    """The largest magnitude; NaN if there is a NaN."""
    return max(float(samples.max()), -float(samples.min()))


def frame_energy(samples: Floats, rate: float) -> Floats:
    """Sum of squares of each frame of `SILENCE_FRAME` in samples (n,), n >= 1; the last may be shorter."""
    frame = max(1, int(rate * SILENCE_FRAME))
    whole = samples.size // frame
    frames, rest = samples[: whole * frame].reshape(whole, frame), samples[whole * frame :]
    energy = energies(frames)
    return np.append(energy, rest @ rest) if rest.size else energy


def energies(frames: Floats) -> Floats:
    """Sum of squares of each of frames (k, n), (k,)."""
    # Of NumPy 2, half of the time of einsum, which is half of that of np.add.reduceat.
    found: Floats = (
        np.vecdot(frames, frames) if hasattr(np, "vecdot") else np.einsum("ij,ij->i", frames, frames)
    )
    return found


def trim_silence(samples: Floats, rate: float, energy: Floats | None = None) -> Floats:
    """Leave out the leading and trailing frames that are more than `SILENCE_DB` below the loudest one.

    Args:
        samples: (n,), n >= 1.
        energy: their `frame_energy`, where it is known.

    Returns:
        A view of `samples`; all of them when every frame is silent.

    >>> len(trim_silence(np.r_[np.zeros(800), np.ones(400), np.zeros(900)].astype(np.float32), 16_000))
    400
    """
    frame = max(1, int(rate * SILENCE_FRAME))
    energy = frame_energy(samples, rate) if energy is None else energy
    loud = energy >= energy.max() * 10 ** (-SILENCE_DB / 10)
    first, after = int(loud.argmax()), loud.size - int(loud[::-1].argmax())
    return samples[first * frame : after * frame]
