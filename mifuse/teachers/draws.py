"""The draws of a LALM as one array, from a draws store or a JSONL file, and what they show without labels."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import Clip
from mifuse.errors import DrawsError
from mifuse.fusion.weighting import Array, mutual_information
from mifuse.teachers.base import Source, check_distribution, choose_source
from mifuse.teachers.jsonl import iter_jsonl, read_jsonl
from mifuse.teachers.sets import Onto, label_set
from mifuse.teachers.store.database import DrawsStore

_LOGGER = logging.getLogger(__name__)

# A teacher that says 0 means "very unlikely"; taken literally, its cross-entropy is infinite.
FLOOR = 1e-3

ALONE = "a draw says numbers and no emotions: every draw of a teacher must say the same kinds"

# clip (path or content hash) -> number of the draw -> probabilities in the order of the labels, float64:
# as bytes, a tenth of what the lines of a file take as objects
_Draws = dict[object, dict[int, bytes]]


def load_draws(
    path: Path | str,
    clips: Sequence[Clip],
    labels: Naming | Sequence[str] = LABELS,
    cache: AudioCache | None = None,
    teacher: str | None = None,
) -> Array:
    """The draws of one teacher for these clips.

    Draws over other labels are mapped: what a draw does not name is 0, what is no label is left out and the
    rest scaled up, which is said. Zeros are floored at 1e-3. A clip with fewer draws than others has its own
    repeated: all that was paid for counts.

    Args:
        path: draws store or JSONL.
        labels: order of the last axis; a naming, with a set, also says what other words mean.
        cache: knows the content hashes; for a store only.
        teacher: `teacher`, `teacher/model` or `teacher/model@prompt`; needed when the file holds several.

    Returns:
        (K, N, C) float64; K is the largest number of draws of a clip, N follows `clips`.

    Raises:
        DrawsError: no file, several teachers, clips without draws, or draws that never name a label.
    """
    naming = labels if isinstance(labels, Naming) else Naming(tuple(labels))
    if not clips:
        raise DrawsError(f"{path}: no clips to load draws for: choose another split")
    if is_store(path):
        cache = cache or AudioCache()
        keys: list[object] = [cache.hash(clip) for clip in clips]
        draws = _from_store(path, teacher, naming, set(keys))
    else:
        keys = [clip.key for clip in clips]
        draws = _from_jsonl(path, teacher, naming)
    missing = [clip.name for clip, key in zip(clips, keys, strict=True) if key not in draws]
    if missing:
        raise DrawsError(
            f"{path}: {len(missing)} of {len(clips)} clips have no draws (first: {missing[0]!r}): "
            "get them with `mifuse label`, or take their rows out of the manifest"
        )
    counts = [len(draws[key]) for key in keys]
    count = max(counts)
    if min(counts) < count:
        _LOGGER.info("%s: clips have %d to %d draws: fewer ones are repeated", path, min(counts), count)
    if count == 1:
        _LOGGER.warning(
            "%s: a single draw per clip: its mutual information is 0, so it is never doubted", path
        )
    return _stack([draws[key] for key in keys], count)


def stored_draws(path: Path | str, source: Source, hashes: Iterable[str]) -> dict[str, Array]:
    """The draws of each clip that has some, (k, C), k of its own; over the labels that the draws name."""
    naming = Naming(draws_labels(path, str(source)))
    found = _from_store(path, str(source), naming, set(hashes))
    return {key: _stack([found[key]], len(found[key]))[:, 0] for key in hashes if key in found}


def is_store(path: Path | str) -> bool:
    """Whether a file of draws is a store (SQLite by its first bytes or its name) rather than JSONL."""
    path = Path(path)
    if not path.exists():
        raise DrawsError(f"{path}: no such file of draws: get draws with `mifuse label`")
    if path.suffix == ".db" or path.is_dir():
        return True
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


@dataclass(frozen=True)
class Summary:
    """What the draws of one source say, all without labels."""

    source: Source
    clips: int
    draws: int
    prior: dict[str, float]
    """Mean probability of each label."""
    predicted: dict[str, float]
    """Share of clips whose mean draw has this label first."""
    mean_mi: float
    """Mean mutual information, nats."""

    def warnings(self) -> list[str]:
        """What should make one look twice."""
        found: list[str] = []
        if not self.predicted:  # numbers alone
            return found
        label, share = max(self.predicted.items(), key=lambda item: item[1])
        if len(self.predicted) > 2 and share > 2 / len(self.predicted):
            found.append(
                f"{share:.0%} of clips are predicted {label}: the teacher collapses toward one class; "
                "if most recordings are that, adapt with --set refine.prior=0.1"
            )
        if self.draws == self.clips:
            found.append("one draw per clip: mutual information is 0 and cannot separate sure from unsure")
        elif self.mean_mi < 1e-6:
            found.append("draws of a clip never differ: mutual information cannot separate sure from unsure")
        return found


def summarise(path: Path | str) -> list[Summary]:
    """One summary for each source of a draws store or JSONL file."""
    if is_store(path):
        with DrawsStore(path, read_only=True) as store:
            sources = store.sources()
        read: Callable[[Path | str, str, Naming], _Draws] = _from_store
    else:
        sources, read = sorted({line.source for line in read_jsonl(path)}), _from_jsonl
    found = []
    for source in sources:
        labels = draws_labels(path, str(source))
        draws = read(path, str(source), Naming(labels)) if labels else _counted(path, source)
        if not draws:
            raise DrawsError(
                f"{path}: draws of {source} are listed but not found: it is damaged, take a copy"
            )
        found.append(_summary(source, labels, draws))
    return found


def draws_labels(
    path: Path | str, teacher: str | None = None, naming: Naming | None = None
) -> tuple[str, ...]:
    """The set that the draws of one teacher are over, under our names; empty where they say numbers alone.

    Raises:
        DrawsError: no file, several teachers, or no set of labels.
    """
    words: set[str] = set()
    if is_store(path):
        with DrawsStore(path, read_only=True) as store:
            source = choose_source(store.sources(), teacher, str(path))
            for row in store.draws(source):
                words.update(row.answer.probs)
    else:
        found: dict[Source, set[str]] = {}
        for _, line in iter_jsonl(path):
            found.setdefault(line.source, set()).update(line.probs)
        words = found[choose_source(found, teacher, str(path))]
    if not words:
        return ()
    return label_set(words, naming or Naming(), f"{path}: the draws")


def _from_store(
    path: Path | str, teacher: str | None, naming: Naming, wanted: Iterable[object] | None = None
) -> _Draws:
    found: _Draws = {}
    with DrawsStore(path, read_only=True) as store:
        source = choose_source(store.sources(), teacher, str(path))
        onto = Onto(naming, f"{path}, {source}")
        for row in store.draws(source):
            if wanted is None or row.clip in wanted:
                where = f"{path}, {source}, clip {row.clip[:12]}"
                if not row.answer.probs and row.answer.dimensions:
                    raise DrawsError(f"{where}: {ALONE}")
                probs = check_distribution(row.answer.probs, where)
                found.setdefault(row.clip, {})[row.draw] = onto.packed(probs)
    if found:
        onto.say()
    return found


def _from_jsonl(path: Path | str, teacher: str | None, naming: Naming) -> _Draws:
    found: dict[Source, _Draws] = {}
    onto: dict[Source, Onto] = {}
    for _, line in iter_jsonl(path):
        draws = found.setdefault(line.source, {}).setdefault(line.clip, {})
        if line.draw in draws:
            read_jsonl(path)  # names both lines
        if not line.probs:
            raise DrawsError(f"{path}, {line.source}, {line.clip[0]!r}: {ALONE}")
        if line.source not in onto:
            onto[line.source] = Onto(naming, f"{path}, {line.source}")
        draws[line.draw] = onto[line.source].packed(line.probs)
    source = choose_source(found, teacher, str(path))
    onto[source].say()
    return found[source]


def _counted(path: Path | str, source: Source) -> _Draws:
    """The draws of a teacher that says numbers alone, without anything in them."""
    found: _Draws = {}
    if is_store(path):
        with DrawsStore(path, read_only=True) as store:
            for row in store.draws(source):
                found.setdefault(row.clip, {})[row.draw] = b""
    else:
        for line in read_jsonl(path):
            if line.source == source:
                found.setdefault(line.clip, {})[line.draw] = b""
    return found


def _stack(draws: Sequence[dict[int, bytes]], count: int) -> Array:
    """The draws of each clip as distributions, repeated until there are `count`, (count, N, C)."""
    rows = b"".join(
        clip[number] for clip in draws for number in itertools.islice(itertools.cycle(sorted(clip)), count)
    )
    given = np.frombuffer(rows, dtype=np.float64).reshape(len(draws), count, -1)
    # Sums to 1 first, so that the floor means the same for every clip.
    floored = np.maximum(given / given.sum(axis=-1, keepdims=True), FLOOR)
    return np.asarray((floored / floored.sum(axis=-1, keepdims=True)).transpose(1, 0, 2))


def _summary(source: Source, labels: Sequence[str], draws: _Draws) -> Summary:
    if not labels:
        return Summary(source, len(draws), sum(map(len, draws.values())), {}, {}, 0.0)
    means, doubts = [], []
    for count in {len(clip) for clip in draws.values()}:
        stacked = _stack([clip for clip in draws.values() if len(clip) == count], count)
        means.append(stacked.mean(axis=0))
        doubts.append(mutual_information(stacked))
    mean = np.concatenate(means)
    first = np.bincount(mean.argmax(axis=1), minlength=len(labels)) / len(mean)
    return Summary(
        source,
        clips=len(draws),
        draws=sum(map(len, draws.values())),
        prior=dict(zip(labels, mean.mean(axis=0).tolist(), strict=True)),
        predicted=dict(zip(labels, first.tolist(), strict=True)),
        mean_mi=float(np.concatenate(doubts).mean()),
    )
