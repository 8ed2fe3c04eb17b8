"""The command line turns what the user can put right into one line; everything else stays a traceback."""

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from mifuse import doctor
from mifuse.cli import main
from mifuse.errors import MifuseError
from tests.bundles import make_bundle


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MifuseError("x.csv: no rows"), "x.csv: no rows"),
        (FileNotFoundError(2, "No such file or directory", "x.wav"), "x.wav: No such file or directory"),
        (OSError("libcudart.so.13: cannot open shared object file"), "`mifuse doctor` says what to run"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "comes with [train]"),
        (ModuleNotFoundError("No module named 'onnx.helper'", name="onnx.helper"), "comes with [export]"),
    ],
)
def test_one_line(error, says, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "diagnose", fail)
    run = CliRunner().invoke(main, ["doctor"])
    assert run.exit_code == 1
    assert run.stderr.startswith("Error: ")
    assert run.stderr.count("\n") == 1
    assert says in run.stderr


def test_a_bug_stays_a_traceback(monkeypatch):
    def fail():
        raise ModuleNotFoundError("No module named 'mifuse.nonsense'", name="mifuse.nonsense")

    monkeypatch.setattr(doctor, "diagnose", fail)
    assert isinstance(CliRunner().invoke(main, ["doctor"]).exception, ModuleNotFoundError)


@pytest.mark.parametrize("arguments", [["nonsense"], ["doctor", "--nonsense"], ["evaluate"]])
def test_bad_use_is_exit_code_2(arguments):
    assert CliRunner().invoke(main, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["xyzzy"], "There are doctor, demo,"),
        (["xy\x1b[2J"], "No such command"),
        (["train", "a.csv", "--sede", "1"], "--seed"),
        (["draws", "inof"], "Did you mean 'info'?"),
        (["train", "FOLDER", "-o", "x"], "`mifuse prepare` makes a manifest of a folder"),
    ],
)
def test_near_misses_are_named(words, says, tmp_path):
    run = CliRunner().invoke(main, [str(tmp_path) if word == "FOLDER" else word for word in words])
    assert run.exit_code == 2
    assert says in run.stderr.splitlines()[-1]
    assert "\x1b" not in run.stderr


def test_what_was_given_in_the_place_of_a_student(tmp_path):
    make_bundle(tmp_path / "bundle")
    (tmp_path / "run" / "student").mkdir(parents=True)
    (tmp_path / "run" / "student" / "model.safetensors").touch()
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "pytorch_model.bin").touch()
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "manifest.csv").touch()
    (tmp_path / "empty").mkdir()
    for folder, says in {
        "bundle": "it is a bundle, which `mifuse export` made of one",
        "run": f"give {tmp_path / 'run' / 'student'}, which it holds",
        "pickle": f"hf:{tmp_path / 'pickle'} says how to convert",
        "recordings": f"train one with `mifuse train {tmp_path / 'recordings' / 'manifest.csv'}`",
        "empty": "no config.json there; give the folder that `mifuse train` or `adapt` wrote",
        "nothing": "there is no such folder",
    }.items():
        run = CliRunner().invoke(main, ["export", str(tmp_path / folder), "-o", str(tmp_path / "out")])
        assert run.exit_code == 1
        assert says in run.stderr, folder
        assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_shells_complete_commands_and_options():
    complete = BashComplete(main, {}, "mifuse", "_MIFUSE_COMPLETE").get_completions
    assert [item.value for item in complete([], "tr")] == ["train"]
    assert [item.value for item in complete(["train"], "--en")] == ["--encoder"]
