"""`mifuse export`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mifuse.clips.labels import Naming
from mifuse.commands.labels import naming_options
from mifuse.commands.output import echo
from mifuse.commands.progress import distillations, reading

if TYPE_CHECKING:
    from mifuse_runtime.bundle import Bundle


@click.command(epilog="Example: mifuse export student/ -o bundle/ --int8 --calibration target.csv")
@click.argument("student", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the bundle, new."
)
@click.option("--int8", is_flag=True, help="Add an 8-bit model; the default unless it is slower here.")
@click.option("--fp16", is_flag=True, help="Add an OpenVINO model with 16-bit weights.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["onnx", "openvino", "ort"]),
    multiple=True,
    default=["onnx"],
    show_default=True,
    help="ONNX is always in the bundle; ort is for ONNX Runtime Mobile. May be given more than once.",
)
@click.option(
    "--calibration",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Manifest of target clips that set the 8-bit ranges; else the one that the student was adapted to.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Points of UA (expected accuracy without labels) that 8 bits may cost; more is an error.",
)
@click.option(
    "--budget-ms",
    type=click.FloatRange(0, min_open=True),
    default=math.inf,
    help="Median time of 3 s of audio, int8 on ONNX Runtime, one thread, on this machine.",
)
@click.option(
    "--budget-kb",
    type=click.FloatRange(0, min_open=True),
    default=math.inf,
    help="Size of model.int8.onnx, in 1000 bytes.",
)
@click.option(
    "--qat",
    is_flag=True,
    help="Where 8 bits cost too much, fine-tune the student for them (half a minute).",
)
@click.option("--force-int8", is_flag=True, help="8 bits are the default even where they are slower.")
@click.option(
    "--sign",
    metavar="KEY.pem",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Sign the bundle with this private key of an elliptic curve; needs mifuse[signing].",
)
@click.option("--force", is_flag=True, help="Replace the bundle that is there.")
@naming_options()
@click.option("--json", "as_json", is_flag=True, help="Print what was written and measured as JSON.")
def export(
    *,
    student: Path,
    out: Path,
    int8: bool,
    fp16: bool,
    formats: tuple[str, ...],
    calibration: Path | None,
    max_drop: float,
    budget_ms: float,
    budget_kb: float,
    qat: bool,
    force_int8: bool,
    sign: Path | None,
    naming: Naming,
    force: bool,
    as_json: bool,
) -> None:
    """Turn STUDENT into a bundle: ONNX, int8, OpenVINO, ORT format.

    Every file is compared with the student on real clips; if one differs too much, there is no bundle. Layers
    that 8 bits harm go back to float, most harmful first, until --max-drop holds. With --qat the student is
    fine-tuned then, with the rounding of 8 bits in it; the 8-bit model is made from whichever of the two has
    more layers in 8 bits, and held against the student as before. 8 bits that are more than 5 % slower than
    float on this machine are kept, but are not the default.

    With a budget there is an 8-bit model, which is the default and holds it. If that of STUDENT does not, the
    widest one that does is cut out of STUDENT and taught by it on the clips to adapt to; no labels are read.
    """
    if fp16 and "openvino" not in formats:
        raise click.UsageError("--fp16 is a precision of OpenVINO's files: give --format openvino, too")
    if qat and not (int8 or math.isfinite(budget_ms) or math.isfinite(budget_kb)):
        raise click.UsageError("--qat is for the 8-bit model: give --int8, too")
    try:
        from mifuse.exporting.student import export_student
        from mifuse_export import Budget, ExportConfig
    except ImportError as error:
        raise click.ClickException(f"{error}: pip install 'mifuse[train,export]'") from error

    budget = Budget(budget_kb, budget_ms)
    config = ExportConfig(
        formats=formats,
        int8=int8,
        fp16=fp16,
        max_drop=max_drop,
        force_int8=force_int8,
        budget=None if budget == Budget() else budget,
        qat=qat,
    )
    with distillations() as progress:
        export_student(
            *(student, out, config),
            calibration=calibration,
            naming=naming,
            sign=sign,
            force=force,
            bar=reading,
            progress=progress,
        )
    show(out, as_json=as_json)


def show(out: Path, *, as_json: bool) -> None:
    """Print what was written and measured."""
    from mifuse_runtime.bundle import load

    bundle = load(out)
    timing = out / "timing.json"
    times = json.loads(timing.read_text(encoding="utf-8")) if timing.is_file() else None
    sizes = {name: (out / name).stat().st_size for name in bundle.files}
    if as_json:
        result = {
            "bundle": str(out),
            "default": bundle.default,
            "bytes": sizes,
            "quality": dict(bundle.quality),
            "compressed": bundle.provenance.get("compressed"),
            "int8": bundle.provenance.get("int8"),
            "timing": times,
        }
        echo(json.dumps(result, indent=2))
        return
    for name, size in sizes.items():
        echo(f"{out / name}  {size / 1000:,.0f} kB")
    if "compressed" in bundle.provenance:
        echo(compression(bundle.provenance["compressed"]))
    echo(summary(bundle))
    if times:
        echo(speed(times, bundle.models["int8"], bundle.default))


def summary(bundle: Bundle) -> str:
    """What was measured, and which layers had to go back to float: a line each."""
    quality = bundle.quality
    lines = [f"fp32 against PyTorch: max |Δp| {quality['parity_max_abs_dp']:.1g}"]
    int8 = quality.get("int8")
    if int8:
        ua = "" if int8["ua"] is None else f", UA {int8['ua']:.1f} % (fp32 {quality['fp32']['ua']:.1f} %)"
        lines.append(
            f"int8 against fp32 on {quality['clips']} clips: agreement {int8['agreement']:.1f} %, "
            f"max |Δp| {int8['max_abs_dp']:.3f}{ua}"
        )
        done = bundle.provenance["int8"]
        how = done["retrained"]
        if how:
            lines.append(
                f"int8 is of the student fine-tuned for it: {how['steps']} steps on {how['clips']} clips"
            )
        lines += [f"back to float: {repair['layer']} ({repair['reason']})" for repair in done["repairs"]]
    return "\n".join(lines)


def compression(made: dict[str, Any]) -> str:
    """What became of the student for the budget, in a line."""
    ua = "" if made["ua"] is None else f", UA {made['ua']:.1f} % (before {made['ua before']:.1f} %)"
    return (
        f"size {made['from size']} made {made['to size']} for the budget: "
        f"agreement {made['agreement']:.1f} % on {made['clips']} clips{ua}"
    )


def speed(times: dict[str, Any], engines: Iterable[str], default: str) -> str:
    """int8 against fp32 on this machine: a line an engine, and what follows from it."""
    lines = [
        f"{engine}: int8 {row['int8_ms']:.2f} ms, fp32 {row['fp32_ms']:.2f} ms for {times['seconds']:g} s of "
        f"audio: {row['ratio']:.2f} times as fast"
        for engine in engines
        for row in [times[engine]]
    ]
    share = times["integer"]["body_share"]
    lines.append(f"integer kernels: {100 * share:.0f} % of the time behind the front end")
    if times["verdict"]:
        then = "as --force-int8 asks" if default == "int8" else "--force-int8 makes int8 the default"
        lines.append(f"{times['verdict']}; the bundle's default is {default}: {then}")
    return "\n".join(lines)
