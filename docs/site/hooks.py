"""Pages of the site that no file holds: the start, the changes, a reference of commands and of Python."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
# Public names: module -> how it is called.
MODULES = {
    "mifuse_runtime": ("Recognizer", "Prediction", "Stream", "Timeline", "Speaker", "read_audio"),
    "mifuse_runtime.errors": (),
    "mifuse.fusion.weighting": (),
    "mifuse.fusion.recipes": (),
    "mifuse.models.classifier": ("TrainConfig", "train_classifier", "load_model"),
    "mifuse.adaptation": ("adapt",),
    "mifuse.exporting.student": ("export_student",),
    "mifuse_export.settings": ("ExportConfig", "Budget"),
    "mifuse.clips.manifest": ("Clip", "Manifest", "read_manifest", "write_manifest"),
    "mifuse.clips.preparation": ("prepare",),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "reference/commands.md": commands(),
        "reference/python.md": python(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files that are not of the site name them instead."""
    source = page.file.src_uri
    made = source in ("index.md", "changelog.md")
    folder = ROOT if made else Path(config.docs_dir) / Path(source).parent

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        place = Path(os.path.normpath(folder / target))
        inside = (
            place.relative_to(config.docs_dir).as_posix() if place.is_relative_to(config.docs_dir) else ""
        )
        if place == ROOT / "CHANGELOG.md" or place == ROOT / "README.md":
            inside = "changelog.md" if place.name == "CHANGELOG.md" else "index.md"
        if not inside or files.get_file_from_path(inside) is None:
            name = place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else target
            return f"{text} (`{name}`)" if text.strip("`") != name else f"`{name}`"
        start = "." if made else Path(source).parent.as_posix()
        return f"{picture}[{text}]({os.path.relpath(inside, start)}{anchor or ''})"

    return LINK.sub(link, markdown)


def commands() -> str:
    """What `-h` says, of both programs."""
    from mifuse.cli import COMMANDS, main
    from mifuse_runtime.__main__ import COMMANDS as DEVICE
    from mifuse_runtime.__main__ import _parser

    parts = ["# Commands", "What each says with `-h`.", "## mifuse"]
    for words in ([], *([name] for name in COMMANDS)):
        said = CliRunner().invoke(main, [*words, "-h"], prog_name="mifuse").output
        parts += [_block("mifuse", words, said)]
    parser: Any = _parser()
    (choices,) = (action.choices for action in parser._actions if action.choices)
    parts += ["## mifuse-runtime", _block("mifuse-runtime", [], parser.format_help())]
    parts += [_block("mifuse-runtime", [name], choices[name].format_help()) for name in DEVICE]
    return "\n\n".join(parts) + "\n"


def _block(program: str, words: list[str], text: str) -> str:
    title = " ".join([program, *words])
    return f"### {title}\n\n```text\n{text.rstrip()}\n```"


def python() -> str:
    """Directives that become the docstrings of the public names."""
    parts = [
        "# Python",
        "`mifuse_runtime` is what devices get; [python-api](../python-api.md) has the whole way.",
    ]
    for module, names in MODULES.items():
        parts.append(f"## {module}")
        parts += [f"::: {module}.{name}" for name in names] or [f"::: {module}"]
    return "\n\n".join(parts) + "\n"
