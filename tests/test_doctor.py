import configparser
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mifuse import doctor
from mifuse.cli import main

ROOT = Path(__file__).resolve().parent.parent


def fake_package(folder, name, body=""):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(body)
    return folder / name


@pytest.fixture
def fake_path(tmp_path, monkeypatch):
    """A place before everything else on the path, with a working `torch`; nothing real is touched."""
    fake_package(tmp_path, "torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_requirements_are_those_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {"base": setup["options"]["install_requires"], **setup["options.extras_require"]}
    for extra, names in doctor.REQUIREMENTS.items():
        lines = [line.strip() for line in extras[extra].splitlines() if line.strip()]
        wanted = [re.match(r"[\w-]+", line).group() for line in lines if not line.startswith("#")]
        assert list(names) == wanted, extra


def test_fix_removes_compiled_files_of_a_torchaudio_that_does_not_import(fake_path):
    body = (
        "from pathlib import Path\n"
        "if list(Path(__file__).parent.glob('lib/*.so')): raise OSError('libcudart.so.13: cannot open')"
    )
    package = fake_package(fake_path, "torchaudio", body)
    library = package / "lib" / "libtorchaudio.so"
    library.parent.mkdir()
    library.write_bytes(b"")
    failures, _ = doctor._import_all(["torchaudio"])
    assert "libcudart" in failures["torchaudio"]
    assert "mifuse doctor --fix" in doctor._requirements("train", failures).run
    assert str(library) in doctor.fix()[0]
    assert not library.exists()
    assert doctor._import_all(["torchaudio"])[0] == {}
    assert doctor.fix() == []


def test_fix_leaves_a_working_torchaudio_alone(fake_path):
    library = fake_package(fake_path, "torchaudio") / "lib" / "libtorchaudio.so"
    library.parent.mkdir()
    library.write_bytes(b"")
    assert doctor.fix() == []
    assert library.exists()


def test_an_import_that_kills_the_process_is_named(fake_path):
    fake_package(fake_path, "fine_one")
    fake_package(fake_path, "killer", "import os; os._exit(9)")
    failures, _ = doctor._import_all(["fine_one", "killer"])
    assert failures == {"killer": "the import ends the process (exit 9)"}


def test_absent_extra_is_no_failure_but_half_an_extra_is(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert doctor._requirements("teachers", {}).status == "absent"
    assert "[teachers]" in doctor._requirements("teachers", {}).run
    assert doctor._requirements("base", {}).status == "broken"
    monkeypatch.setattr(doctor, "_version", lambda name: "1" if name == "openai" else None)
    check = doctor._requirements("teachers", {})
    assert (check.status, check.detail) == ("broken", "missing: anthropic")


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("MIFUSE_CACHE", str(file))
    assert doctor._cache().status == "broken"
    monkeypatch.setenv("MIFUSE_CACHE", str(tmp_path / "new" / "deep"))
    assert doctor._cache().status == "ok"
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    assert doctor._cache().status == "warning"


def test_command(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "1")
    monkeypatch.setattr(doctor, "_import_all", lambda names: ({}, "none"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    run = CliRunner().invoke(main, ["doctor", "--json"])
    report = json.loads(run.stdout)
    assert (run.exit_code, report["ok"]) == (0, True), run.output
    plain = CliRunner().invoke(main, ["doctor"])
    assert "OPENAI_API_KEY     set" in plain.output
    assert "secret" not in run.output + plain.output

    broken = {"numpy": "ImportError: broken"}
    monkeypatch.setattr(doctor, "_import_all", lambda names: (broken, "none"))
    run = CliRunner().invoke(main, ["doctor"])
    assert run.exit_code == 1
    assert f"run: {sys.executable} -m pip install" in run.output
