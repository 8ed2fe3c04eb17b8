"""`mifuse verify`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mifuse.clips.labels import Naming
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo
from mifuse.commands.progress import reading

if TYPE_CHECKING:
    from mifuse_export.parity import Predict
    from mifuse_export.verify import Row
    from mifuse_runtime.bundle import Bundle


@click.command(epilog="Example: mifuse verify bundle/ target.csv --student student/")
@click.argument("bundle", type=click.Path(file_okay=False, path_type=Path))
@click.argument("manifest", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--student",
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoint to compare with; else the bundle's own fp32 ONNX model.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Points of UA (expected accuracy without labels) that 8 bits may cost.",
)
@click.option(
    "--public-key",
    metavar="KEY.pub",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Check, too, that the owner of this key signed the bundle; needs mifuse[signing].",
)
@naming_options()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(
    *,
    bundle: Path,
    manifest: Path | None,
    student: Path | None,
    max_drop: float,
    public_key: Path | None,
    naming: Naming,
    as_json: bool,
) -> None:
    """Compare every model in BUNDLE with its student, on every engine that is installed here.

    On silence, clicks, full scale, 0.1 and 60 s and a batch of 32; with MANIFEST on real clips too, on
    labelled ones off the adapt split where there are any. Exit code 1 when a difference is too large.
    """
    try:
        from mifuse.exporting.calibration import judges
        from mifuse_export.verify import verify_models
        from mifuse_runtime import signature
        from mifuse_runtime.bundle import load
    except ImportError as error:
        raise click.ClickException(f"{error}: pip install 'mifuse[train,export]'") from error

    content = load(bundle)
    if public_key:
        signature.check(bundle, public_key)
    reference = _reference(bundle, content, student)
    probe = (
        judges(manifest, naming.over(content.labels), content.dimensions, bar=reading) if manifest else None
    )
    rows = list(verify_models(bundle, content, reference, probe, max_drop))
    name = str(student or bundle / content.model("onnxruntime", "fp32"))
    if as_json:
        document = {"bundle": str(bundle), "reference": name, "models": [row.report() for row in rows]}
        echo(json.dumps(document, indent=2))
    else:
        echo(f"{bundle} against {name}")
        echo(table(rows))
    failed = [row for row in rows if row.failure]
    if failed:
        row = failed[0]
        raise click.ClickException(
            f"{len(failed)} of {len(rows)} models differ too much, {row.precision} on {row.engine} first: "
            f"{row.failure}; export again"
        )


def _reference(folder: Path, bundle: Bundle, student: Path | None) -> Predict:
    from mifuse.models.classifier import load_model
    from mifuse_export import ExportError
    from mifuse_export.onnx import frozen
    from mifuse_export.parity import torch_predict
    from mifuse_runtime import engines

    if student is None:
        return engines.start(folder, bundle, "onnxruntime", "fp32", threads=1)
    model = load_model(student)
    dimensions = tuple(getattr(model, "dimensions", ()))
    if tuple(model.labels) != bundle.labels or dimensions != tuple(bundle.dimensions):
        raise ExportError(
            f"{student} knows {', '.join((*model.labels, *dimensions))} and {folder} "
            f"{', '.join((*bundle.labels, *bundle.dimensions))}: "
            "this is not the bundle's student"
        )
    return torch_predict(frozen(model))


def table(rows: Sequence[Row]) -> str:
    """A line a model."""
    titles = ("precision", "engine", "signals max |Δp|", "clips", "agree", "max |Δp|", "UA", "reference", "")
    lines: list[tuple[str, ...]] = [titles]
    for row in rows:
        head = (row.precision, row.engine)
        if row.left_out:
            lines.append((*head, "", "", "", "", "", "", row.left_out))
            continue
        worst = max(row.signals, key=row.signals.__getitem__)
        cells: tuple[str, ...] = ("", "", "", "", "")
        if row.quality:
            found = row.quality
            ua = ["-" if value is None else f"{value:.1f} %" for value in (found.ua, found.fp32_ua)]
            cells = (str(found.clips), f"{found.agreement:.1f} %", f"{found.max_abs_dp:.1g}", *ua)
        lines.append((*head, f"{row.signals[worst]:.1g} ({worst})", *cells, row.failure or "ok"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
