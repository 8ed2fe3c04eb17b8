"""The benchmark of a student adapted once more, on two small synthetic corpora."""

import json
import shutil

import pytest
import torch

from benchmarks import continual
from benchmarks.units import SPLITS, Transfer, Unit, named
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.demo.stand_in import stand_in_lalm
from mifuse.demo.synth import make_domain
from mifuse.models.classifier import TrainConfig
from mifuse.models.student import Student


def test_a_chain(tmp_path, capsys):
    corpora, work, out = tmp_path / "corpora", tmp_path / "work", tmp_path / "out.json"
    for name in ("studio", "phone"):
        folder = corpora / name
        manifest = make_domain(folder, name, speakers=2, clips_per_speaker=4, test_speakers=1, seconds=0.6)
        stand_in_lalm(read_manifest(manifest), folder / "lalm_draws.jsonl", draws=2)
        shutil.copy(manifest, folder / "source.csv")
        manifest.rename(folder / "target.csv")
    unit = Unit(corpora, work, Transfer(("studio",), "phone"), 0, TrainConfig(), named("default", []))
    torch.manual_seed(0)
    earlier = Student(size="xs").eval()
    for folder in (unit.classifier, unit.student):
        earlier.save_pretrained(folder)
    options = ["--corpora", corpora, "--work", work, "--out", out, "--chains", "studio>phone>studio"]
    settings = [
        text
        for setting in ("fit.steps=2", "fit.batch_size=4", "refine.folds=2", "refine.rounds=1")
        for text in ("--set", setting)
    ]
    assert continual.main([*map(str, options), *settings]) == 0
    rows = json.loads(out.read_text())["chains"]["studio>phone>studio"]
    assert list(rows) == ["before", "0", "0.5", "1", "2"]
    for name, ua in rows["before"].items():
        domain, split = name.split()
        clips = continual.clips_of(corpora, domain, SPLITS[split])
        assert ua == pytest.approx(continual.ua(earlier, clips, AudioCache(), split != "test"))
    assert list(rows["0"]) == [f"{domain} {split}" for domain in ("phone", "studio") for split in SPLITS]
    assert "| 0.5 |" in capsys.readouterr().out
