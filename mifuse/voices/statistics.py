"""Statistics of each clip's voice, spectral and prosodic, which labels are held against: kept on disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import AudioCache
from mifuse.clips.keys import key
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import Joined, table
from mifuse.models.features import Features, features_key
from mifuse.voices import prosody, spectral

Array = NDArray[np.float64]


def features_and_statistics(clips: Sequence[Clip], cache: AudioCache) -> tuple[Features, Joined]:
    """Log-mel features of the clips, and their statistics (N, D): both while a clip's audio is in the cache,
    which does not hold a million clips; 12 ms a clip when they are new.

    Raises:
        AudioError: a clip cannot be read.
    """
    statistics = voice_statistics(clips, cache)  # computes the features piece by piece on its way
    return Features.of(clips, cache), statistics


def voice_statistics(clips: Sequence[Clip], cache: AudioCache) -> Joined:
    """Statistics of the clips, (N, D).

    Raises:
        AudioError: a clip cannot be read.
    """
    return table(clips, cache, "voices", statistics_key(), lambda part: _measured(part, cache))


def _measured(clips: Sequence[Clip], cache: AudioCache) -> Array:
    described = spectral.describe(Features.of(clips, cache))
    return np.hstack([described, prosody.measures(clips, cache)])


def statistics_key() -> str:
    """Of a table of statistics."""
    return key(("spectral", "prosody"), [spectral, prosody], features=features_key())
