"""A folder of recordings to a manifest: found, cut where asked, speakers kept apart."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mifuse.clips.folders import Scan, counts_text, scan
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip, write_manifest
from mifuse.errors import ManifestError

Bar = Callable[[Iterable[Clip]], Iterable[Clip]]  # wraps the reading of recordings, for a progress bar
Speakers = Callable[[Sequence[Clip]], tuple[Clip, ...]]  # fills in who speaks


def prepare(
    folder: str | Path,
    output: str | Path,
    corpus: str | None = None,
    *,
    naming: Naming | None = None,
    test: Iterable[str] | float | None = None,
    test_sets: Iterable[str] = (),
    seed: int = 0,
    force: bool = False,
    speaker_from: str | None = None,
    label_from: str | None = None,
    segment: bool = False,
    channel: str | None = None,
    speakers: Speakers | None = None,
    bar: Bar = iter,
) -> Scan:
    """Write the manifest `output` of the clips below a folder; what `scan` found, with `split` where asked.

    Args:
        corpus, naming, speaker_from, label_from: as of `scan`.
        test: speakers whose clips are of the split `test`, or their share; None: no split.
        test_sets: sets of the corpus (its column `set`) that are the split `test`, instead.
        force: replace the manifest that is there.
        segment, channel: rows are parts of recordings, of one or `each` of their channels; see
            `mifuse.clips.segments`. Both read the recordings, which takes 2 s an hour.
        speakers: says who speaks in each row before they are split, as `mifuse.voices.turns.by_voice` does.
        bar: wraps the recordings while they are read.

    Raises:
        ManifestError: as of `scan` and `split_speakers`, `output` exists, or no recording holds speech.
    """
    output = Path(output)
    if output.exists() and not force:
        raise ManifestError(f"{output} exists: choose another name, or add --force to replace it")
    found = scan(Path(folder), corpus, naming, speaker_from, label_from)
    if segment or channel:
        found = _cut(found, folder, segment, channel, bar)
    if speakers:
        found = replace(found, clips=speakers(found.clips))
    if test:
        found = replace(found, clips=split_speakers(found.clips, test, seed))
    if test_sets:
        found = replace(found, clips=_split_sets(found.clips, set(test_sets)))
    write_manifest(output, found.clips)
    return found


def _split_sets(clips: Sequence[Clip], chosen: set[str]) -> tuple[Clip, ...]:
    sets = {clip.extra.get("set") or "none" for clip in clips}
    if not chosen & sets or not sets - chosen:
        raise ManifestError(
            f"no set of {', '.join(sorted(chosen))}: there are {', '.join(sorted(sets))}; some for each split"
        )
    return tuple(
        replace(clip, split="test" if clip.extra.get("set") in chosen else "adapt") for clip in clips
    )


def _cut(
    found: Scan,
    folder: str | Path,
    segment: bool,
    channel: str | None,
    bar: Bar,
) -> Scan:
    from mifuse.clips import segments  # decodes audio, which most folders do without

    left_out = Counter(found.left_out)
    clips = segments.cut(bar(found.clips), left_out, channel, segment=segment)
    if not clips:
        raise ManifestError(
            f"{folder}: nothing is left of {len(found.clips)} recordings ({counts_text(left_out)})"
        )
    kept = {reason: count for reason, count in left_out.items() if count}
    return replace(found, clips=clips, left_out=kept, lost=found.lost + left_out[segments.UNREADABLE])


def split_speakers(clips: Sequence[Clip], test: Iterable[str] | float, seed: int = 0) -> tuple[Clip, ...]:
    """Fill the split column so that no speaker is on both sides.

    Args:
        test: the test speakers, or the share of clips that they should make up, chosen by `seed`.

    Raises:
        ManifestError: clips without speaker, unknown speakers, or nothing left on one side.
    """
    counts = Counter(clip.speaker for clip in clips)
    if None in counts:
        raise ManifestError(f"{counts[None]} clips have no speaker: a speaker-disjoint split needs one each")
    speakers = sorted(filter(None, counts))
    if isinstance(test, float):
        random.Random(seed).shuffle(speakers)  # noqa: S311 - no secret
        sums = [0]
        for speaker in speakers:
            sums.append(sums[-1] + counts[speaker])
        # At least one speaker on each side.
        cut = min(range(1, len(speakers)), key=lambda n: abs(sums[n] - test * len(clips)), default=0)
        chosen = set(speakers[:cut])
    else:
        chosen = set(test)
        if unknown := chosen - set(speakers):
            raise ManifestError(f"no speaker {sorted(unknown)[0]!r}: use some of {', '.join(speakers)}")
    if not 0 < len(chosen) < len(speakers):
        raise ManifestError(f"{len(chosen)} of {len(speakers)} speakers in test: leave some on each side")
    return tuple(replace(clip, split="test" if clip.speaker in chosen else "adapt") for clip in clips)
