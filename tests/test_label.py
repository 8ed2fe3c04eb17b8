"""`mifuse label`: draws are bought once and never lost, whatever stops the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from draws_files import line, make_manifest, probs, write_lines

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import Clip, Manifest, read_manifest
from mifuse.errors import DrawsError, MifuseError
from mifuse.teachers.base import Answer, Reply, Said, Source
from mifuse.teachers.labelling import label_clips, plan
from mifuse.teachers.prices import price_of
from mifuse.teachers.questions import Labelled
from mifuse.teachers.session import MAX_ATTEMPTS
from mifuse.teachers.store.database import DrawsStore
from mifuse.teachers.store.rows import Settled

STAND_IN = Source("stand-in")


class Scripted:
    """A teacher in this process that counts its questions; `faults` says what goes wrong at which of them."""

    source = Source("scripted", "tiny", "cafe")
    default_draws = 2
    concurrency = 3
    per_request = 1

    def __init__(self, faults: dict[tuple[str, int], BaseException | dict[str, float]] | None = None) -> None:
        self.faults = faults or {}
        self.asked: list[tuple[str, int]] = []

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        (draw,) = draws
        self.asked.append((clip.name, draw))
        await asyncio.sleep(0.001)
        fault = self.faults.get((clip.name, draw))
        if isinstance(fault, BaseException):
            raise fault
        number = int(clip.name[1:].split(".", maxsplit=1)[0])
        return Reply([Said("raw", fault or probs(number, draw))], {"input": 7}, f"{clip.name}-{draw}")

    def most_usage(self, clip: Clip, draws: int) -> dict[str, int]:
        return {"input": 7}

    async def close(self) -> None:
        pass


PRICE = price_of("scripted", "tiny", "1000,0")


def label_all(teacher: Scripted, manifest: Manifest, store: DrawsStore) -> Labelled:
    questions = plan(
        manifest.clips, teacher.default_draws, store.keys(teacher.source), AudioCache()
    ).questions
    return asyncio.run(label_clips(teacher, questions, store, price=PRICE))


def test_every_draw_is_asked_once_and_kept_whole(tmp_path: Path) -> None:
    manifest, teacher = make_manifest(tmp_path, 5), Scripted()
    with DrawsStore(tmp_path / "d.db") as store:
        run = label_all(teacher, manifest, store)
        assert (run.added, run.missing, run.invalid, run.usd) == (10, (), 0, pytest.approx(0.07))
        assert store.spent() == {teacher.source: (pytest.approx(0.07), 0.0)}
        # All clips have their first draw before any has its second.
        assert [draw for _, draw in teacher.asked] == [0] * 5 + [1] * 5
        assert Counter(teacher.asked).most_common(1)[0][1] == 1
        first = next(d for d in store.draws(teacher.source) if d.answer.request_id == "c3.wav-1")
        assert first.answer == Answer(probs(3, 1), "raw", {"input": 7}, 0.007, "c3.wav-1")
        assert label_all(teacher, manifest, store) == Labelled(0, ())
        assert len(teacher.asked) == 10


def test_progress_moves_after_the_answer_is_stored(tmp_path: Path) -> None:
    manifest, teacher, answered, seen = make_manifest(tmp_path, 4), Scripted(), 0, []

    def progress(count: int) -> None:
        nonlocal answered
        answered += count
        with DrawsStore(tmp_path / "d.db", read_only=True) as reader:
            seen.append((answered, len(reader.keys(teacher.source))))

    with DrawsStore(tmp_path / "d.db") as store:
        asyncio.run(
            label_clips(teacher, plan(manifest.clips, 2, set(), AudioCache()).questions, store, progress)
        )
    assert answered == 8
    assert all(shown <= stored for shown, stored in seen)


def test_equal_content_is_bought_once(tmp_path: Path) -> None:
    make_manifest(tmp_path, 2)
    (tmp_path / "c9.wav").write_bytes((tmp_path / "c0.wav").read_bytes())
    (tmp_path / "copies.csv").write_text("path\nc0.wav\nc1.wav\nc9.wav\n")
    teacher = Scripted()
    with DrawsStore(tmp_path / "d.db") as store:
        assert label_all(teacher, read_manifest(tmp_path / "copies.csv"), store).added == 4
    assert {name for name, _ in teacher.asked} == {"c0.wav", "c1.wav"}


def test_clips_without_a_usable_answer_do_not_stop_the_others(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 5)
    teacher = Scripted({("c1.wav", 0): DrawsError("refused"), ("c2.wav", 1): {"angry": 0.5, "sad": -0.5}})
    with DrawsStore(tmp_path / "d.db") as store:
        run = label_all(teacher, manifest, store)
        assert run.added == len(store.keys(teacher.source)) == 8
        assert {(q.clip.name, q.draw) for q, _ in run.missing} == {("c1.wav", 0), ("c2.wav", 1)}
        # The one that was answered was paid, is kept, and was asked again a bounded number of times.
        assert store.attempts(teacher.source) == {(AudioCache().hash(manifest.clips[2]), 1): MAX_ATTEMPTS}
        assert teacher.asked.count(("c2.wav", 1)) == run.invalid == MAX_ATTEMPTS
        assert label_all(teacher, manifest, store).invalid == 0
    reason = (
        "scripted/tiny@cafe, 'c2.wav': 5 invalid answers, the last: the answer: probability of 'sad' is -0.5"
    )
    assert any(reason in why for _, why in run.missing)


def test_an_error_stops_asking_but_open_answers_are_kept(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 20)
    teacher = Scripted({("c4.wav", 0): MifuseError("key revoked")})
    with DrawsStore(tmp_path / "d.db") as store:
        with pytest.raises(MifuseError, match="key revoked"):
            label_all(teacher, manifest, store)
        assert len(teacher.asked) < 12
        assert len(store.keys(teacher.source)) == len(teacher.asked) - 1


def test_cancelling_keeps_what_was_answered(tmp_path: Path) -> None:
    manifest, teacher = make_manifest(tmp_path, 20), Scripted()
    questions = plan(manifest.clips, 2, set(), AudioCache()).questions

    async def cancelled(store: DrawsStore) -> None:
        task = asyncio.ensure_future(label_clips(teacher, questions, store))
        while len(teacher.asked) < 10:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with DrawsStore(tmp_path / "d.db") as store:
        asyncio.run(cancelled(store))
        assert len(store.keys(teacher.source)) >= 10 - 2 * teacher.concurrency


def test_a_store_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, teacher, tries = make_manifest(tmp_path, 20), Scripted(), []

    def full(self: DrawsStore, outcomes: list[Settled]) -> int:
        tries.append(len(outcomes))
        raise DrawsError("disk is full")

    monkeypatch.setattr(DrawsStore, "settle", full)
    with DrawsStore(tmp_path / "d.db") as store, pytest.raises(DrawsError, match="disk is full"):
        label_all(teacher, manifest, store)
    assert len(tries) == 2  # once, and once more at the end: the answers are paid
    assert len(teacher.asked) <= 2 * teacher.concurrency


# The command


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path, 6, splits=["adapt", "adapt", "test"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "lalm_draws.jsonl", [line(i, k) for i in range(6) for k in range(3)])


def run(manifest: Manifest, *arguments: object, code: int = 0, teacher: str = "replay") -> str:
    store = manifest.path.parent / "d.db"
    command = ["label", manifest.path, "--teacher", teacher, "--store", store, *arguments]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def keys(folder: Path, source: Source = STAND_IN) -> set[tuple[str, int]]:
    with DrawsStore(folder / "d.db", read_only=True) as store:
        return store.keys(source)


def test_replay_fills_the_store(manifest: Manifest, file: Path, tmp_path: Path) -> None:
    summary = json.loads(run(manifest, "--json"))
    assert summary == {
        "teacher": "stand-in", "store": str(tmp_path / "d.db"),
        "clips": 6, "draws": 3, "present": 0, "added": 18, "missing": 0,
    }  # fmt: skip
    assert len(keys(tmp_path)) == 18
    assert json.loads(run(manifest, "--json"))["present"] == 18
    assert "added    0\n" in run(manifest, teacher=f"replay:{file}")


def test_splits_and_fewer_draws(manifest: Manifest, file: Path, tmp_path: Path) -> None:
    assert json.loads(run(manifest, "--json", "--split", "adapt", "--draws", 2))["added"] == 8
    assert {draw for _, draw in keys(tmp_path)} == {0, 1}
    assert json.loads(run(manifest, "--json"))["added"] == 10


def test_dry_run_counts_and_writes_nothing(manifest: Manifest, file: Path, tmp_path: Path) -> None:
    assert json.loads(run(manifest, "--dry-run", "--json"))["missing"] == 18
    assert not (tmp_path / "d.db").exists()
    run(manifest, "--split", "test")
    output = run(manifest, "--dry-run")
    assert "present  6\nmissing  12\n" in output
    assert len(keys(tmp_path)) == 6


def test_missing_clips_are_reported_and_the_others_kept(manifest: Manifest, tmp_path: Path) -> None:
    write_lines(tmp_path / "lalm_draws.jsonl", [line(i, k) for i in range(4) for k in range(3 - (i == 3))])
    output = run(manifest, code=1)
    assert "7 draws of 3 clips could not be had, first: " in output
    assert "lalm_draws.jsonl has no draws of 'c4.wav': the others are stored" in output
    assert len(keys(tmp_path)) == 11


def test_several_teachers_in_a_file_need_a_name(manifest: Manifest, tmp_path: Path) -> None:
    rows = [line(i, 0, teacher=name) for i in range(6) for name in ("one", "two")]
    write_lines(tmp_path / "lalm_draws.jsonl", rows)
    assert "holds draws of several teachers: choose one of one, two" in run(manifest, code=1)
    assert json.loads(run(manifest, "--json", "--model", "two"))["teacher"] == "two"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": {"fear": 1.0, "scared": 0.0}}, "line 1: a repeated label 'scared'"),
        ({"probs": {**probs(0, 0), "sad": -1}}, "line 1: probability of 'sad' is -1"),
        ({"probs": dict.fromkeys(probs(0, 0), 0.5)}, "line 1: the probabilities sum to 2, not 1"),
    ],
)
def test_bad_draws_leave_no_store(
    manifest: Manifest, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_lines(tmp_path / "lalm_draws.jsonl", [line(0, 0, **change)])
    output = run(manifest, code=1)
    assert message in output
    assert output.count("\n") == 1
    assert not (tmp_path / "d.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt"], "unknown teacher 'gpt': use one of"),
        (["openai:x"], "unknown teacher 'openai:x'"),
        (["openai"], "--teacher openai needs --model"),
        (["openai", "--model", "m"], "no price is known for openai model 'm': give it with --price"),
        (["openai", "--model", "m", "--price", "0", "--batch"], "--batch: openai has no batches here"),
        (
            ["openai", "--model", "m", "--price", "0", "--temperature", 3],
            "temperature = 3.0: it must be 0 to 2",
        ),
        (["replay", "--temperature", 1], "--temperature: the teacher replay has no such setting"),
    ],
)
def test_teachers_that_cannot_be_opened(manifest: Manifest, arguments: list[object], message: str) -> None:
    assert message in run(manifest, *arguments[1:], teacher=str(arguments[0]), code=2)
    assert not (manifest.path.parent / "d.db").exists()


def test_bad_places(manifest: Manifest, file: Path, tmp_path: Path) -> None:
    absent = Manifest(tmp_path / "absent.csv", ())
    assert "absent.csv: no such manifest" in run(absent, code=1)
    assert "no such folder" in run(manifest, "--store", tmp_path / "absent" / "d.db", code=1)
    assert "not a database" in run(manifest, "--store", manifest.path, code=1)
    assert "no such file of draws" in run(manifest, teacher=f"replay:{tmp_path / 'absent.jsonl'}", code=1)
    assert "is not in the range" in run(manifest, "--draws", 0, code=2)


# Killed. The real command in a process of its own, with a replay that takes its time and writes down
# every question before it answers it.

SLOW = """
import asyncio, os, sys
from mifuse.teachers.replay import ReplayTeacher
log, answer = os.open(sys.argv.pop(1), os.O_APPEND | os.O_CREAT | os.O_WRONLY), ReplayTeacher.ask

async def ask(self, clip, draws, attempt, key):
    os.write(log, f"{clip.name} {draws[0]}\\n".encode())
    await asyncio.sleep(0.01)
    return await answer(self, clip, draws, attempt, key)

ReplayTeacher.ask, ReplayTeacher.concurrency = ask, 4
from mifuse.cli import main
main()
"""


def start(manifest: Manifest, log: Path) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    store = manifest.path.parent / "d.db"
    command = [
        sys.executable,
        "-c",
        SLOW,
        log,
        "label",
        manifest.path,
        "--teacher",
        "replay",
        "--store",
        store,
    ]
    return subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for_draws(process: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "d.db").exists():
            try:
                if len(keys(folder)) >= count:
                    return
            except DrawsError:  # the file is there, its table not yet
                pass
        time.sleep(0.01)
    pytest.fail(f"{count} draws were never there: {process.stdout and process.stdout.read()!r}")


def test_kill_9_loses_no_draw_and_buys_none_twice(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 40)
    write_lines(tmp_path / "lalm_draws.jsonl", [line(i, k) for i in range(40) for k in range(4)])
    cache, asked = AudioCache(), Counter[tuple[str, int]]()
    names = {cache.hash(clip): clip.name for clip in manifest.clips}
    for attempt, stop_at in enumerate((5, 70)):
        process = start(manifest, tmp_path / f"log{attempt}")
        wait_for_draws(process, tmp_path, stop_at)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        before = {(names[clip], draw) for clip, draw in keys(tmp_path)}
        assert stop_at <= len(before) < 160
        asked.update(questions(tmp_path / f"log{attempt}"))
        # Answered at most: everything but the four questions that were open.
        assert len(asked) - len(before) <= 4
    process = start(manifest, tmp_path / "log")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    last = questions(tmp_path / "log")
    assert not before & set(last)
    asked.update(last)
    assert len(asked) == 160
    assert sum(asked.values()) <= 160 + 2 * 4
    with DrawsStore(tmp_path / "d.db") as store:
        kept = {(names[d.clip], d.draw): d.answer.probs for d in store.draws(STAND_IN)}
    assert kept == {(f"c{i}.wav", k): probs(i, k) for i in range(40) for k in range(4)}


def questions(log: Path) -> list[tuple[str, int]]:
    return [(name, int(draw)) for name, draw in map(str.split, log.read_text().splitlines())]


def test_ctrl_c_keeps_every_answer(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 100)
    write_lines(tmp_path / "lalm_draws.jsonl", [line(i, k) for i in range(100) for k in range(40)])
    process = start(manifest, tmp_path / "log")
    wait_for_draws(process, tmp_path, 5)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 1
    assert "Aborted!" in output
    assert "Traceback" not in output
    assert 5 <= len(keys(tmp_path)) < 4_000
    assert len(questions(tmp_path / "log")) - len(keys(tmp_path)) <= 4
