"""`mifuse`: the command line. Each command is a file of `mifuse.commands`, loaded when it is called."""

from __future__ import annotations

import difflib
import importlib
import logging
from typing import Any

import click

from mifuse_runtime import MifuseError
from mifuse_runtime.shown import shown

# name -> the line that `mifuse --help` shows; the module mifuse.commands.<name> holds the command `<name>`.
COMMANDS = {
    "doctor": "Check this installation and say what to run when something is broken.",
    "demo": "Run the whole way on two synthetic domains, or on your own manifests.",
    "fetch": "Fetch a public corpus from its makers, and prepare it.",
    "prepare": "Turn a folder or a known corpus into a manifest.",
    "train": "Train a source classifier from a labelled manifest.",
    "label": "Get draws from a LALM for every clip of a manifest.",
    "draws": "Look into a draws store, and move draws in and out.",
    "choose": "Choose the few target clips whose labels would help most.",
    "adapt": "Adapt a student to unlabelled target clips by MI-Fuse.",
    "evaluate": "Score a student or a bundle on a labelled manifest.",
    "export": "Turn a student into a bundle: ONNX, int8, OpenVINO.",
    "verify": "Compare every model of a bundle with its student.",
    "bench": "Measure the latency of a bundle on this machine.",
    "report": "Write the HTML report of a run.",
}

MANIFESTS = ("manifest", "source", "target", "calibration", "check", "labelled")  # what options call them


class LazyGroup(click.Group):
    """Loads a command's module only when it is called, and turns our errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"mifuse.commands.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {shown(name)!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            lines = "\n".join(map(shown, error.message.split("\n")))
            if isinstance(error, click.BadParameter) and _is_folder_for_manifest(error):
                lines += " `mifuse prepare` makes a manifest of a folder."
            setattr(error, "message", lines)  # noqa: B010 - click calls it final; its subclasses keep more
            raise
        except MifuseError as error:
            raise click.ClickException(shown(error)) from error
        except ModuleNotFoundError as error:
            extra = _extra_of(error.name)
            if extra is None:
                raise
            hint = f"it comes with [{extra}]: `mifuse doctor` says what to run"
            raise click.ClickException(f"{error.name} is not installed, {hint}") from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            # A library of another library: torchaudio's CUDA beside a CPU-only torch, for one.
            hint = "; `mifuse doctor` says what to run" if "shared object" in str(error) else ""
            raise click.ClickException(shown(f"{where}{error.strerror or error}{hint}")) from error


def _is_folder_for_manifest(error: click.BadParameter) -> bool:
    name = error.param.name if error.param else None
    return name in MANIFESTS and error.message.endswith("is a directory.")


def _extra_of(module: str | None) -> str | None:
    """The extra that brings a module, None for a module of no extra."""
    from mifuse.doctor import REQUIREMENTS

    name = (module or "").split(".")[0]
    return next((extra for extra, names in REQUIREMENTS.items() if name in names), None)


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from mifuse.commands.output import echo
        from mifuse_runtime.version import described

        echo(f"mifuse, version {described('mifuse')}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
    help="Show the version with its commit and exit.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Log what is done.")
def main(verbose: bool) -> None:
    """Speech emotion recognition in your domain, on the device, without labels."""
    from mifuse.commands.output import OneLine

    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
