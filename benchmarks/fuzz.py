"""Differential fuzzing: files from anywhere, read by us and by another reader, at random.

    python -m benchmarks.fuzz --minutes 10 [--only onnx,wav] [--inputs 100000] [--seed 1] [--findings FOLDER]

Each target is given equal time, or so many inputs. Printed: inputs tried, inputs a second, lines of the
modules that a sample of the inputs has executed, findings. A finding is an exception that is none of ours, or
another reader seeing something else in a file that we accept. Its input goes to FOLDER; the exit code is 1.

`benchmarks.guided` looks for crashes by coverage.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from benchmarks import fuzz_models, fuzz_texts

CORPUS = Path(__file__).parent / "corpus"
SAMPLED = 20  # one input in so many is watched; watching makes it ten times slower


class Target(NamedTuple):
    """What is fuzzed."""

    seeds: Callable[[], list[bytes]]
    change: Callable[[bytes, random.Random], bytes]
    check: Callable[[bytes, int], str]  # what is wrong with an input, "" for nothing
    modules: tuple[str, ...]  # whose lines are counted


TARGETS = {
    "onnx": Target(
        fuzz_models.onnx_seeds, fuzz_models.changed, fuzz_models.onnx,
        tuple(f"mifuse_runtime.{name}" for name in ("protobuf", "onnx_model", "shapes", "known", "graph")),
    ),
    "openvino": Target(
        lambda: fuzz_models.openvino_seeds()[0], fuzz_models.changed_xml, fuzz_models.openvino,
        ("mifuse_runtime.openvino_model",),
    ),
    "wav": Target(
        fuzz_texts.wav_seeds, fuzz_texts.changed_wav, fuzz_texts.wav,
        ("mifuse_runtime.containers", "mifuse_runtime.codings"),
    ),
    "json": Target(
        fuzz_texts.json_seeds, fuzz_texts.changed_json, fuzz_texts.answers,
        ("mifuse.teachers.replies", "mifuse.teachers.answers"),
    ),
    "bundle": Target(
        fuzz_texts.bundle_seeds, fuzz_texts.changed_json, fuzz_texts.bundle, ("mifuse_runtime.bundle",)
    ),
}  # fmt: skip


class Lines:
    """Lines of some modules that were executed while it watched."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.files = {
            str(sys.modules[name].__file__): _lines(Path(str(sys.modules[name].__file__))) for name in modules
        }
        self.seen: dict[str, set[int]] = {file: set() for file in self.files}

    def watch(self, check: Callable[[bytes, int], str], content: bytes, number: int) -> str:
        """Check with watching."""
        sys.settrace(self._call)
        try:
            return check(content, number)
        finally:
            sys.settrace(None)

    def _call(self, frame: FrameType, event: str, _: object) -> Any:
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            self.seen[frame.f_code.co_filename].add(frame.f_lineno)
        return self._line

    def __str__(self) -> str:
        seen = sum(len(self.seen[file] & lines) for file, lines in self.files.items())
        return f"{seen} of {sum(map(len, self.files.values()))}"


def _lines(file: Path) -> set[int]:
    """Lines within functions that can be executed."""
    found: set[int] = set()
    left: list[CodeType] = [compile(ast.parse(file.read_text(encoding="utf-8")), str(file), "exec")]
    top = True
    while left:
        code = left.pop()
        left += [part for part in code.co_consts if isinstance(part, CodeType)]
        if not top and code.co_name != "<module>":
            found |= {line for _, _, line in code.co_lines() if line and line != code.co_firstlineno}
        top = False
    return found


def fuzz(name: str, target: Target, options: argparse.Namespace, seconds: float) -> int:
    """Fuzz one target; returns the number of findings."""
    chance = random.Random(f"{options.seed} {name}")
    seeds = target.seeds()
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    for content in seeds:
        assert not target.check(content, 0), target.check(content, 0)
    lines, findings, number = Lines(target.modules), 0, 0
    begin = time.monotonic()
    while time.monotonic() - begin < seconds and not (options.inputs and number >= options.inputs):
        content = kept[number] if number < len(kept) else target.change(chance.choice(seeds + kept), chance)
        number += 1
        try:
            check = target.check
            wrong = lines.watch(check, content, number) if number % SAMPLED == 1 else check(content, number)
        except Exception:
            wrong = traceback.format_exc(limit=-3)
        if wrong:
            findings += 1
            if findings <= 10:
                options.findings.mkdir(parents=True, exist_ok=True)
                (options.findings / f"{name}-{number}").write_bytes(content)
                print(f"finding {name}-{number}: {wrong}", flush=True)
    spent = time.monotonic() - begin
    row = (name, f"{number:,}", f"{number / spent:,.0f}", str(lines), str(findings))
    print(f"| {' | '.join(row)} |", flush=True)
    return findings


def main() -> None:
    """Fuzz what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--inputs", type=int, default=0, help="of each target; 0: as many as there is time for"
    )
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(TARGETS):
        parser.error(f"unknown target {min(unknown)}: use {', '.join(TARGETS)}")
    print("| target | inputs | a second | lines executed | findings |")
    print("| --- | ---: | ---: | ---: | ---: |")
    seconds = 60 * options.minutes / len(names)
    sys.exit(bool(sum(fuzz(name, TARGETS[name], options, seconds) for name in names)))


if __name__ == "__main__":
    main()
