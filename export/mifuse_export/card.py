"""`README.md` of a bundle: the model card that hubs and people read, of nothing but measured facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mifuse_runtime.bundle import Bundle
from mifuse_runtime.shown import shown

NAME = "README.md"  # not named in bundle.json: hubs and people edit it, and the runtime has no use for it

_HEAD = """---
library_name: mifuse
pipeline_tag: audio-classification
tags:
- speech-emotion-recognition
- onnx
{tags}---

# {title}

Input: {rate} Hz mono, float32 in [-1, 1], `(batch, samples)` of any length; streams look at {window:g} s.
{output}The front end is part of the graph.
{dimensions}
```python
from mifuse_runtime import Recognizer  # `pip install ./runtime` in a clone of mifuse, or a release's wheel

print(Recognizer.load("path/of/this/folder").predict(samples, sample_rate))
```
"""

_SPEAKER = """Where it is known who speaks, give each person a `speaker = recognizer.speaker()` and
`recognizer.predict(samples, speaker=speaker)`: from the eighth clip on it knows the voice, without labels.
The last output, `embedding`, and `speaker.npy` serve that.
"""

_DEMO = """**A demo: it was trained on synthetic speech alone.** It is there to build an app with before
there is a student of one's own. It says nothing about real voices, and each prediction has `demo: true`.
"""

_LIMITS = """## Use and limits

It says how a voice sounds, not what a person feels, and it errs, more often for some languages, ages,
accents and microphones than for others: measure it on your own recordings first. It is no ground to hire,
rate, punish or diagnose anybody. People whose voices it judges must know, and recordings of them need a
legal basis. In the EU, inferring emotions at work and in education is prohibited except for medical and
safety reasons (Regulation (EU) 2024/1689, Article 5(1)(f)); elsewhere the people concerned must be told
(Article 50(3)).
"""


def card(folder: Path, bundle: Bundle) -> str:
    """The text of the card; `folder` holds the files that `bundle` names."""
    engines = {engine for models in bundle.models.values() for engine in models}
    tags = [*sorted(engines - {"onnxruntime"}), *(["int8"] if "int8" in bundle.models else [])]
    parts = [
        _HEAD.format(
            tags="".join(f"- {tag}\n" for tag in tags),
            title=_title(bundle),
            rate=bundle.sample_rate,
            window=bundle.window,
            output=_output(bundle),
            dimensions=_dimensions(bundle),
        ),
        *([_DEMO] if bundle.demo else []),
        *([_SPEAKER] if bundle.speaker else []),
        _table("Files", ("precision", "engine", "file", "kB"), _files(folder, bundle)),
        *_verdict(bundle),
        _LIMITS,
        _table("Measured by the export", ("what", "found"), _facts(bundle)),
        _table("Made from", ("what", "value"), _origin(bundle)),
    ]
    return "\n".join(parts)


def _title(bundle: Bundle) -> str:
    what = "Emotions" if bundle.labels else "Dimensions"
    return f"{what} from speech: {_cell(', '.join(bundle.labels or bundle.dimensions))}"


def _output(bundle: Bundle) -> str:
    count = len(bundle.labels)
    return f"Output: probabilities `(batch, {count})`, in the order above. " if count else ""


def _dimensions(bundle: Bundle) -> str:
    named = ", ".join(
        f"{_cell(name)} ({low:g} to {high:g})" for name, (low, high) in bundle.dimensions.items()
    )
    return f"The output `dimensions` has, from 0 to 1 each: {named}.\n" if named else ""


def _table(title: str, head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in (head, *rows)]
    return "\n".join(
        [f"## {title}\n", lines[0], "| " + " | ".join("---" for _ in head) + " |", *lines[1:], ""]
    )


def _cell(value: object) -> str:
    return shown(" ".join(str(value).split())).replace("|", "\\|").replace("<", "&lt;")


def _files(folder: Path, bundle: Bundle) -> Iterator[tuple[object, ...]]:
    for precision, models in bundle.models.items():
        for engine, name in models.items():
            weights = Path(name).with_suffix(".bin").as_posix()
            size = sum((folder / part).stat().st_size for part in {name, weights} & {*bundle.files})
            yield precision, engine, f"`{name}`", f"{size / 1000:.0f}"


def _facts(bundle: Bundle) -> Iterator[tuple[object, ...]]:
    quality: dict[str, Any] = dict(bundle.quality)
    what = "probability" if bundle.labels else "dimension, from 0 to 1"
    yield f"fp32 against PyTorch, largest difference of a {what}", f"{quality['parity_max_abs_dp']:.1g}"
    if "fp16" in quality:
        yield "fp16 against PyTorch, the same", f"{quality['fp16']['max_abs_dp']:.1g}"
    int8 = quality.get("int8")
    if not int8:
        return
    rows = {"onnxruntime": int8} | {key: value for key, value in int8.items() if isinstance(value, dict)}
    for engine, row in rows.items():
        where = f"int8 on {engine}, {quality['clips']} clips"
        if bundle.labels:
            yield f"{where}: same emotion as fp32", f"{row['agreement']:.1f} %"
        yield f"{where}: largest difference of a {what}", f"{row['max_abs_dp']:.3f}"
        if row["ua"] is not None:
            fp32 = quality["fp32"]["ua"]
            yield f"{where}: unweighted accuracy", f"{row['ua']:.1f} % (fp32 {fp32:.1f} %)"
        if row.get("concordance") is not None:
            yield f"{where}: CCC of a dimension with fp32, the lowest", f"{row['concordance']:.4f}"
        if row.get("ccc") is not None:
            fp32 = quality["fp32"]["ccc"]
            yield f"{where}: CCC with the truth, mean", f"{row['ccc']:.3f} (fp32 {fp32:.3f})"
    layers = bundle.provenance["int8"]["layers"]
    floats = [layer for layer, precision in layers.items() if precision != "int8"]
    yield "layers in 8 bits", f"{len(layers) - len(floats)} of {len(layers)}"
    if floats:
        yield "layers kept in float, which 8 bits harmed", ", ".join(floats)


def _verdict(bundle: Bundle) -> Iterator[str]:
    """What the adaptation expected of the student, where it said so."""
    verdict = bundle.provenance.get("verdict")
    if not verdict:
        return
    rows = [
        (where.replace("_", " "), who, _range(one, "ua"), _range(one, "accuracy"))
        for where in ("archive", "new_voices")
        for who, one in verdict[where].items()
    ]
    head = ("speakers", "who", "UA, % (95 % interval)", "accuracy, %")
    yield _table("Expected quality, estimated by the adaptation", head, iter(rows))
    yield f"{_cell(verdict['advice'])}\n"


def _range(one: dict[str, Any], name: str) -> str:
    low, high = one[f"{name}_interval"]
    return f"{one[name]:.0f} ({low:.0f} to {high:.0f})"


def _origin(bundle: Bundle) -> Iterator[tuple[object, ...]]:
    made = {key: value for key, value in bundle.provenance.items() if key not in ("int8", "verdict")}
    for key, value in (made | {"calibration": bundle.calibration}).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for name, part in parts:
            yield f"{key} {name}".strip(), part
