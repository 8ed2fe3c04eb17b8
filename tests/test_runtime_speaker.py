"""A device that gets to know a speaker says what the student says of clips whose speaker is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.models.student import Student
from mifuse_export import ExportError, export_bundle
from mifuse_runtime import BundleError, MifuseError, Recognizer, speaker
from mifuse_runtime import bundle as bundles
from mifuse_runtime.audio import trim_silence
from tests import exported
from tests.bundles import RATE, make_bundle, speech
from tests.exported import CLIPS


@pytest.fixture(scope="module")
def student() -> Student:
    return exported.student()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-4), ("int8", 0.1)])
def test_device_says_what_the_student_says(
    known: Path, student: Student, engine: str, precision: str, close: float
) -> None:
    recognizer = Recognizer.load(known, engine=engine, precision=precision)
    anna = recognizer.speaker()
    for clip in CLIPS:
        recognizer.predict(clip, speaker=anna, gate=False)
    assert anna.clips == len(CLIPS) and "20 clips" in repr(anna)
    anna.learning = False
    found = [list(p.scores.values()) for p in recognizer.predict_batch(CLIPS, speaker=anna, gate=False)]
    assert anna.clips == len(CLIPS)
    with torch.no_grad():
        trimmed = [trim_silence(clip, RATE) for clip in CLIPS]
        trimmed = [np.pad(clip, (0, max(0, RATE // 10 - clip.size))) for clip in trimmed]
        raw = [student.embed(*student.features(torch.from_numpy(clip)[None])) for clip in trimmed]
        values = torch.cat(raw)
        shares = student.head(student.norm(values)).softmax(-1)
        weights = (shares / (shares.sum(0) + 1)).sum(1)[:, None]  # emotions count alike
        mean = (weights * values).sum(0) / weights.sum()
        variance = (weights * (values - mean) ** 2).sum(0) / weights.sum()
        z = (values - mean) / torch.sqrt(variance + student.norm.eps)
        expected = student.head(z).softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=close)
    alone = [list(recognizer.predict(clip, gate=False).scores.values()) for clip in CLIPS]
    assert np.abs(np.array(alone) - expected).max() > 0.2, "an unknown speaker's answers are others"


def test_a_stranger_until_the_eighth_clip(known: Path) -> None:
    recognizer = Recognizer.load(known)
    ben = recognizer.speaker()
    for number, clip in enumerate(CLIPS[:12], start=1):
        same = recognizer.predict(clip, speaker=ben, gate=False) == recognizer.predict(clip, gate=False)
        assert same == (number < speaker.FEWEST)


def test_silence_has_a_spectrum(known: Path) -> None:
    recognizer = Recognizer.load(known)
    nobody = recognizer.speaker()
    for _ in range(speaker.FEWEST + 1):
        scores = recognizer.predict(np.zeros(RATE, np.float32), speaker=nobody, gate=False).scores
    assert np.isfinite(list(scores.values())).all()


def test_saved_and_loaded(known: Path, tmp_path: Path) -> None:
    recognizer = Recognizer.load(known)
    anna = recognizer.speaker()
    for clip in CLIPS[:10]:
        recognizer.predict(clip, speaker=anna, gate=False)
    anna.save(tmp_path / "anna.json")
    again = Recognizer.load(known).speaker().load(tmp_path / "anna.json")
    assert again.clips == 10
    assert recognizer.predict(CLIPS[11], speaker=again, gate=False) == recognizer.predict(
        CLIPS[11], speaker=anna, gate=False
    )
    assert [file.name for file in tmp_path.iterdir()] == ["anna.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": "ab"}, "another student"),
        ({"clips": -1}, "is damaged"),
        ({"sums": [1.0]}, "is damaged"),
        ({"counts": [1.0, 1.0, -1.0, 1.0]}, "is damaged"),
        ({"clips": None}, "no speaker's file"),
        ({"sums": float("nan")}, "is damaged"),
    ],
)
def test_files_that_cannot_be_used(known: Path, tmp_path: Path, change: dict, message: str) -> None:
    anna = Recognizer.load(known).speaker()
    anna.save(tmp_path / "anna.json")
    content = json.loads((tmp_path / "anna.json").read_text()) | change
    (tmp_path / "anna.json").write_text(json.dumps(content))
    with pytest.raises(MifuseError, match=message):
        anna.load(tmp_path / "anna.json")
    assert anna.clips == 0
    (tmp_path / "text.json").write_text("no JSON")
    for name, reason in {"text.json": "no speaker's file", "absent.json": "cannot be read"}.items():
        with pytest.raises(MifuseError, match=reason):
            anna.load(tmp_path / name)


def test_stream_learns_once_from_each_second(known: Path) -> None:
    recognizer = Recognizer.load(known)
    voice = np.concatenate([speech(1.0, seed=seed) for seed in range(12)])
    anna = recognizer.speaker()
    options = {"window": 1.0, "hop": 0.25, "vad": lambda _: True}
    stream, plain = recognizer.stream(speaker=anna, **options), recognizer.stream(**options)
    known, unknown = stream.feed(voice), plain.feed(voice)
    assert len(known) == 45 and anna.clips == 12, "windows overlap, what is learnt does not"
    first = next(i for i, (a, b) in enumerate(zip(known, unknown, strict=True)) if a.scores != b.scores)
    assert known[first].end == pytest.approx(speaker.FEWEST)
    stream.reset()
    assert stream.feed(voice[: 2 * RATE]) and anna.clips == 14, "a stream begins anew, a speaker goes on"


def test_a_bundle_without_a_head_knows_nobody(known: Path, tmp_path: Path, student: Student) -> None:
    with pytest.raises(BundleError, match="has no body graph, which speakers need"):
        Recognizer.load(make_bundle(tmp_path / "plain")).speaker()
    with pytest.raises(BundleError, match="names no head for known speakers"):
        Recognizer.load(make_bundle(tmp_path / "split", split=True)).speaker()
    with pytest.raises(ExportError, match="needs the spectrum of a front end"):
        export_bundle(student, tmp_path / "b", labels=student.labels, speaker=student.speaker_head())


@pytest.mark.parametrize("head", [np.zeros((4, 9), np.float32), np.zeros((3, 9), np.float32), np.zeros(5)])
def test_a_head_that_does_not_fit(known: Path, tmp_path: Path, head: np.ndarray) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in known.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    np.save(copy / "speaker.npy", head)
    bundle = bundles.Bundle.from_json((copy / bundles.NAME).read_text())
    models = {p: {"onnxruntime": files["onnxruntime"]} for p, files in bundle.models.items()}
    bodies = {p: {"onnxruntime": files["onnxruntime"]} for p, files in bundle.bodies.items()}
    files = {name: bundles.sha256(copy / name) for name in bundle.files if (copy / name).is_file()}
    changed = replace(bundle, models=models, bodies=bodies, files=files)
    (copy / bundles.NAME).write_text(changed.to_json())
    with pytest.raises(BundleError, match="export the bundle again"):
        recognizer = Recognizer.load(copy)
        recognizer.predict(CLIPS[0], speaker=recognizer.speaker(), gate=False)


def test_evaluate_with_speakers(known: Path, tmp_path: Path) -> None:
    lines = ["path,label,speaker,split"]
    for i, clip in enumerate(CLIPS):
        soundfile.write(tmp_path / f"{i}.wav", clip, RATE)
        lines.append(f"{i}.wav,{('angry', 'happy', 'neutral', 'sad')[i % 4]},anna,test")
    (tmp_path / "target.csv").write_text("\n".join(lines) + "\n")
    call = ["evaluate", str(known), str(tmp_path / "target.csv"), "--json"]
    runs = (CliRunner().invoke(main, [*call, *more]) for more in ([], ["--speakers"]))
    alone, known = (json.loads(run.stdout) for run in runs)
    assert (alone["known"], known["known"], known["speakers"], known["n"]) == (False, True, 1, 20)
    assert alone["confusion"] != known["confusion"]
    student = tmp_path / "student"
    Student(size="xs").save_pretrained(student)
    refused = CliRunner().invoke(main, ["evaluate", str(student), *call[2:], "--speakers"])
    assert refused.exit_code == 2 and "is no bundle: `export` it for --speakers" in refused.stderr


def test_predict_keeps_who_speaks(
    known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mifuse_runtime.__main__ import main as runtime

    for i, clip in enumerate(CLIPS):
        soundfile.write(tmp_path / f"{i:02}.wav", clip, RATE)
    call = ["predict", str(known), str(tmp_path), "--csv"]
    me = tmp_path / "me.json"
    said = []
    for more in ([], ["--speaker", str(me)], ["--speaker", str(me)]):
        assert runtime([*call, *more]) == 0
        said.append(capsys.readouterr().out.splitlines())
    unknown, first, second = said
    assert first[: speaker.FEWEST] == unknown[: speaker.FEWEST] and first[-1] != unknown[-1]
    assert second[1] != first[1], "the second call goes on from the first"
    spoken = sum("no speech" not in row for row in unknown[1:])  # nothing is learnt where nobody speaks
    assert spoken > len(CLIPS) // 2 and json.loads(me.read_text())["clips"] == 2 * spoken
    assert runtime([*call, "--speaker", str(me), "--jobs", "2"]) == 1
    assert "leave out --jobs" in capsys.readouterr().err
    monkeypatch.setattr(Recognizer, "predict", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert runtime([*call, "--speaker", str(tmp_path / "new.json")]) == 130
    assert json.loads((tmp_path / "new.json").read_text())["clips"] == 0
    assert main_says(capsys, ["verify", str(known)]).count("speakers can be known") == 1
    assert "speaker   can be known: speaker.npy" in main_says(capsys, ["info", str(known)])


def main_says(capsys: pytest.CaptureFixture[str], call: list[str]) -> str:
    from mifuse_runtime.__main__ import main as runtime

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recognizer, "predict", PREDICT)
        assert runtime(call) == 0
    return capsys.readouterr().out


PREDICT = Recognizer.predict
