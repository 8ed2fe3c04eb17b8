"""From a student's folder and a target manifest to a bundle."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mifuse.clips.audio import SAMPLE_RATE, AudioCache, Samples
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import ANY, Clip, Manifest, read_manifest
from mifuse.errors import MifuseError
from mifuse.exporting.calibration import Bar, calibration_samples, labelled_probe

if TYPE_CHECKING:
    from mifuse.models.hub import HubClassifier
    from mifuse.models.student import Student
    from mifuse_export import ExportConfig, Probe
    from mifuse_export.qat import Rounding

_HUB_SETTINGS = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "id2label")


def export_student(
    student: str | Path,
    out: str | Path,
    config: ExportConfig | None = None,
    *,
    calibration: str | Path | None = None,
    naming: Naming = ANY,
    sign: Path | None = None,
    force: bool = False,
    demo: bool = False,
    cache: AudioCache | None = None,
    bar: Bar = iter,
    progress: Callable[[dict[str, float]], object] = lambda _: None,
) -> Path:
    """Write the bundle `out` of the student in the folder `student`; returns its folder.

    Args:
        student: what `adapt` or `train` wrote, or an audio classifier of `transformers` that takes samples.
        config: formats and precisions, see `mifuse_export.ExportConfig`; None: fp32 in ONNX. With a budget,
            where the student's int8 model costs more, the widest narrower student that does not is made from
            it, and taught by it on the clips to adapt to.
        calibration: target manifest; None: the one that the student was adapted to, as its run.json says.
            Without int8 its clips widen the parity check and set the thresholds of streams; none are needed.
        naming: of the labels of `calibration`; the set is the student's.
        sign: PEM file of a private key that signs the bundle.
        force: replace an existing bundle.
        demo: the student was trained on synthetic speech; card and predictions of the bundle say so.
        bar: wraps the decoding of clips.
        progress: called with the record of each epoch in which a narrower student is taught.

    Raises:
        MifuseError: no student, no clips, an export not as good as the student, or none within the budget.
    """
    from mifuse.models.classifier import load_model
    from mifuse_export import ExportConfig, OverBudgetError, Probe, check_out
    from mifuse_export.signing import signer

    student, out, config = Path(student), Path(out), config or ExportConfig()
    check_out(out, force)  # before minutes of work
    if sign:
        signer(sign)
    model, cache = load_model(student), cache or AudioCache()
    _check_exportable(student, model, config)
    manifest = _target(student, calibration, needed=config.quantised)
    clips, adapt = calibration_samples(manifest, model, cache, bar), manifest.select("adapt").clips
    probe = _probe(manifest, model, naming, cache, bar) if config.quantised else None
    for candidate in _candidates(model, config, adapt, clips, cache=cache, progress=progress):
        provenance = _provenance(student, model, candidate, probe or Probe(clips), demo)
        with contextlib.suppress(OverBudgetError):
            return _export(
                *(candidate, out, config),
                adapt=adapt,
                cache=cache,
                calibration=clips,
                probe=probe,
                provenance=provenance,
                sign=sign,
                force=force,
            )
    raise MifuseError(f"no student made of {student} holds the budget of {config.budget}: give it more")


def _probe(
    manifest: Manifest, model: Student | HubClassifier, naming: Naming, cache: AudioCache, bar: Bar
) -> Probe | None:
    ranges = getattr(model, "dimensions", {})  # of a student; others have none
    return labelled_probe(manifest, naming.over(model.labels), ranges, cache, bar)


def _candidates(
    model: Student | HubClassifier,
    config: ExportConfig,
    clips: Sequence[Clip],
    samples: Sequence[Samples],
    *,
    cache: AudioCache,
    progress: Callable[[dict[str, float]], object],
) -> Iterable[Student | HubClassifier]:
    """The model itself, or with a budget the students made from it, the widest that holds it first."""
    from mifuse.exporting.compress import within
    from mifuse.models.features import Features
    from mifuse.models.student import Student
    from mifuse_export.budget import estimate

    if config.budget is None or not isinstance(model, Student):
        return [model]
    features = partial(Features.of, clips, cache)
    cost = partial(
        estimate,
        clips=samples,
        labels=model.labels,
        dimensions=model.dimensions,
        sample_rate=SAMPLE_RATE,
        window=config.window,
    )
    return within(config.budget, model, features, cost, progress)


def _export(
    model: Student | HubClassifier,
    out: Path,
    config: ExportConfig,
    *,
    adapt: Sequence[Clip],
    cache: AudioCache,
    **options: Any,
) -> Path:
    """`export_bundle` with what the model knows of itself; a student is fine-tuned on the clips `adapt`."""
    from mifuse.models.frontend import HOP, LOW_BINS, MEL_RANGE, N_MELS
    from mifuse.models.student import Student
    from mifuse_export import export_bundle
    from mifuse_runtime.settings import FrontEnd

    if isinstance(model, Student):
        lowest = 0 if model.prosody is None else LOW_BINS
        options["frontend"] = FrontEnd(HOP, N_MELS, *MEL_RANGE, folded=True, lowest=lowest)
        options["speaker"], options["dimensions"] = model.speaker_head(), model.dimensions
        options["retrain"] = partial(_retrained, model, adapt, cache) if config.qat else None
    return export_bundle(model, out, config, labels=model.labels, sample_rate=SAMPLE_RATE, **options)


def _retrained(
    student: Student, clips: Sequence[Clip], cache: AudioCache, places: Mapping[str, Rounding]
) -> tuple[Student, dict[str, Any]]:
    """The student fine-tuned for int8 with rounding at `places`, and how."""
    from mifuse.exporting.fine_tuning import CONFIG, fine_tuned
    from mifuse.models.features import Features

    tuned = fine_tuned(student, Features.of(clips, cache), places, config=CONFIG)
    return tuned, {"steps": CONFIG.steps, "clips": len(clips)}


def _check_exportable(folder: Path, model: Student | HubClassifier, config: ExportConfig) -> None:
    from mifuse.models.student import Student

    if isinstance(model, Student):
        return
    kind = model.model.config.model_type
    if model.says_numbers:
        raise MifuseError(f"{folder} is a regression of others: adapt a student with it as --source")
    if not model.hears_samples:
        raise MifuseError(
            f"{folder} is a {kind}, which takes spectrograms that `transformers` makes: "
            "export a WavLM, HuBERT or wav2vec2, or adapt a student with it as --source"
        )
    if config.qat or config.budget:
        what = "a budget narrows" if config.budget else "--qat fine-tunes"
        raise MifuseError(
            f"{folder} is a {kind}, and {what} our students alone: adapt one with it as --source"
        )


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


def _target(student: Path, calibration: str | Path | None, *, needed: bool) -> Manifest:
    source = Path(calibration) if calibration else _adapted_to(student, needed=needed)
    return read_manifest(source, labels=None) if source else Manifest(student, ())  # of no clips


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
    folder: Path, model: Student | HubClassifier, exported: Student | HubClassifier, probe: Probe, demo: bool
) -> dict[str, Any]:
    """The student's settings, and what of its run is neither a path nor a time: bundles stay reproducible.

    Where a narrower student is exported in its place, also how the two compare on the probe.
    """
    run = _run(folder)
    known = ("teacher", "teachers", "lalm", "model", "seed", "draws_sha256", "shares", "verdict")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "model_type" in settings:  # the hundred others are defaults of transformers
        settings = {key: settings[key] for key in _HUB_SETTINGS if key in settings}
    found = (
        ({"demo": True} if demo else {})
        | {"student": settings}
        | {key: run[key] for key in known if run.get(key) is not None}
    )
    from mifuse.models.student import Student

    if exported is model or not isinstance(model, Student) or not isinstance(exported, Student):
        return found
    from mifuse_export.onnx import frozen
    from mifuse_export.parity import compare, probabilities, rounded, torch_predict

    before, after = (probabilities(torch_predict(frozen(m)), probe.clips) for m in (model, exported))
    quality = compare(before, after, probe.labels, probe.values, dimensions=len(model.dimensions))
    compressed = {
        "from size": model.size,
        "to size": exported.size,
        "clips": quality.clips,
        "agreement": rounded(quality.agreement),
        "ua": rounded(quality.ua),
        "ua before": rounded(quality.fp32_ua),
    }
    return found | {"student": settings | {"size": exported.size}, "compressed": compressed}
