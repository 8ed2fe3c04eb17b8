"""The guide's Dockerfile, line by line, without Docker; `.ci/dist` runs its steps and weighs the result."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from mifuse_runtime.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "examples" / "Dockerfile").read_text(encoding="utf-8")
LINES = [
    line.split(maxsplit=1) for line in re.sub(r"\\\n\s*", "", TEXT).splitlines() if line and line[0] != "#"
]


WORDS = ["FROM", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"]


def of(word: str) -> list[str]:
    return [rest for first, rest in LINES if first == word]


def test_it_is_two_stages_of_one_pinned_base() -> None:
    assert {word for word, _ in LINES} <= set(WORDS)
    first, second = of("FROM")
    assert first.removesuffix(" AS build") == second and re.fullmatch(r"python:3\.\d+-slim", second)
    (context, built) = of("COPY")
    assert (ROOT / context.split()[0] / "setup.cfg").is_file()
    assert built == "--from=build /app /app"


def test_nothing_runs_as_root_and_nothing_is_written() -> None:
    words = [word for word, _ in LINES]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of("USER")[0])  # by number, as Kubernetes checks it
    assert words.index("USER") < words.index("ENTRYPOINT") and "RUN" not in words[words.index("USER") :]
    run = next(line for line in TEXT.splitlines() if "docker run" in line)
    assert {"--read-only", "--cap-drop"} <= set(shlex.split(run.rstrip("\\ ")))
    assert TEXT.count(':ro"') == 2 and "--no-cache-dir" in of("RUN")[0]


def test_its_command_is_one_of_ours(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program, *words = json.loads(of("ENTRYPOINT")[0]) + json.loads(of("CMD")[0])
    assert program == "/app/bin/mifuse-runtime"
    assert words[words.index("--port") + 1] == of("EXPOSE")[0]
    assert of("EXPOSE")[0] in of("HEALTHCHECK")[0]
    (tmp_path / "token").write_text("a-token-of-enough-characters-0123456789\n")
    here = {f"/{name}": str(tmp_path / name) for name in ("bundle", "token")}
    assert main([here.get(word, word) for word in words]) == 1  # understood; there is no bundle
    assert here["/bundle"] in capsys.readouterr().err
