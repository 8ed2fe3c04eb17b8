"""The benchmark of cost against clips: what it measures is there, and its clips differ."""

import math
from pathlib import Path

import pytest

from benchmarks import scale
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "VOICES", 20)
    monkeypatch.setattr(scale, "STEPS", 1)
    manifest = scale.make_clips(tmp_path, 25, 0.5)
    cache = AudioCache(tmp_path / "cache")
    assert len({cache.hash(clip) for clip in read_manifest(manifest).clips}) == 25
    stages = scale.measure(manifest, cache)
    assert list(stages) == list(scale.STAGES)
    assert all(math.isfinite(stage.seconds) and stage.peak_mb >= 0 for stage in stages.values())
    double = {name: scale.Stage(2 * stage.seconds, 0.0) for name, stage in stages.items()}
    scale.show([25, 50], {25: stages, 50: double})
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert " 1.00 " in lines["features"] and " 2.00 " in lines["training"]
