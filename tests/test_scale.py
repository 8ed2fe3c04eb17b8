"""The benchmark of cost against clips: what it measures is there, and its clips differ."""

import json
import math
from functools import partial
from pathlib import Path

import pytest

from benchmarks import scale, scale_made
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_stages(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "VOICES", 20)
    monkeypatch.setattr(scale, "STEPS", 1)
    manifest = scale.make_clips(tmp_path, 25, 0.5)
    cache = AudioCache(tmp_path / "cache")
    assert len({cache.hash(clip) for clip in read_manifest(manifest).clips}) == 25
    stages = scale.measure(manifest, cache)
    assert list(stages) == list(scale.STAGES)
    assert all(math.isfinite(stage.seconds) and stage.peak_mb >= 0 for stage in stages.values())
    assert stages["features"].disk_mb > 0


def test_the_table_and_what_it_simulates():
    part = {"seconds": 2.0, "peak_mb": 10.0, "disk_mb": 1.0}
    double = {"seconds": 4.0, "peak_mb": 15.0, "disk_mb": 2.0}
    clips = {"10": {"labels": part, "training": part}, "20": {"labels": double, "training": part}}
    _, _, labels, training = scale.markdown({"clips": clips, "simulate": 100}).splitlines()
    assert labels.endswith("| 2.00 / 10 / 1 | 1.00 | 4.00 / 15 / 2 | 1.00 | 20.00 / 55 / 10 |")
    assert training.endswith("| 1.00 | 2.00 / 10 / 1 |")
    assert "simulated" not in scale.markdown({"clips": clips})


def test_the_page_shows_the_result():
    root = Path(__file__).resolve().parent.parent
    document = json.loads((root / "benchmarks" / "results" / "scale-made.json").read_text("utf-8"))
    assert scale.markdown(document) in (root / "docs" / "scale.md").read_text("utf-8")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_clips_that_are_only_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_made, "STEPS", 1)
    monkeypatch.setattr(scale_made, "SHARD", 25)
    stages = {}
    scale_made.measure(tmp_path, 60, 0.5, partial(scale.watched, stages, tmp_path))
    assert list(stages) == list(scale_made.STAGES)
    assert all(stages[name].disk_mb > 0 for name in ("statistics", "features", "store"))
    assert len(list(tmp_path.glob("features-*.npy"))) == 3
