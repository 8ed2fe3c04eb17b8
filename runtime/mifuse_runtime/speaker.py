"""A speaker whom the device gets to know: what is said is held against how this voice usually sounds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from mifuse_runtime.audio import SILENCE_DB, Floats
from mifuse_runtime.bundle import NAME, Bundle, read
from mifuse_runtime.decision import Shares
from mifuse_runtime.errors import BundleError, MifuseError

FEWEST = 8  # clips that make a norm, of training and on the device; fewer say little about a voice
EPS = 1e-3  # added to each variance
FLOOR = 1e-7  # power of a mel bin relative to the loudest frame: -70 dB
SILENT = 1e-12  # power: a clip whose loudest frame is below it is digital silence
SPEECH = 10 ** (-SILENCE_DB / 10)  # as FLOOR: frames above it are speech

# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((\d{1,6}), (\d{1,6})\), \} *\n",
    re.S,
)


class Speaker:
    """Mean and deviation of what one person's clips gave; made by `Recognizer.speaker`, for one thread.

    It learns from each clip that it is given to, without a label: `clips` counts them. With `learning` set to
    False it stays as it is. Statistics alone, from which no speech can be made again.

    Emotions count alike, by the probabilities that they have for an unknown speaker: in training the clips
    that a voice was held against were as often of each, and people are neutral most of the time.
    """

    def __init__(self, head: Floats, student: str, classes: int, mels: int) -> None:
        self._head, self._student, self._mels = head, student, mels
        self.learning = True
        self.clips = 0
        self._classes, groups = classes, max(1, classes)  # without emotions all clips are of one kind
        self._counts = np.zeros(groups)  # clips of each emotion
        self._sums = self._squares = np.zeros((groups, head.shape[1] - 1))

    def __repr__(self) -> str:
        return f"<Speaker {self.clips} clips>"

    def answer(self, unknown: Floats, embedding: Floats, power: Floats, learn: bool = True) -> Shares:
        """The answer (C + V,) to a clip of this speaker, from that to one of an unknown speaker.

        Args:
            embedding: of the clip, (D,), the second output of the graph.
            power: its mel power, (frames, mels), and what the front end has beside it.
            learn: False: it overlaps a clip that was learnt from.

        Raises:
            BundleError: the head is not that of the model.
        """
        values = np.concatenate([embedding, spectrum(power[:, : self._mels])], dtype=np.float64)
        if values.shape != self._sums.shape[1:]:
            raise BundleError(
                f"the head for speakers takes {self._sums.shape[1]} values, the model gives {values.size}: "
                "export the bundle again"
            )
        known, classes = unknown.astype(np.float64), self._classes
        shares = known[:classes] if classes else np.ones(1)
        if self.learning and learn:
            self.clips += 1
            self._counts = self._counts + shares
            self._sums = self._sums + np.outer(shares, values)
            self._squares = self._squares + np.outer(shares, values**2)
        if self.clips < FEWEST:
            return known
        weights = 1 / (self._counts + 1)  # one clip more of each: what hardly occurred counts for less
        weights /= weights @ self._counts
        mean = weights @ self._sums
        variance = np.maximum(weights @ self._squares - mean**2, 0)
        z = (values - mean) / np.sqrt(variance + EPS)
        scores = self._head[:, :-1] @ z + self._head[:, -1]
        odds = np.exp(scores[:classes] - scores[:classes].max(initial=-np.inf))
        return np.concatenate([odds / odds.sum(), 0.5 + 0.5 * np.tanh(scores[classes:] / 2)])

    def save(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all."""
        content = {"student": self._student, "clips": self.clips}
        content |= {"counts": self._counts.tolist()}
        content |= {"sums": self._sums.tolist(), "squares": self._squares.tolist()}
        partial = Path(path).with_name(f".{Path(path).name}.tmp")
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
        partial.replace(path)

    def load(self, path: str | Path) -> Speaker:
        """Go on from a file of `save`; returns the speaker itself.

        Raises:
            MifuseError: it cannot be read, is no such file, or is of another student.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            clips, student = int(content["clips"]), content["student"]
            found = [np.array(content[key], np.float64) for key in ("counts", "sums", "squares")]
        except OSError as error:
            raise MifuseError(f"{path} cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MifuseError(f"{path} is no speaker's file ({error}): begin with a new one") from error
        if student != self._student:
            raise MifuseError(f"{path} was made with another student: begin with a new one")
        mine = (self._counts, self._sums, self._squares)
        there = all(a.shape == b.shape and np.isfinite(a).all() for a, b in zip(found, mine, strict=True))
        if not there or clips < 0 or (found[0] < 0).any() or (found[2] < 0).any():
            raise MifuseError(f"{path} is damaged: begin with a new one")
        self.clips, (self._counts, self._sums, self._squares) = clips, found
        return self


def new_speaker(folder: Path, bundle: Bundle) -> Speaker:
    """A speaker of whom nothing is known yet.

    Raises:
        BundleError: the bundle has no head for known speakers, or a damaged one.
    """
    if bundle.speaker is None:
        raise BundleError(f"{folder / NAME} names no head for known speakers: export the student again")
    head = _array(read(folder, bundle, bundle.speaker))
    if head is None or len(head) != bundle.answers or not np.isfinite(head).all():
        raise BundleError(
            f"{folder / bundle.speaker} is no head for {bundle.answers} labels and dimensions, "
            "float32 (labels, values), all of them finite: export the bundle again"
        )
    return Speaker(head, bundle.files[bundle.speaker], len(bundle.labels), bundle.frontend.mels)


def _array(content: bytes) -> Floats | None:
    """Float32 (rows, columns) of a .npy file; None for anything else.

    Not `numpy.load`: it has Python read the header, and allocates what that claims.
    """
    found = _HEADER.match(content)
    if found is None:
        return None
    rows, columns = int(found[1]), int(found[2])
    if len(content) - found.end() != 4 * rows * columns or not rows:
        return None
    return np.frombuffer(content, np.float32, offset=found.end()).reshape(rows, columns)


def spectrum(power: Floats) -> Floats:
    """Mean and deviation of each mel bin's log power in speech: (frames, mels) -> (2 * mels,)."""
    sums = power.sum(axis=1)
    relative = power / max(float(sums.max()), SILENT) + np.float32(FLOOR)
    speech = relative[relative.sum(axis=1) > SPEECH]
    logs = np.log(speech) if len(speech) else np.zeros((1, power.shape[1]), np.float32)
    return np.concatenate([logs.mean(axis=0), np.sqrt(logs.var(axis=0) + np.float32(1e-5))])
