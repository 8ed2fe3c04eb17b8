"""Log-mel features of many clips: computed once, kept on disk, read as batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mifuse.clips.audio import AudioCache
from mifuse.clips.fingerprint import is_marked, mark
from mifuse.clips.keys import key
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import Joined, in_shards, table
from mifuse.errors import MifuseError
from mifuse.files import whole_file
from mifuse.models import frontend, prosody
from mifuse.models.prosody import Prosody
from mifuse.models.speaker_norm import speaker_ids
from mifuse_runtime import audio as runtime_audio

_LOGGER = logging.getLogger(__name__)

PADDING = float(np.log(frontend.FLOOR))  # what the front end gives for digital silence


class Features:
    """Log-mel of N clips, float16, memory-mapped: 12 KB on disk and 16 bytes in memory for 3 s of audio.

    Args:
        frames: all clips one after the other, (total frames, N_MELS).
        offsets: first frame of each clip and the end of the last, (N + 1,).
        speakers: who speaks, as from `mifuse.models.speaker_norm.speaker_ids`, (N,); None: nobody is known.
        prosody: computes the measures of `mifuse.models.prosody` when they are asked for, (N, M).
    """

    def __init__(
        self,
        frames: NDArray[np.float16] | Joined,
        offsets: NDArray[np.int64],
        speakers: NDArray[np.int64] | None = None,
        prosody: Callable[[], Tensor] | None = None,
    ) -> None:
        self.frames, self._prosody = frames, prosody
        self.speakers = np.full(len(offsets) - 1, -1) if speakers is None else speakers
        self.offsets = offsets
        self.lengths: NDArray[np.int64] = np.diff(offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def anonymous(self) -> Features:
        """The same clips without their speakers."""
        return Features(self.frames, self.offsets, prosody=self._prosody)

    def spoken_by(self, speakers: Sequence[str | None]) -> Features:
        """The same clips, with who speaks in each."""
        return Features(self.frames, self.offsets, speaker_ids(speakers), self._prosody)

    def prosody(self) -> Tensor:
        """Measures of each clip, (N, M), as of `mifuse.models.prosody`: 5 ms a clip when they are new.

        Raises:
            MifuseError: these are features without their clips.
        """
        if self._prosody is None:
            raise MifuseError("prosody is measured in recordings: make these features with Features.of")
        return self._prosody()

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Clips side by side, padded with silence: float32 (batch, frames, N_MELS)."""
        longest = int(max(self.lengths[i] for i in indices))
        out = np.full((len(indices), longest, frontend.N_MELS), PADDING, dtype=np.float32)
        for row, i in zip(out, indices, strict=True):
            row[: self.lengths[i]] = self.frames[self.offsets[i] : self.offsets[i + 1]]
        return torch.from_numpy(out)

    def batches(self, size: int) -> Iterator[NDArray[np.int64]]:
        """Every clip once, clips of similar length together, so that little is padding."""
        order = np.argsort(self.lengths, kind="stable")
        for start in range(0, len(order), size):
            yield order[start : start + size]

    @classmethod
    def of(
        cls,
        clips: Sequence[Clip],
        cache: AudioCache,
        trim: bool = True,
        progress: Callable[[int], object] = lambda _: None,
    ) -> Features:
        """Features of `clips`, from the cache folder when they were computed before.

        Args:
            trim: leave out leading and trailing silence.
            progress: called with 1 after each clip.

        Raises:
            AudioError: a clip cannot be read.
        """

        def read(stem: Path) -> tuple[NDArray[np.float16], NDArray[np.int64]] | None:
            files = stem.with_suffix(".frames"), stem.with_suffix(".npy")
            return _read(*files) if is_marked(stem, *files) else None

        def write(part: Sequence[Clip], stem: Path) -> None:
            logmels = _logmels(part, cache, trim, progress)
            files = stem.with_suffix(".frames"), stem.with_suffix(".npy")
            _write(logmels, *files)
            mark(stem, *files)

        pieces = in_shards(clips, cache, "features", features_key(trim), read=read, write=write)
        speakers = speaker_ids([clip.speaker for clip in clips])
        measured = lru_cache(maxsize=1)(partial(_measured, clips, cache, trim))
        if len(pieces) == 1:
            return cls(*pieces[0], speakers, measured)
        lengths = [np.diff(offsets) for _, offsets in pieces]
        offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
        return cls(Joined([frames for frames, _ in pieces]), offsets, speakers, measured)


def features_key(trim: bool = True) -> str:
    """Of a file of features."""
    return key(("audio", "trim", "features"), [frontend, runtime_audio], trim=trim)


def _measured(clips: Sequence[Clip], cache: AudioCache, trim: bool) -> Tensor:
    front, measure = frontend.LogMel(), Prosody()

    @torch.inference_mode()
    def measures(part: Sequence[Clip]) -> NDArray[np.float32]:
        samples = (torch.from_numpy(cache.samples(clip, trim=trim))[None] for clip in part)
        return torch.cat([measure(front.power(one, low=True)) for one in samples]).numpy()

    name = key(("audio", "trim", "features", "pitch"), [frontend, prosody, runtime_audio], trim=trim)
    return torch.from_numpy(table(clips, cache, "prosody", name, measures).in_memory())


def _logmels(
    clips: Sequence[Clip], cache: AudioCache, trim: bool, progress: Callable[[int], object]
) -> Iterator[NDArray[np.float16]]:
    logmel = frontend.LogMel()
    for clip in clips:
        with torch.inference_mode():
            rows = logmel.logmel(torch.from_numpy(cache.samples(clip, trim=trim))[None])[0]
        yield rows.numpy().astype(np.float16)
        progress(1)


def _read(frames_file: Path, offsets_file: Path) -> tuple[NDArray[np.float16], NDArray[np.int64]] | None:
    """Frames and offsets, None when they are not there or were cut short by a crash of the machine."""
    try:
        offsets = np.load(offsets_file, allow_pickle=False)
        frames = np.memmap(frames_file, dtype=np.float16, mode="r").reshape(-1, frontend.N_MELS)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    fits = offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) > 1 and len(frames) == offsets[-1]
    return (frames, offsets) if fits and offsets[0] == 0 and (np.diff(offsets) >= 0).all() else None


def _write(logmels: Iterable[NDArray[np.float16]], frames_file: Path, offsets_file: Path) -> None:
    """Both files appear whole; the offsets come last and say that the frames are there."""
    lengths = [0]
    with whole_file(frames_file) as partial, partial.open("wb") as file:
        for rows in logmels:
            file.write(rows.tobytes())
            lengths.append(len(rows))
    with whole_file(offsets_file) as partial, partial.open("wb") as file:
        np.save(file, np.cumsum(lengths, dtype=np.int64))
