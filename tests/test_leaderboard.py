"""Scores of others: oruk-bench runs our adapter on shards in its schema, and audmetric agrees with us."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mifuse.demo.synth import DOMAINS, make_speaker, synthesise
from mifuse.runs.metrics import score
from mifuse_runtime import Recognizer
from tests.bundles import RATE, make_bundle

core = pytest.importorskip("oruk_bench.core")
audmetric = pytest.importorskip("audmetric")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "oruk_adapter.py"
VOICED = {"anger": "angry", "happiness": "happy", "neutral": "neutral", "sadness": "sad"}


def make_shards(folder: Path, clips: int) -> None:
    """Two parquet files as the leaderboard's are, with voices for some classes and noise for others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(clips):
        name = core.LABELS[number % len(core.LABELS)]
        samples = rng.uniform(-1, 1, RATE // 2)
        if name in VOICED:
            voice = make_speaker(DOMAINS["studio"], rng)
            samples = synthesise(VOICED[name], voice, DOMAINS["studio"], rng, seconds=0.6)
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format="FLAC")
        language = None if number % 5 == 0 else "en"
        rows.append((file.getvalue(), core.LABELS.index(name), language, f"corpus-{number % 2}"))
    schema = pa.schema(
        [
            ("audio_flac", pa.binary()),
            ("label", pa.int64()),
            ("language", pa.string()),
            ("source_id", pa.string()),
        ]
    )
    for shard, part in enumerate((rows[:10], rows[10:])):
        columns = [list(column) for column in zip(*part, strict=True)]
        pq.write_table(pa.table(columns, schema=schema), folder / f"shard-{shard}.parquet")


def check(labels: Sequence[int], predictions: Sequence[int], classes: int) -> dict[str, float]:
    """Ours is theirs; what oruk-bench says, over its seven classes."""
    ours = score(np.asarray(labels), np.eye(classes)[predictions])
    theirs = core.score(labels, predictions, ["en"] * len(labels), ["a"] * len(labels), core.LABELS)
    assert ours.wa / 100 == pytest.approx(theirs["accuracy"], abs=1e-12)
    assert ours.macro_f1 / 100 == pytest.approx(theirs["macro_f1"], abs=1e-12)
    recalls = [row["recall"] for row in theirs["per_class"].values() if row["support"]]
    assert ours.ua / 100 == pytest.approx(np.mean(recalls), abs=1e-12)
    assert ours.wa / 100 == pytest.approx(audmetric.accuracy(labels, predictions), abs=1e-12)
    # audmetric counts a class without a clip as a recall of 0 unless it is told which there are.
    said = sorted(set(labels))
    uar = audmetric.recall_per_class(labels, predictions, sorted({*labels, *predictions}))
    assert ours.ua / 100 == pytest.approx(np.mean([uar[label] for label in said]), abs=1e-12)
    assert ours.macro_f1 / 100 == pytest.approx(
        audmetric.unweighted_average_fscore(labels, predictions), abs=1e-12
    )
    return theirs


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("clips", [3, 40, 500])
def test_scores_of_random_predictions(seed: int, clips: int) -> None:
    rng = np.random.default_rng(seed)
    # Few clips: classes that occur as label alone, as prediction alone, or not at all.
    check(*rng.integers(0, 7, (2, clips)).tolist(), 7)


@pytest.mark.parametrize("corpus", ["ravdess", "nemo", "koremo"])
def test_scores_of_answers_about_real_recordings(corpora: Path, corpus: str) -> None:
    from mifuse.clips.labels import LABELS
    from mifuse.clips.manifest import read_manifest
    from mifuse.teachers.jsonl import read_jsonl

    clips = {clip.name: str(clip.label) for clip in read_manifest(corpora / corpus / "target.csv").clips}
    votes = {name: np.zeros(len(LABELS)) for name in clips}
    for draw in read_jsonl(corpora / corpus / "lalm_draws.jsonl"):
        if draw.clip[0] in votes:
            votes[draw.clip[0]] += [draw.probs[label] for label in LABELS]
    classes = [core.LABELS.index(core.norm_label(label)) for label in LABELS]
    labels = [classes[LABELS.index(label)] for label in clips.values()]
    check(labels, [classes[int(vote.argmax())] for vote in votes.values()], 7)


def test_a_bundle_is_scored_by_the_leaderboard(tmp_path: Path) -> None:
    make_shards(tmp_path / "shards", 21)
    bundle = make_bundle(tmp_path / "mine", labels=("angry", "bored", "calm", "neutral", "happy", "sad"))
    command = [sys.executable, EXAMPLE, bundle, tmp_path / "shards", "--out", tmp_path / "results"]
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    said = json.loads((tmp_path / "results" / "mine.json").read_text())
    assert (said["name"], said["n"]) == ("mine", 21)
    assert said["supported_labels"] == ["anger", "happiness", "sadness", "neutral"]
    assert said["subset_n"] == 12
    stored = np.load(tmp_path / "results" / "mine.npz")
    labels, predictions = stored["labels"].tolist(), stored["preds"].tolist()
    assert len(set(predictions)) > 1
    again = check(labels, predictions, 7)
    assert (again["accuracy"], again["macro_f1"]) == (said["accuracy"], said["macro_f1"])
    # The same as the runtime says of the same clips: bored takes no part, and calm is neutral's.
    tables, index, _, _, _ = core.load_eval(tmp_path / "shards")
    whole = Recognizer.load(bundle)
    for place, prediction in enumerate(predictions):
        scores = whole.predict(core.clip_audio(tables, index, place), RATE, gate=False).scores
        merged = {"anger": scores["angry"], "happiness": scores["happy"], "sadness": scores["sad"]}
        merged["neutral"] = scores["neutral"] + scores["calm"]
        assert core.LABELS[prediction] == max(merged, key=merged.__getitem__)


def test_a_bundle_of_other_emotions_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", labels=("bored", "happy", "tired"))
    command = [sys.executable, EXAMPLE, bundle, tmp_path, "--out", tmp_path / "results"]
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 2
    assert "knows bored, happy, tired: fewer than two of anger, happiness" in run.stderr
    assert not (tmp_path / "results").exists()
