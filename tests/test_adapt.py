import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mifuse.adaptation import adapt
from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.demo.stand_in import stand_in_lalm
from mifuse.demo.synth import make_domain
from mifuse.errors import TrainingError
from mifuse.fusion.recipes import RECIPES, AdaptConfig
from mifuse.fusion.refinement import RefineConfig
from mifuse.models.classifier import load_model
from mifuse.models.features import Features
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, predict
from mifuse.runs.predictions import read_predictions
from mifuse.teachers.draws import load_draws
from mifuse.voices.clustering import voices_removed
from tests.test_classifier import save_hub

pytestmark = pytest.mark.learning

ROOT = Path(__file__).parent.parent
# Six epochs, a fusion every second one.
FIT = FitConfig(steps=12, steps_per_epoch=2, batch_size=8)
CONFIG = AdaptConfig(size="xs", classifier_draws=2, refresh=2, refine=RefineConfig(rounds=1), fit=FIT)
SETTINGS = [
    *("--size", "xs", "--set", "fit.steps=12", "--set", "fit.steps_per_epoch=2", "--set", "fit.batch_size=8"),
    *("--set", "classifier_draws=2", "--set", "refresh=2"),
    *("--set", "refine.rounds=1", "--set", "refine.folds=2"),  # five folds are most of the time
]


class World:
    """A classifier, an archive of 12 clips, 4 test clips of another speaker, and draws of a stand-in LALM."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = make_domain(
            folder / "phone", "phone", speakers=4, clips_per_speaker=4, test_speakers=1, seconds=0.7
        )
        archive = read_manifest(self.manifest)
        self.clips = archive.select("adapt").clips
        self.draws = folder / "draws.jsonl"
        stand_in_lalm(archive, self.draws, draws=3)
        self.source = folder / "source"
        torch.manual_seed(0)
        self.classifier = Student(size="xs").eval()
        self.classifier.save_pretrained(self.source)
        self.cache = AudioCache(folder / "cache")
        self.lalm = load_draws(self.draws, self.clips)

    def arguments(self, out, **changes):
        options = {"source": self.source, "target": self.manifest, "draws": self.draws} | changes
        given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return ["adapt", *given, "-o", str(out), *SETTINGS]

    def run(self, out, *more, **changes):
        return CliRunner().invoke(main, [*self.arguments(out, **changes), *map(str, more)])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def done(world):
    """An uninterrupted run and what the command said."""
    out = world.folder / "student"
    return out, world.run(out, "--json")


def weights(out):
    return (out / "model.safetensors").read_bytes()


def test_run_folder(world, done):
    out, result = done
    assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == {
        *("config.json", "model.safetensors", "run.json", "predictions.csv", "README.md")
    }
    assert not out.with_name("student.partial").exists()
    run = json.loads((out / "run.json").read_text())
    assert run.keys() >= {
        *("kind", "labels", "config", "seed", "source", "target", "draws", "clips", "fusion", "history"),
        *("seconds", "versions"),
    }
    assert (run["kind"], run["clips"], run["labels"]) == ("adapt", 12, list(LABELS))
    assert run["target"] == str(world.manifest.resolve())
    assert [record["step"] for record in run["history"]] == [2, 4, 6, 8, 10, 12]
    assert run["config"]["fit"]["steps"] == 12
    for prior in run["fusion"].values():
        assert sum(prior) == pytest.approx(1)


def test_json_owns_stdout(done):
    out, result = done
    summary = json.loads(result.stdout)
    assert summary["out"] == str(out)
    assert len(summary["student_prior"]) == 4


def test_predictions(world, done):
    out, _ = done
    predictions = read_predictions(out / "predictions.csv", LABELS)
    assert list(predictions.keys) == [clip.key for clip in world.clips]
    assert set(predictions.probs) == {"LALM", "classifier", "fused", "student"}
    np.testing.assert_allclose(predictions.probs["LALM"], world.lalm.mean(0), atol=1e-4)
    for probs in predictions.probs.values():
        np.testing.assert_allclose(probs.sum(1), 1, atol=1e-4)
    assert {"lalm_weight", "lalm_mi", "classifier_mi"} <= predictions.measures.keys()
    # What is written is what the saved student says.
    probs = predict(load_model(out), Features.of(world.clips, world.cache))
    np.testing.assert_allclose(predictions.probs["student"], probs, atol=1e-4)


def test_labels_are_never_read(world, done, tmp_path):
    turned = world.manifest.with_name("turned.csv")
    text = world.manifest.read_text()
    for label, other in zip(LABELS, ("nonsense", "angry", "", "happy"), strict=True):
        text = text.replace(f",{label},", f",{other},")
    turned.write_text(text)
    assert world.run(tmp_path / "out", target=turned).exit_code == 0
    assert weights(tmp_path / "out") == weights(done[0])


def test_test_rows_are_never_read(world, done, tmp_path):
    folder = tmp_path / "phone"
    shutil.copytree(world.manifest.parent, folder)
    for clip in read_manifest(world.manifest).select("test").clips:
        (folder / clip.name).write_bytes(b"not audio")
    assert world.run(tmp_path / "out", target=folder / "manifest.csv").exit_code == 0
    assert weights(tmp_path / "out") == weights(done[0])


def test_existing_folder_resume_and_force(world, done, tmp_path):
    out = tmp_path / "student"
    shutil.copytree(done[0], out)
    before = weights(out)
    for options in ([], ["--resume"]):
        refused = world.run(out, "--seed", 1, *options)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert f"{out} exists: choose another folder, or replace the run with --force" in refused.stderr
    assert weights(out) == before
    replaced = world.run(out, "--seed", 1, "--force")
    assert replaced.exit_code == 0 and "adapted to 12 clips; predicted angry" in replaced.stdout
    assert weights(out) != before
    # Nothing to resume is no failure.
    assert world.run(tmp_path / "fresh", "--resume").exit_code == 0
    assert weights(tmp_path / "fresh") == weights(done[0])


def draws_with(world, tmp_path, change):
    lines = [json.loads(line) for line in world.draws.read_text().splitlines()]
    path = tmp_path / "draws.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in change(lines)))
    return path


BAD_DRAWS = {
    "other labels": (
        lambda rows: [r | {"probs": {"calm": 0.5, "loud": 0.5}} for r in rows],
        "calm",
    ),
    "missing clips": (
        lambda rows: [r for r in rows if r["path"] != rows[0]["path"]],
        "1 of 12 clips have no draws",
    ),
    "negative": (lambda rows: [r | {"probs": dict.fromkeys(LABELS, -0.25)} for r in rows], "-0.25"),
    "no file": (None, "no such file of draws"),
}


@pytest.mark.parametrize("case", BAD_DRAWS)
def test_draws_that_do_not_fit(world, tmp_path, case):
    change, message = BAD_DRAWS[case]
    draws = draws_with(world, tmp_path, change) if change else tmp_path / "absent.jsonl"
    refused = world.run(tmp_path / "out" / "student", draws=draws)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert message in refused.stderr
    assert refused.stderr.strip().count("\n") == 0 or refused.stderr.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "out").exists()


def test_classifier_with_other_labels(world, tmp_path):
    Student(size="xs", labels=("calm", "loud")).save_pretrained(tmp_path / "other")
    refused = world.run(tmp_path / "out", source=tmp_path / "other")
    assert refused.exit_code == 1
    assert "calm" in refused.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"other"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("refres=1", "no setting 'refres': did you mean refresh"),
        ("fit.augment.nose=0", "did you mean fit.augment.noise"),
        ("weighting=magic", "unknown weighting 'magic': choose one of"),
        ("temperature=0", "temperature"),
        ("size=huge", "unknown student size 'huge'"),
        ("fit.augment.snr=[9, 1]", "the lower bound comes first"),
    ],
)
def test_bad_settings_leave_nothing(world, tmp_path, setting, message):
    refused = world.run(tmp_path / "out", "--set", setting)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert message in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_use_is_exit_code_2(world, tmp_path):
    assert CliRunner().invoke(main, ["adapt", "--source", "x"]).exit_code == 2
    assert world.run(tmp_path / "out", "--recipe", "mine").exit_code == 2


def test_unwritable_output(world, tmp_path):
    (tmp_path / "file").write_text("")
    refused = world.run(tmp_path / "file" / "out")
    assert refused.exit_code == 1
    assert "Not a directory" in refused.stderr
    assert (tmp_path / "file").read_text() == ""


def test_full_disk_at_the_end_can_be_resumed(world, done, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(Student, "save_pretrained", full)
        refused = world.run(tmp_path / "out")
    assert refused.exit_code == 1
    assert "No space left on device" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert "holds an interrupted run: continue it" in world.run(tmp_path / "out").stderr
    assert world.run(tmp_path / "out", "--resume").exit_code == 0
    assert weights(tmp_path / "out") == weights(done[0])


def test_hub_classifier_as_source(world, tmp_path):
    hub = save_hub(tmp_path / "hub")
    result = world.run(tmp_path / "out", source=f"hf:{hub}")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "config.json").read_text())["size"] == "xs"


def test_paper_recipe_and_other_size(world, tmp_path):
    result = world.run(tmp_path / "out", "--recipe", "paper", "--set", "size=s", "--set", "fit.steps=2")
    assert result.exit_code == 0, result.output
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["config"]["size"] == "s"  # and so from scratch, whatever the classifier is
    assert run["config"]["average"] is RECIPES["paper"].average


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop_after(epoch):
    def progress(record):
        if record["epoch"] == epoch:
            raise Stopped

    return progress


def through(world, state, config=CONFIG, seed=0, lalm=None, clips=None, **options):
    clips = world.clips if clips is None else clips
    lalm = world.lalm if lalm is None else lalm
    return adapt(clips, lalm, world.classifier, world.cache, config=config, seed=seed, state=state, **options)


@pytest.fixture(scope="module")
def whole(world):
    """`through` without an interruption."""
    return through(world, None)


@pytest.mark.parametrize("epoch", [2, 4, 6])  # the state is that of the epoch before: 1, 3, 5
def test_interrupted_within_a_refresh_period(world, whole, tmp_path, epoch):
    with pytest.raises(Stopped):
        through(world, tmp_path / "cut", progress=stop_after(epoch))
    torch.manual_seed(77)
    resumed = through(world, tmp_path / "cut")
    theirs = resumed.student.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in whole.student.state_dict().items())
    for name in ("targets", "probs", "lalm", "classifier"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name))
    assert [r["loss"] for r in whole.history] == [r["loss"] for r in resumed.history]


def test_only_the_same_run_is_resumed(world, tmp_path):
    with pytest.raises(Stopped):
        through(world, tmp_path, progress=stop_after(3))

    def refused(name, **changes):
        with pytest.raises(TrainingError, match=f"was started with another {name}: resume with the same"):
            through(world, tmp_path, **changes)

    refused("temperature", config=replace(CONFIG, temperature=2.0))
    refused("refine.trust", config=replace(CONFIG, refine=RefineConfig(rounds=1, trust=0.5)))
    refused("fit.lr", config=replace(CONFIG, fit=replace(FIT, lr=1e-4)))
    refused("seed", seed=1)
    refused("draws", lalm=world.lalm[::-1, ::-1])
    refused("target", clips=world.clips[::-1])


def test_the_classifier_is_not_changed(world, whole):
    before = load_model(world.source).state_dict()  # saved before any run
    assert all(torch.equal(tensor, before[name]) for name, tensor in world.classifier.state_dict().items())
    assert not whole.student.training


def test_draws_of_another_shape(world):
    with pytest.raises(TrainingError, match=r"draws of shape \(3, 11, 4\) do not fit 12 clips and 4 labels"):
        through(world, None, lalm=world.lalm[:, 1:])


def environment(world):
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "export", "runtime"))
    threads = str(torch.get_num_threads())  # as here: sums over more threads round otherwise
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this platform")
def test_kill_9_and_resume(world, done, tmp_path):
    out, partial = tmp_path / "student", tmp_path / "student.partial"
    command = [sys.executable, "-m", "mifuse", *world.arguments(out)]
    process = subprocess.Popen(command, env=environment(world), cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (partial / "state.safetensors").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    if out.exists():  # the machine was too fast for us; what is left is a finished run
        pytest.skip("the run ended before it could be killed")
    assert process.returncode == -signal.SIGKILL
    resumed = world.run(out, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert weights(out) == weights(done[0])
    assert {p.name for p in tmp_path.iterdir()} == {"student"}


@pytest.mark.parametrize("named", ["all", "some", "unwanted"])
def test_whose_voices_are_taken_out(world, monkeypatch, named):
    """Those of named speakers, and similar ones where a clip names nobody; none where that is not wanted."""
    asked = []

    def spy(values, speakers, views, seed):
        asked.append((list(speakers), views))
        return voices_removed(values, speakers, views, seed)

    monkeypatch.setattr("mifuse.fusion.teaching.voices_removed", spy)
    refinement = replace(CONFIG.refine, speakers=named != "unwanted")
    clips = [
        replace(clip, speaker="ann" if named == "all" or i < 8 else None)
        for i, clip in enumerate(world.clips * 2)
    ]
    config, lalm = replace(CONFIG, refine=refinement), np.tile(world.lalm, (1, 2, 1))
    adapted = adapt(clips, lalm, world.classifier, world.cache, config=config)
    assert np.isfinite(adapted.targets).all()
    assert len(asked) == 1
    found = {"all": {"ann"}, "unwanted": {"all"}}
    assert set(asked[0][0]) == found.get(named, {"ann", "voice 1", "voice 2"})
    assert named != "some" or asked[0][0][:9] == ["ann"] * 8 + ["voice 1"]
    np.testing.assert_array_equal(asked[0][1][0], lalm.mean(axis=0))


def test_unnamed_speakers_are_said(world, done, tmp_path):
    """Where all are taken for one voice, or are named, nothing is said."""
    target = make_domain(tmp_path / "phone", "phone", speakers=4, clips_per_speaker=4, seed=1, seconds=0.7)
    stand_in_lalm(read_manifest(target), tmp_path / "draws.jsonl", draws=2)
    clips = [clip.without_speaker() for clip in read_manifest(target).clips]
    write_manifest(target.with_name("unnamed.csv"), clips)
    files = {"target": target.with_name("unnamed.csv"), "draws": tmp_path / "draws.jsonl"}
    unnamed = world.run(tmp_path / "out", **files)
    assert unnamed.exit_code == 0, unnamed.output
    assert "16 clips name no speaker" in unnamed.stderr
    one_voice = world.run(tmp_path / "one", "--set", "refine.speakers=false", **files)
    assert one_voice.exit_code == 0, one_voice.output
    assert "name no speaker" not in one_voice.stderr
    assert "name no speaker" not in done[1].stderr
