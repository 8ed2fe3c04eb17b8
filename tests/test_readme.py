"""The README: short, its commands exist, its app runs."""

import re
import shlex
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path

import pytest

from mifuse.cli import COMMANDS, main
from tests.bundles import make_bundle, tone

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_short_and_to_the_point():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert {"make demo", "make test"} <= {line.split("#")[0].strip() for line in lines[:15]}


def test_make_knows_the_verbs():
    verbs = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(verbs) >= {words[1] for words in commands() if words[0] == "make"}
    assert set(verbs) >= set(
        re.findall(r"`([a-z]+)`", README[README.index("`make help` lists") :].split("\n")[0])
    )


def test_its_commands_and_options_exist():
    used = [words[1:] for words in commands() if words[0] == "mifuse"]
    assert {name for name, *_ in used} <= set(COMMANDS)
    for name, *words in used:
        if find_spec(f"mifuse.commands.{name}") is None:
            continue
        command = main.get_command(None, name)
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, name


def test_its_device_commands_parse():
    from mifuse_runtime.__main__ import _parser

    for words in commands():
        if words[0] == "mifuse-runtime":
            assert _parser().parse_args(words[1:]).run


def test_its_app_runs(tmp_path):
    (app,) = blocks("python")
    code = [line for line in app.splitlines() if line]
    assert len(code) <= 10
    (tmp_path / "app.py").write_text(app, encoding="utf-8")
    make_bundle(tmp_path / "bundle")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((tone() * 32767).astype("<i2").tobytes())
    run = subprocess.run(
        [sys.executable, "app.py", "a.wav"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "runtime")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"a\.wav (angry|happy|neutral|sad) [01]\.\d\d\n", run.stdout)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^):]+)\)", README))
def test_its_links_lead_somewhere(link):
    assert (ROOT / link).is_file()


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "runtime" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_short_and_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    long = [
        line
        for line in prose.splitlines()
        if len(line) > 120 and not line.lstrip().startswith("|") and " " in line.strip()[:100]
    ]
    assert long == []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_the_map_has_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {folder.name for folder in (ROOT / "mifuse").iterdir() if (folder / "__init__.py").exists()}
    assert {room for room in rooms if f"`{room}/`" not in text} == set()
    files = {file.name for file in (ROOT / "mifuse").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert {file for file in files if f"`{file}`" not in text} <= {"config.py", "errors.py", "doctor.py"}


def test_the_log_lists_every_entry():
    folder = ROOT / "docs" / "log"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for entry in folder.glob("2*.md"):
        text = entry.read_text(encoding="utf-8")
        assert f"]({entry.name})" in index
        assert text.startswith(f"# {entry.name[:10]}: ")
        assert ("**Superseded** by" in text) == (
            f"]({entry.name}) (superseded)" in index.replace("\n  ", " ")
        )
    assert len((ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").splitlines()) <= 70
