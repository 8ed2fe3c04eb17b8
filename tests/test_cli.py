"""The command line turns what the user can put right into one line; everything else stays a traceback."""

import pytest
from click.testing import CliRunner

from mifuse import doctor
from mifuse.cli import main
from mifuse.errors import MifuseError


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
