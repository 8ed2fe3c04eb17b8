"""From a student's folder and a target manifest to a bundle: which clips calibrate, which ones judge."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mifuse.audio import SAMPLE_RATE, AudioCache, Samples
from mifuse.errors import MifuseError
from mifuse.labels import canonical
from mifuse.manifest import Clip, Manifest, read_manifest

if TYPE_CHECKING:
    from mifuse.student import Student
    from mifuse_export import Probe
    from mifuse_export.qat import Rounding

CALIBRATION_CLIPS = 200
PROBE_CLIPS = 400
LONGEST = 10 * SAMPLE_RATE  # samples of a clip that are used: the device looks at a few seconds at a time

T = TypeVar("T")
Bar = Callable[[Iterable[Clip]], Iterable[Clip]]  # wraps the decoding of clips, for a progress bar


def export_student(
    student: Path,
    out: Path,
    *,
    calibration: Path | None = None,
    int8: bool = False,
    fp16: bool = False,
    formats: Sequence[str] = ("onnx",),
    max_drop: float = 0.5,
    force_int8: bool = False,
    qat: bool = False,
    force: bool = False,
    cache: AudioCache | None = None,
    bar: Bar = iter,
) -> Path:
    """Write the bundle `out` of the student in the folder `student`.

    Args:
        calibration: target manifest; None: the one that the student was adapted to, as its run.json says.
            Without int8 its clips widen the parity check and set the thresholds of streams; none are needed.
        fp16, formats, max_drop, force_int8, force: see `mifuse_export.export_bundle`.
        qat: where int8 fails its gate in some layer, fine-tune the student for it on the clips of the
            manifest's `adapt` split (see `mifuse.qat`).

    Raises:
        MifuseError: no student, no clips, or an export that is not as good as the student.
    """
    from mifuse.frontend import HOP, MEL_RANGE, N_MELS
    from mifuse_export import check_out, export_bundle
    from mifuse_runtime.settings import FrontEnd

    check_out(out, force)  # before minutes of work
    model = load_student(student)
    source = calibration or _adapted_to(student, needed=int8)
    clips: list[Samples] = []
    probe = retrain = None
    if source:
        manifest = read_manifest(source, labels=None)
        cache = cache or AudioCache()
        clips = _samples(calibration_clips(manifest, 2 * CALIBRATION_CLIPS), cache, bar)
        clips = stratified(clips, predicted_classes(model, clips), CALIBRATION_CLIPS)
        probe = _probe(manifest, model.labels, cache, bar) if int8 else None
        retrain = partial(_retrained, model, manifest.select("adapt").clips, cache) if qat else None
    return export_bundle(
        model,
        out,
        labels=model.labels,
        sample_rate=SAMPLE_RATE,
        calibration=clips,
        int8=int8,
        fp16=fp16,
        formats=formats,
        max_drop=max_drop,
        force_int8=force_int8,
        probe=probe,
        retrain=retrain,
        frontend=FrontEnd(HOP, N_MELS, *MEL_RANGE),
        provenance=_provenance(student),
        force=force,
    )


def _retrained(
    student: Student, clips: Sequence[Clip], cache: AudioCache, places: Mapping[str, Rounding]
) -> tuple[Student, dict[str, Any]]:
    """The student fine-tuned for int8 with rounding at `places`, and how."""
    from mifuse.features import Features
    from mifuse.qat import CONFIG, fine_tuned

    tuned = fine_tuned(student, Features.of(clips, cache), places, config=CONFIG)
    return tuned, {"steps": CONFIG.steps, "clips": len(clips)}


def load_student(folder: Path) -> Student:
    """The student saved in `folder`.

    Raises:
        MifuseError: the folder holds none.
    """
    from safetensors import SafetensorError

    from mifuse.student import Student

    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise MifuseError(f"{folder} is not a student: it has no {name}; make one with `mifuse adapt`")
    try:
        if "model_type" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
            raise MifuseError(f"{folder} is a transformers checkpoint: only a mifuse student can be exported")
        with contextlib.redirect_stdout(
            io.StringIO()
        ):  # the hub's mixin says on stdout that it reads a folder
            loaded: Student = Student.from_pretrained(folder)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise MifuseError(
            f"{folder} does not load as a student ({line}): adapt again or copy it again"
        ) from error
    return loaded


def calibration_clips(manifest: Manifest, count: int = CALIBRATION_CLIPS) -> list[Clip]:
    """Up to `count` clips spread evenly over the durations; of the `adapt` split where there is one."""
    adapt = [clip for clip in manifest.clips if clip.split == "adapt"]
    clips = _spread(adapt or list(manifest.clips), 10 * count)  # headers of 2,000 files, not of 100,000
    return _spread(sorted(clips, key=_seconds), count)


def predicted_classes(model: Student, clips: Sequence[Samples]) -> NDArray[np.int64]:
    """The class that the student hears in each clip, (N,)."""
    from mifuse_export.onnx import frozen
    from mifuse_export.verify import probabilities, torch_predict

    if not clips:
        return np.zeros(0, np.int64)
    classes: NDArray[np.int64] = probabilities(torch_predict(frozen(model)), clips).argmax(axis=1)
    return classes


def stratified(clips: Sequence[Samples], classes: NDArray[np.int64], count: int) -> list[Samples]:
    """`count` of the clips: of every class as many, where it has them, spread over the durations in each.

    >>> clips = [np.zeros(n, np.float32) for n in range(1, 9)]
    >>> [len(clip) for clip in stratified(clips, np.array([0, 0, 0, 0, 0, 0, 1, 2]), 4)]
    [1, 6, 7, 8]
    """
    groups = sorted((np.flatnonzero(classes == c) for c in np.unique(classes)), key=len)
    chosen: list[int] = []
    for left, group in zip(range(len(groups), 0, -1), groups, strict=True):
        share = -((len(chosen) - min(count, len(clips))) // left)  # rounded up: what it lacks, others give
        ordered = sorted(group.tolist(), key=lambda i: len(clips[i]))
        chosen += _spread(ordered, share)
    return [clips[i] for i in sorted(chosen[:count], key=lambda i: len(clips[i]))]


def probe_clips(manifest: Manifest, labels: Sequence[str], count: int = PROBE_CLIPS) -> list[Clip]:
    """Up to `count` labelled clips that judge int8; labels of `adapt` rows are for `evaluate` alone."""
    known = (clip for clip in manifest.clips if clip.split != "adapt" and clip.label)
    return _spread([clip for clip in known if canonical(str(clip.label), labels)], count)


def judges(source: Path, labels: Sequence[str], *, cache: AudioCache | None = None, bar: Bar = iter) -> Probe:
    """Clips of a manifest that judge a bundle: the labelled ones off the adapt split, else any, unlabelled.

    Raises:
        MifuseError: the manifest or one of its clips cannot be read.
    """
    from mifuse_export import Probe

    manifest, cache = read_manifest(source, labels=None), cache or AudioCache()
    found = _probe(manifest, labels, cache, bar)
    return found or Probe(_samples(calibration_clips(manifest), cache, bar))


def _probe(manifest: Manifest, labels: Sequence[str], cache: AudioCache, bar: Bar) -> Probe | None:
    from mifuse_export import Probe

    clips = probe_clips(manifest, labels)
    if not clips:
        return None
    classes = [labels.index(str(canonical(str(clip.label), labels))) for clip in clips]
    return Probe(_samples(clips, cache, bar), np.array(classes, dtype=np.int64))


def _samples(clips: Sequence[Clip], cache: AudioCache, bar: Bar) -> list[Samples]:
    return [cache.samples(clip, trim=False)[:LONGEST] for clip in bar(clips)]


def _spread(clips: Sequence[T], count: int) -> list[T]:
    if len(clips) <= count:
        return list(clips)
    return [clips[round(i)] for i in np.linspace(0, len(clips) - 1, count)]


def _seconds(clip: Clip) -> float:
    import soundfile

    if clip.end is not None:
        return clip.end - (clip.start or 0.0)
    try:
        return float(soundfile.info(clip.path).duration) - (clip.start or 0.0)
    except soundfile.LibsndfileError:
        return 0.0  # decoding it says what is wrong


def _run(student: Path) -> dict[str, Any]:
    """What `adapt` noted about the student; empty for a student that came another way."""
    file = student / "run.json"
    if not file.is_file():
        return {}
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MifuseError(f"{file} is not JSON ({error}): pass --calibration, or remove it") from error
    return run if isinstance(run, dict) else {}


def _adapted_to(student: Path, *, needed: bool) -> Path | None:
    """The target manifest of the run, if it is still there."""
    target = _run(student).get("target")
    if isinstance(target, str) and (student / target).is_file():  # relative to run.json, or absolute
        return student / target
    if needed:
        found = f"the manifest that it was adapted to, {target}, is gone" if target else "it has no run.json"
        raise MifuseError(
            f"int8 needs clips of the target and {student} names none ({found}): pass --calibration MANIFEST"
        )
    return None


def _provenance(student: Path) -> dict[str, Any]:
    """The student's settings, and what of its run is neither a path nor a time: bundles stay reproducible."""
    run = _run(student)
    known = ("teacher", "teachers", "lalm", "model", "seed", "draws_sha256")
    settings = json.loads((student / "config.json").read_text(encoding="utf-8"))
    return {"student": settings} | {key: run[key] for key in known if key in run}
