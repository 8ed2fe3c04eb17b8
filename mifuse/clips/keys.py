"""The keys of what is kept on disk: another key wherever the same clip would give other bits.

A computation has a version, which rises when its code gives other results (tests/test_keys.py holds samples
of them), and its modules' constants are in the key by themselves. Docs and comments change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

VERSIONS = {
    "audio": 2,  # decoding to int16 at 16 kHz; names the cache's folder
    "trim": 2,  # silence left out at both ends of a clip
    "features": 4,  # log-mel
    "prosody": 1,  # pitch, energy, tempo, voice quality
    "pitch": 1,  # prosody from the front end's spectra
    "spectral": 1,  # cepstrum and energy
    "embedding": 1,  # of the speaker's voice
    "encoder": 2,  # hidden states of a transformer
}


def key(computations: Iterable[str], modules: Iterable[ModuleType], **more: Any) -> str:
    """The key of a result, in hex.

    Args:
        computations: names in `VERSIONS`, of all that the result comes from.
        modules: whose constants the result depends on.
        more: what else it depends on, with values whose `repr` differs.

    >>> key(["trim"], []) == key(["trim"], [], trim=True)
    False
    """
    parts: list[object] = [(name, VERSIONS[name]) for name in computations]
    parts += [(module.__name__.rpartition(".")[2], sorted(constants(module).items())) for module in modules]
    parts += [sorted(more.items())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def constants(module: ModuleType) -> Mapping[str, Any]:
    """Numbers, texts and tuples of them that a module has in capital letters.

    >>> from mifuse.models import frontend
    >>> constants(frontend)["N_MELS"]
    32
    """
    plain = (int, float, str, tuple)
    return {
        name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, plain)
    }
