"""As in a container: no HOME, a read-only root, one core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import make_bundle, speech
from tests.test_field_cases import wav

READ_ONLY = "mount -o remount,ro,bind / && exec "


def confined(
    folder: Path, *command: object, before: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command on one core, where nothing can be written but what `before` mounts."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    words = [
        "unshare",
        "-m",
        "sh",
        "-c",
        f'{before}{READ_ONLY}"$@"',
        "sh",
        "taskset",
        "-c",
        "0",
        *map(str, command),
    ]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def able() -> bool:
    if not (shutil.which("unshare") and shutil.which("taskset")):
        return False
    return confined(Path("/"), "true").returncode == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not able():
        pytest.skip("a mount of one's own needs root and unshare: the read-only root is not tried")
    folder = tmp_path_factory.mktemp("container")
    make_bundle(folder / "bundle")
    (folder / "a.wav").write_bytes(wav(speech(2.0, pitch=170.0)))
    (folder / "m.csv").write_text("path,label\na.wav,sad\n")
    (folder / "scratch").mkdir()
    return folder


def test_the_runtime_needs_nowhere_to_write(place: Path) -> None:
    done = confined(place, sys.executable, "-m", "mifuse_runtime", "predict", "bundle", "a.wav", "--jobs", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a.wav: ")


def test_the_workstation_says_what_it_needs(place: Path) -> None:
    command = (sys.executable, "-m", "mifuse", "evaluate", "bundle", "m.csv", "--json")
    refused = confined(place, *command)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "cannot use the audio cache" in refused.stderr and "set MIFUSE_CACHE" in refused.stderr
    scratch = f"mount -t tmpfs tmpfs {place / 'scratch'} && "
    done = confined(place, *command, before=scratch, MIFUSE_CACHE=str(place / "scratch"))
    assert done.returncode == 0, done.stderr
    # A cache that comes with an image is read; what is not in it is decoded into a temporary folder.
    shutil.rmtree(place / "cache", ignore_errors=True)
    filled = subprocess.run(
        command, cwd=place, env={**os.environ, "MIFUSE_CACHE": str(place / "cache")}, check=False
    )
    assert filled.returncode == 0
    kept = {"MIFUSE_CACHE": str(place / "cache"), "TMPDIR": str(place / "scratch")}
    again = confined(place, *command, before=scratch, **kept)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert again.stderr.count("cannot be written") == 1
