import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.errors import MifuseError, TrainingError
from mifuse.models.classifier import (
    HubClassifier,
    TrainConfig,
    classifier_draws,
    load_model,
    train_classifier,
)
from mifuse.models.features import Features
from mifuse.models.learning import held_out
from mifuse.models.student import Student
from mifuse.models.training import FitConfig, predict

pytestmark = pytest.mark.learning

FIT = FitConfig(steps=200, steps_per_epoch=50, batch_size=24, lr=0.005, momentum=0.9)
CONFIG = TrainConfig(size="xs", fit=FIT)
SEED = 1  # holds out a speaker on whom the best epoch is not the first


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """Manifest, clips and cache of 6 speakers with 12 clips each."""
    folder = tmp_path_factory.mktemp("studio")
    manifest = make_domain(folder, "studio", speakers=6, clips_per_speaker=12, seconds=1.2)
    return manifest, read_manifest(manifest).clips, AudioCache(folder / "cache")


@pytest.fixture(scope="module")
def trained(domain):
    _, clips, cache = domain
    return train_classifier(clips, cache, config=CONFIG, seed=SEED)


def test_it_learns(domain, trained):
    _, clips, cache = domain
    assert trained.model.labels == LABELS
    assert trained.validation_ua == max(r["validation_ua"] for r in trained.history)
    truth = np.array([LABELS.index(clip.label) for clip in clips])
    accuracy = (predict(trained.model, Features.of(clips, cache)).argmax(1) == truth).mean()
    assert accuracy > 0.5  # chance is 0.25


def test_the_best_epoch_is_kept(domain, trained):
    _, clips, cache = domain
    valid = [clip for clip, held in zip(clips, held_out(clips, CONFIG.validation, SEED), strict=True) if held]
    truth = np.array([LABELS.index(clip.label) for clip in valid])
    probs = predict(trained.model, Features.of(valid, cache))
    recalls = [(probs[truth == k].argmax(1) == k).mean() for k in range(4)]
    assert 100 * np.mean(recalls) == pytest.approx(trained.validation_ua)


def testheld_out_speakers_are_others(domain):
    _, clips, _ = domain
    for seed in range(5):
        held = held_out(clips, 0.2, seed)
        ours = {clip.speaker for clip, h in zip(clips, held, strict=True) if h}
        others = {clip.speaker for clip, h in zip(clips, held, strict=True) if not h}
        assert len(ours) == 1 and len(others) == 5 and not ours & others
    assert sum(held_out(clips, 0.0, 0)) == 12  # at least one speaker
    assert sum(held_out(clips, 1.0, 0)) == 60  # never all
    nameless = [replace(clip, speaker=None) for clip in clips]
    assert sum(held_out(nameless, 0.25, 0)) == 18


def test_patience(domain):
    _, clips, cache = domain
    config = replace(CONFIG, patience=1, fit=replace(FIT, steps_per_epoch=1))
    stopped = train_classifier(clips[:24], cache, config=config)
    scores = [r["validation_ua"] for r in stopped.history]
    assert len(scores) < 120
    assert scores[-1] <= max(scores[:-1])


def test_unlabelled_clips_are_left_out(domain):
    _, clips, cache = domain
    few = replace(CONFIG, fit=replace(FIT, steps=2, steps_per_epoch=2))
    labelled = train_classifier(clips[:24], cache, config=few)
    mixed = [*clips[:24], *(replace(clip, label=None) for clip in clips[24:30])]
    assert train_classifier(mixed, cache, config=few).history[0]["loss"] == labelled.history[0]["loss"]


def test_too_little_to_learn_from(domain):
    _, clips, cache = domain
    one_class = [clip for clip in clips if clip.label == "sad"]
    one_speaker = [clip for clip in clips if clip.speaker == "s00"]
    with pytest.raises(
        TrainingError, match=r"\d+ labelled clips of 1 classes: a classifier needs at least two"
    ):
        train_classifier(one_class, cache, config=CONFIG)
    with pytest.raises(TrainingError, match=r"all clips are of one speaker \(s00\)"):
        train_classifier(one_speaker, cache, config=CONFIG)
    with pytest.raises(TrainingError, match="0 labelled clips"):
        train_classifier([replace(clip, label=None) for clip in clips], cache, config=CONFIG)


def command(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


QUICK = [
    "--size",
    "xs",
    "--set",
    "fit.steps=4",
    "--set",
    "fit.steps_per_epoch=2",
    "--set",
    "fit.batch_size=8",
]


def test_command(domain, tmp_path):
    manifest = domain[0]
    out = tmp_path / "new" / "source"
    done = command(manifest, "-o", out, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["out"] == str(out) and summary["epochs"] == 2
    assert {p.name for p in out.iterdir()} == {"config.json", "model.safetensors", "run.json", "README.md"}
    assert not (tmp_path / "new" / "source.partial").exists()
    run = json.loads((out / "run.json").read_text())
    assert run["kind"] == "train" and run["labels"] == list(LABELS)
    assert run["config"]["fit"]["steps"] == 4 and len(run["history"]) == 2
    assert {"torch", "python"} <= run["versions"].keys()
    assert load_model(out).size == "xs"

    before = (out / "model.safetensors").read_bytes()
    refused = command(manifest, "-o", out, *QUICK)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "exists: choose another folder" in refused.stderr
    replaced = command(manifest, "-o", out, *QUICK, "--seed", 1, "--force")
    assert replaced.exit_code == 0 and "% UA on held-out speakers" in replaced.stdout
    assert (out / "model.safetensors").read_bytes() != before


def test_force_replaces_runs_only(domain, tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    (recordings / "a.wav").write_bytes(b"precious")
    linked = tmp_path / "link"
    linked.symlink_to(recordings)
    for out in (recordings, recordings / "a.wav", linked):
        refused = command(domain[0], "-o", out, *QUICK, "--force")
        assert refused.exit_code == 1
        assert "is not a run: it is not replaced" in refused.stderr
    assert (recordings / "a.wav").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fit.step=3", "no setting 'fit.step': did you mean fit.steps"),
        ("fit.steps=many", "expected int"),
        ("fit.steps=0", "it must be at least 1"),
        ("dropout=1.5", "dropout = 1.5"),
        ("patience", "NAME=VALUE"),
    ],
)
def test_bad_settings_leave_nothing(domain, tmp_path, setting, message):
    refused = command(domain[0], "-o", tmp_path / "out", *QUICK, "--set", setting)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert message in refused.stderr
    assert refused.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert list(tmp_path.iterdir()) == []


def test_bad_use_is_exit_code_2(domain, tmp_path):
    assert command(domain[0]).exit_code == 2
    assert command(domain[0], "-o", tmp_path / "out", "--size", "xl").exit_code == 2


def test_bad_audio_leaves_nothing(domain, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no audio")
    shutil.copy(domain[1][0].path, tmp_path / "b.wav")
    (tmp_path / "m.csv").write_text("path,label,speaker\na.wav,sad,x\nb.wav,angry,y\n")
    refused = command(tmp_path / "m.csv", "-o", tmp_path / "out", *QUICK)
    assert refused.exit_code == 1
    assert "a.wav: not an audio file that can be read" in refused.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"a.wav", "b.wav", "m.csv"}


def test_out_below_a_file(domain, tmp_path):
    (tmp_path / "file").write_text("")
    refused = command(domain[0], "-o", tmp_path / "file" / "out", *QUICK)
    assert refused.exit_code == 1
    assert "Not a directory" in refused.stderr


def test_missing_and_damaged_checkpoints(trained, tmp_path):
    with pytest.raises(
        MifuseError, match=r"absent is no .*: there is no such folder; give the folder that `mifuse train`"
    ):
        load_model(tmp_path / "absent")
    folder = tmp_path / "model"
    trained.model.save_pretrained(folder)
    weights = (folder / "model.safetensors").read_bytes()
    config = (folder / "config.json").read_text()

    def refused(match):
        with pytest.raises(MifuseError, match=match) as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)

    for damaged in (b"", weights[:-7], b"\xff" * 64):
        (folder / "model.safetensors").write_bytes(damaged)
        refused("model: not a student of ours")
    (folder / "model.safetensors").unlink()
    refused("no model.safetensors there")
    (folder / "model.safetensors").write_bytes(weights)
    for text in ("", "[1]", "{", config.replace("xs", "s"), config.replace("xs", "xxl"), '{"size": 3}'):
        (folder / "config.json").write_text(text)
        refused("student")
    (folder / "config.json").write_text(config)
    assert isinstance(load_model(folder), Student)


# Tiny checkpoints of the three families that `hf:` is for.
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 8),
    "conv_stride": (10, 8),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "num_feat_extract_layers": 2,
}
THEIRS = ("neutral", "HAP", "Anger", "sadness", "fear", "excited")


def save_hub(folder, family="Wav2Vec2", names=THEIRS, rate=16_000):
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SMALL, id2label=dict(enumerate(names)))
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    model.classifier.weight.data.mul_(20)  # so that clips differ
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=rate).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert", "WavLM"])
def test_hub_classifiers(domain, tmp_path, family, capsys):
    _, clips, cache = domain
    model = load_model(f"hf:{save_hub(tmp_path, family)}")
    assert isinstance(model, HubClassifier)
    assert model.labels == LABELS
    probs = model(torch.randn(2, 8_000) * 0.1)
    assert probs.shape == (2, 4)
    torch.testing.assert_close(probs.sum(1), torch.ones(2))
    assert torch.isfinite(model(torch.zeros(1, 1))).all()  # shorter than their first convolution
    draws = classifier_draws(model, clips[:3], cache, 3, seed=1)
    assert draws.shape == (3, 3, 4)
    np.testing.assert_allclose(draws.sum(2), 1, atol=1e-5)
    assert np.array_equal(draws, classifier_draws(model, clips[:3], cache, 3, seed=1))
    assert not np.array_equal(draws, classifier_draws(model, clips[:3], cache, 3, seed=2))
    assert not np.array_equal(draws[0], draws[1])
    assert not any(module.training for module in model.modules())
    assert capsys.readouterr().out == ""


def test_hub_labels_are_mapped(tmp_path):
    model = load_model(f"hf:{save_hub(tmp_path)}")
    samples = torch.randn(1, 8_000) * 0.1
    inputs = model.extractor(samples[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    theirs = dict(zip(THEIRS, model.model(**inputs).logits.softmax(-1)[0].tolist(), strict=True))
    ours = np.array(
        [theirs["Anger"], theirs["HAP"] + theirs["excited"], theirs["neutral"], theirs["sadness"]]
    )
    np.testing.assert_allclose(model(samples)[0].detach(), ours / ours.sum(), rtol=1e-4)


def test_hub_labels_that_do_not_cover_ours(tmp_path):
    with pytest.raises(MifuseError, match=r"has the labels calm, happy, sad: none of them is angry, neutral"):
        load_model(f"hf:{save_hub(tmp_path, names=('calm', 'happy', 'sad'))}", LABELS)
    assert load_model(f"hf:{tmp_path}").labels == ("calm", "happy", "sad")
    with pytest.raises(MifuseError, match=r"has the labels LABEL_0, LABEL_1: none of them is angry"):
        load_model(f"hf:{save_hub(tmp_path / 'unnamed', names=('LABEL_0', 'LABEL_1'))}")


def test_hub_sampling_rate(tmp_path):
    with pytest.raises(MifuseError, match="takes audio of 8000 Hz: choose a checkpoint for 16000 Hz"):
        load_model(f"hf:{save_hub(tmp_path, rate=8_000)}")


def test_hub_checkpoint_missing_or_damaged(tmp_path):
    def refused():
        with pytest.raises(MifuseError, match="cannot be loaded as an audio classifier") as caught:
            load_model(f"hf:{tmp_path / 'hub'}")
        assert "\n" not in str(caught.value)

    refused()
    save_hub(tmp_path / "hub")
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"\xff" * 64)
    refused()
    (tmp_path / "hub" / "config.json").write_text("{")
    refused()


def test_draws_of_a_student(domain, trained):
    _, clips, cache = domain
    draws = classifier_draws(trained.model, clips[:4], cache, 2, seed=3)
    assert draws.shape == (2, 4, 4)
    assert np.array_equal(draws, classifier_draws(trained.model, clips[:4], cache, 2, seed=3))
    assert not np.array_equal(draws[0], draws[1])
