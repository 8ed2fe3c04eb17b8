import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from mifuse import evaluation as evaluate
from mifuse.cli import main
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import read_manifest, write_manifest
from mifuse.errors import ManifestError, MifuseError
from mifuse_runtime import Recognizer
from tests.bundles import expected, make_bundle


@pytest.fixture
def manifest(tmp_path):
    """Two clips of each emotion at the level (class + 1) / 10; one unlabelled, one adapt row."""
    lines = ["path,label,speaker,split"]
    for i in range(8):
        tone = np.sin(np.arange(8_000) * 0.2) * (i % 4 + 1) / 10
        soundfile.write(tmp_path / f"{i}.wav", tone.astype(np.float32), 16_000)
        lines.append(f"{i}.wav,{LABELS[i % 4]},s{i // 4},test")
    for name, row in {"u": ",s9,test", "a": "sad,s9,adapt"}.items():
        soundfile.write(tmp_path / f"{name}.wav", tone, 16_000)
        lines.append(f"{name}.wav,{row}")
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def by_level(samples):
    """Knows the emotion from the level, except that it takes sad for angry."""
    guess = round(float(np.abs(samples).max()) * 10) - 1
    return np.eye(4)[0 if guess == 3 else guess]


def test_scores_of_a_model(manifest):
    clips = evaluate.labelled_clips(manifest, Naming(LABELS), "test").clips
    probs = evaluate.predict(by_level, clips)
    scores = evaluate.score_clips(clips, probs, LABELS)
    assert scores.n == 8  # neither the unlabelled nor the adapt row
    assert scores.ua == 75
    assert scores.confusion == [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [2, 0, 0, 0]]
    # The model's order of labels is its own.
    order = LABELS[::-1]
    assert evaluate.score_clips(clips, probs[:, ::-1], order).ua == 75


def test_labels_of_the_manifest_may_be_aliases(manifest):
    manifest.write_text(manifest.read_text().replace("happy", "joy"))
    assert {clip.label for clip in evaluate.labelled_clips(manifest, Naming(LABELS)).clips} == set(LABELS)


def test_bad_input(manifest):
    with pytest.raises(
        MifuseError, match=r"unknown label .*'happy' \(\d+ rows\).*; the labels are calm, angry"
    ):
        evaluate.labelled_clips(manifest, Naming(("calm", "angry")))
    clips = [replace(clip, label=None) for clip in read_manifest(manifest).clips]
    write_manifest(manifest, clips)
    with pytest.raises(ManifestError, match="no row with split 'test' has a label"):
        evaluate.labelled_clips(manifest, Naming(LABELS), "test")
    with pytest.raises(MifuseError, match="neither a checkpoint"):
        evaluate.open_model(manifest.parent)


def test_command(manifest, monkeypatch):
    monkeypatch.setattr(evaluate, "open_model", lambda *_: (LABELS, by_level))
    run = CliRunner().invoke(main, ["evaluate", "any", str(manifest)])
    assert run.exit_code == 0, run.output
    assert "8 clips of 2 speakers" in run.stdout
    assert "UA 75.0 % (95 % interval 75.0 to 75.0) · WA 75.0 %" in run.stdout
    assert run.stdout.splitlines()[-1].split() == ["sad", "2", "0", "0", "0", "0.0", "%"]
    report = json.loads(CliRunner().invoke(main, ["evaluate", "any", str(manifest), "--json"]).stdout)
    assert (report["ua"], report["n"], report["split"], report["labels"]) == (75, 8, "test", list(LABELS))


def test_exchanged_labels_are_reported(manifest, monkeypatch):
    monkeypatch.setattr(evaluate, "open_model", lambda *_: (LABELS, by_level))
    arguments = ["evaluate", "any", str(manifest)]
    assert json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["exchanged"] == []
    other, clips = {"happy": "neutral", "neutral": "happy"}, []
    for clip in read_manifest(manifest).clips:
        for k in range(4):
            path = clip.path.with_stem(f"{clip.path.stem}-{k}")
            path.write_bytes(clip.path.read_bytes())
            clips.append(replace(clip, path=path, label=other.get(clip.label, clip.label)))
    write_manifest(manifest, clips)
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 0 and "happy and neutral look exchanged: listen" in run.stderr
    report = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert report["exchanged"] == ["happy", "neutral"]


def test_json_of_an_absent_class_is_null(manifest, monkeypatch):
    write_manifest(manifest, [clip for clip in read_manifest(manifest).clips if clip.label == "sad"])
    monkeypatch.setattr(evaluate, "open_model", lambda *_: (LABELS, by_level))
    run = CliRunner().invoke(main, ["evaluate", "any", str(manifest), "--split", "all", "--json"])
    assert json.loads(run.stdout)["recalls"] == [None, None, None, 0]


def test_command_says_what_is_wrong_in_one_line(manifest):
    run = CliRunner().invoke(main, ["evaluate", str(manifest.parent), str(manifest)])
    assert run.exit_code == 1
    assert run.stderr.startswith("Error: ")
    assert run.stderr.count("\n") == 1
    assert CliRunner().invoke(main, ["evaluate"]).exit_code == 2


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_bundle(manifest, precision):
    folder = make_bundle(manifest.parent / "bundle", precisions=["fp32", "int8"])
    labels, run = evaluate.open_model(folder, precision=precision)
    clips = evaluate.labelled_clips(manifest, Naming(labels), "test").clips
    probs = evaluate.predict(run, clips)
    recognizer = Recognizer.load(folder, precision=precision)
    samples = evaluate.AudioCache().samples(clips[0])
    assert dict(zip(labels, probs[0], strict=True)) == recognizer.predict(samples).scores
    if precision == "fp32":
        assert probs[0] == pytest.approx(expected(samples), abs=1e-5)


def test_checkpoint(manifest, tmp_path):
    torch = pytest.importorskip("torch")
    from mifuse.models.student import Student

    student = Student(size="xs").eval()
    student.save_pretrained(tmp_path / "student")
    labels, run = evaluate.open_model(tmp_path / "student")
    clips = evaluate.labelled_clips(manifest, Naming(labels), "test").clips
    probs = evaluate.predict(run, clips[:1])
    assert labels == LABELS
    samples = evaluate.AudioCache().samples(clips[0])
    assert probs[0] == pytest.approx(student(torch.from_numpy(samples)[None])[0].detach().numpy(), abs=1e-6)
    output = CliRunner().invoke(main, ["evaluate", str(tmp_path / "student"), str(manifest), "--json"])
    assert json.loads(output.stdout)["n"] == 8, "nothing but JSON on stdout"
