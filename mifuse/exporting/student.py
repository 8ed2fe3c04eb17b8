"""From a student's folder and a target manifest to a bundle: which clips calibrate, which ones judge."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mifuse.clips.audio import SAMPLE_RATE, AudioCache, Samples
from mifuse.clips.labels import canonical
from mifuse.clips.manifest import Clip, Manifest, read_manifest
from mifuse.errors import MifuseError

if TYPE_CHECKING:
    from mifuse.models.hub import HubClassifier
    from mifuse.models.student import Student
    from mifuse_export import Budget, Probe
    from mifuse_export.qat import Rounding

CALIBRATION_CLIPS = 200
PROBE_CLIPS = 400
_HUB_SETTINGS = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "id2label")
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
    sign: Path | None = None,
    budget: Budget | None = None,
    qat: bool = False,
    force: bool = False,
    cache: AudioCache | None = None,
    bar: Bar = iter,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Path:
    """Write the bundle `out` of the student in the folder `student`.

    Args:
        student: what `adapt` or `train` wrote, or an audio classifier of `transformers` that hears samples.
        calibration: target manifest; None: the one that the student was adapted to, as its run.json says.
            Without int8 its clips widen the parity check and set the thresholds of streams; none are needed.
        fp16, formats, max_drop, force_int8, sign, force: see `mifuse_export.export_bundle`.
        budget: what the int8 model, which is then made, may cost. If the student's costs more, the widest
            one that does not is made from it, and taught by it on the clips to adapt to.
        progress: called with the record of each epoch in which it is taught.
        qat: where int8 fails its gate in some layer, fine-tune the student for it on the clips of the
            manifest's `adapt` split (see `mifuse.exporting.fine_tuning`).

    Raises:
        MifuseError: no student, no clips, an export not as good as the student, or none within the budget.
    """
    from mifuse.exporting.compress import within
    from mifuse.models.classifier import load_model
    from mifuse.models.features import Features
    from mifuse.models.frontend import HOP, MEL_RANGE, N_MELS
    from mifuse.models.student import Student
    from mifuse_export import OverBudgetError, Probe, check_out, export_bundle
    from mifuse_export.budget import estimate
    from mifuse_export.signing import signer
    from mifuse_runtime.settings import FrontEnd

    check_out(out, force)  # before minutes of work
    if sign:
        signer(sign)
    int8 = int8 or budget is not None
    model, cache = load_model(student), cache or AudioCache()
    frontend = FrontEnd(HOP, N_MELS, *MEL_RANGE, folded=True) if isinstance(model, Student) else None
    if not isinstance(model, Student):
        _check_exportable(student, model, qat=qat, budget=budget)
    source = calibration or _adapted_to(student, needed=int8)
    clips: list[Samples] = []
    probe = None
    adapt: Sequence[Clip] = ()
    students: Iterable[Student | HubClassifier] = [model]
    if source:
        manifest = read_manifest(source, labels=None)
        clips = _samples(calibration_clips(manifest, 2 * CALIBRATION_CLIPS), cache, bar)
        clips = stratified(clips, predicted_classes(model, clips), CALIBRATION_CLIPS)
        probe = _probe(manifest, model.labels, cache, bar) if int8 else None
        adapt = manifest.select("adapt").clips
        if budget and isinstance(model, Student):
            features = partial(Features.of, adapt, cache)
            cost = partial(estimate, clips=clips, labels=model.labels, sample_rate=SAMPLE_RATE)
            students = within(budget, model, features, cost, progress)
    for candidate in students:
        retrain = (
            partial(_retrained, candidate, adapt, cache) if qat and isinstance(candidate, Student) else None
        )
        with contextlib.suppress(OverBudgetError):
            return export_bundle(
                candidate,
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
                budget=budget,
                frontend=frontend,
                speaker=candidate.speaker_head() if isinstance(candidate, Student) else None,
                provenance=_provenance(student, model, candidate, probe or Probe(clips)),
                sign=sign,
                force=force,
            )
    raise MifuseError(f"no student made of {student} holds the budget of {budget}: give it more")


def _retrained(
    student: Student, clips: Sequence[Clip], cache: AudioCache, places: Mapping[str, Rounding]
) -> tuple[Student, dict[str, Any]]:
    """The student fine-tuned for int8 with rounding at `places`, and how."""
    from mifuse.exporting.fine_tuning import CONFIG, fine_tuned
    from mifuse.models.features import Features

    tuned = fine_tuned(student, Features.of(clips, cache), places, config=CONFIG)
    return tuned, {"steps": CONFIG.steps, "clips": len(clips)}


def _check_exportable(folder: Path, model: HubClassifier, *, qat: bool, budget: Budget | None) -> None:
    kind = model.model.config.model_type
    if not model.hears_samples:
        raise MifuseError(
            f"{folder} is a {kind}, which hears spectrograms that `transformers` makes: "
            "export a WavLM, HuBERT or wav2vec2, or adapt a student with it as --source"
        )
    if qat or budget:
        what = "a budget narrows" if budget else "--qat fine-tunes"
        raise MifuseError(
            f"{folder} is a {kind}, and {what} our students alone: adapt one with it as --source"
        )


def calibration_clips(manifest: Manifest, count: int = CALIBRATION_CLIPS) -> list[Clip]:
    """Up to `count` clips spread evenly over the durations; of the `adapt` split where there is one."""
    adapt = [clip for clip in manifest.clips if clip.split == "adapt"]
    clips = _spread(adapt or list(manifest.clips), 10 * count)  # headers of 2,000 files, not of 100,000
    return _spread(sorted(clips, key=_seconds), count)


def predicted_classes(model: Student | HubClassifier, clips: Sequence[Samples]) -> NDArray[np.int64]:
    """The class that the model hears in each clip, (N,)."""
    from mifuse_export.onnx import frozen
    from mifuse_export.parity import probabilities, torch_predict

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
    return [cache.samples(clip)[:LONGEST] for clip in bar(clips)]  # as the device hears them


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
        found = f"the manifest that it was adapted to, {target}, is gone" if target else "`adapt` wrote none"
        raise MifuseError(
            f"int8 needs clips of the target and {student} names none ({found}): pass --calibration MANIFEST"
        )
    return None


def _provenance(
    folder: Path, model: Student | HubClassifier, exported: Student | HubClassifier, probe: Probe
) -> dict[str, Any]:
    """The student's settings, and what of its run is neither a path nor a time: bundles stay reproducible.

    Where a narrower student is exported in its place, also how the two compare on the probe.
    """
    run = _run(folder)
    known = ("teacher", "teachers", "lalm", "model", "seed", "draws_sha256")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "model_type" in settings:  # the hundred others are defaults of transformers
        settings = {key: settings[key] for key in _HUB_SETTINGS if key in settings}
    found = {"student": settings} | {key: run[key] for key in known if key in run}
    from mifuse.models.student import Student

    if exported is model or not isinstance(model, Student) or not isinstance(exported, Student):
        return found
    from mifuse_export.onnx import frozen
    from mifuse_export.parity import compare, probabilities, rounded, torch_predict

    before, after = (probabilities(torch_predict(frozen(m)), probe.clips) for m in (model, exported))
    quality = compare(before, after, probe.labels)
    compressed = {
        "from size": model.size,
        "to size": exported.size,
        "clips": quality.clips,
        "agreement": rounded(quality.agreement),
        "ua": rounded(quality.ua),
        "ua before": rounded(quality.fp32_ua),
    }
    return found | {"student": settings | {"size": exported.size}, "compressed": compressed}
