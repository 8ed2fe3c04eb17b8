"""`--version` names the commit: of an archive, of a working tree, of pip's clone."""

import importlib.metadata
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from mifuse.cli import main
from mifuse_runtime import __version__, version
from mifuse_runtime.__main__ import main as runtime

ROOT = Path(__file__).resolve().parent.parent


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


needs_clone = pytest.mark.skipif(
    not (shutil.which("git") and (ROOT / ".git").exists()), reason="not a clone, or git is missing"
)


@needs_clone
def test_of_a_working_tree(capsys):
    commit = git("rev-parse", "--short", "HEAD").decode().strip()
    said = CliRunner().invoke(main, ["--version"]).stdout
    assert re.fullmatch(rf"mifuse, version {__version__} \({commit}(-dirty)?\)\n", said)
    with pytest.raises(SystemExit) as exit:
        runtime(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == said.replace("mifuse, version", "mifuse-runtime")


@needs_clone
def test_archives_hold_it(tmp_path, monkeypatch):
    name = "runtime/mifuse_runtime/commit.json"
    archive = subprocess.run(
        ["tar", "-xO"], input=git("archive", "HEAD", name), capture_output=True, check=True
    )
    (tmp_path / "commit.json").write_bytes(archive.stdout)
    monkeypatch.setattr(version, "COMMIT", tmp_path / "commit.json")
    commit = git("log", "-1", "--format=%h").decode().strip()
    assert version.described("mifuse") == f"{__version__} ({commit})"


def test_of_what_pip_cloned_and_of_nothing(tmp_path, monkeypatch):
    # As in an environment that lies within the working tree of somebody else.
    monkeypatch.setattr(version, "FOLDER", tmp_path / "a" / "b" / "mifuse_runtime")
    (tmp_path / ".git").mkdir()

    class Installed:
        def read_text(self, name):
            return {"direct_url.json": noted}.get(name)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    noted = json.dumps({"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}})
    assert version.described("mifuse") == f"{__version__} (012345678)"
    noted = None
    assert version.described("mifuse") == __version__
