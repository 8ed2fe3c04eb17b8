"""`mifuse train --encoder`: a head on a frozen encoder. The encoders are tiny and their weights random."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.errors import MifuseError
from mifuse.models.classifier import TrainConfig, classifier_draws, load_model, train_classifier
from mifuse.models.head import PENALTIES, Spread, fit_linear
from mifuse.models.hub import HubClassifier
from mifuse.models.training import FitConfig
from tests.test_adapt import World
from tests.test_classifier import SMALL, save_hub

pytestmark = pytest.mark.learning

CONFIG = TrainConfig(fit=FitConfig(steps=60, steps_per_epoch=20, batch_size=16, lr=0.01))
WHISPER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_mel_bins": 8,
    "classifier_proj_size": 8,
}


def save_encoder(folder, family):
    """An encoder as the hub has it: without a head."""
    torch.manual_seed(0)
    if family == "Whisper":
        config = transformers.WhisperConfig(**WHISPER)
        model = transformers.WhisperForConditionalGeneration(config)
        model.model.encoder.conv1.weight.data.mul_(50)  # so that clips differ after 30 s of mean
        model.save_pretrained(folder)
        transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
        return folder
    config = getattr(transformers, f"{family}Config")(**SMALL)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """Manifest, clips and cache of 3 speakers with 8 clips each."""
    folder = tmp_path_factory.mktemp("studio")
    manifest = make_domain(folder, "studio", speakers=3, clips_per_speaker=8, seconds=0.6)
    return manifest, read_manifest(manifest).clips, AudioCache(folder / "cache")


@pytest.mark.parametrize("family", ["WavLM", "Wav2Vec2", "Hubert", "Whisper"])
def test_the_head_on_kept_states_is_the_saved_model(domain, tmp_path, family):
    _, clips, cache = domain
    encoder = str(save_encoder(tmp_path / "encoder", family))
    trained = train_classifier(clips, cache, config=CONFIG, encoder=encoder)
    trained.model.save_pretrained(tmp_path / "source")
    model = load_model(tmp_path / "source")  # transformers alone reads it
    assert isinstance(model, HubClassifier) and model.labels == LABELS
    theirs, ours = (
        {
            name.partition("encoder.")[2]: weights
            for name, weights in named.items()
            if "encoder.layers" in name
        }
        for named in (load_file(tmp_path / "encoder" / "model.safetensors"), model.model.state_dict())
    )
    assert ours and all(torch.equal(theirs[name], weights) for name, weights in ours.items())
    samples = [torch.from_numpy(cache.samples(clip))[None] for clip in clips[:3]]
    with torch.inference_mode():
        whole = torch.cat([model(one) for one in samples])
        states = model.pooled(model.embeddings(clips[:3], cache))
        kept = model.scores(states).softmax(-1)
    torch.testing.assert_close(kept, whole, rtol=0, atol=2e-3)  # kept as float16
    assert states.std(dim=0).max() > 1e-2  # clips differ


@pytest.mark.parametrize("family", ["WavLM", "Whisper"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_checkpoints_in_half_precision(tmp_path, family, dtype):
    folder = save_encoder(tmp_path / "encoder", family)
    kind = transformers.WhisperModel if family == "Whisper" else transformers.WavLMModel
    kind.from_pretrained(folder).to(dtype).save_pretrained(folder)
    assert dtype in {weights.dtype for weights in load_file(folder / "model.safetensors").values()}
    hub = HubClassifier(str(folder), LABELS, dropout=0.0)
    assert {weights.dtype for weights in hub.parameters()} == {torch.float32}
    assert torch.isfinite(hub(torch.ones(1, 8_000))).all()


def test_whisper_takes_the_clips_own_length(tmp_path):
    check_lengths(HubClassifier(str(save_encoder(tmp_path / "encoder", "Whisper")), LABELS, dropout=0.0))


@pytest.mark.skipif(not os.environ.get("MIFUSE_ENCODER"), reason="MIFUSE_ENCODER names no real checkpoint")
def test_a_real_encoder_takes_the_clips_own_length():
    check_lengths(HubClassifier(os.environ["MIFUSE_ENCODER"], LABELS, dropout=0.0))


def check_lengths(hub):
    seen = []
    hub.model.encoder.layer_norm.register_forward_hook(lambda _, taken, __: seen.append(taken[0].shape[1]))
    with torch.inference_mode():
        for count in (1_000, 16_000, 48_100, 31 * 16_000):
            assert torch.isfinite(hub(0.1 * torch.randn(1, count))).all()
    # 20 ms each; SHORTEST is 100 ms, and Whisper itself has 30 s.
    assert seen == [5, 50, 151, 1500]
    assert hub.model.encoder.embed_positions.num_embeddings == 1500 == hub.model.config.max_source_positions


@pytest.mark.parametrize("family", ["WavLM", "Wav2Vec2", "Hubert", "Whisper"])
def test_a_new_head_weighs_all_layers_alike(tmp_path, family):
    encoder = str(save_encoder(tmp_path / "encoder", family))
    weights = HubClassifier(encoder, dropout=0.0).model.layer_weights
    assert weights.tolist() == [1 / len(weights)] * len(weights)


def test_the_encoder_encodes_each_clip_once(domain, tmp_path, monkeypatch, caplog):
    clips = domain[1]
    encoder, records = str(save_encoder(tmp_path / "encoder", "WavLM")), []
    fresh = AudioCache(tmp_path / "cache")
    first = train_classifier(clips, fresh, config=CONFIG, encoder=encoder, progress=records.append)
    assert [record["encoded"] for record in records[: len(clips)]] == list(range(1, len(clips) + 1))
    before = {name: weights.clone() for name, weights in first.model.model.wavlm.state_dict().items()}
    monkeypatch.setattr(HubClassifier, "_encode", None)  # would fail when called
    assert "of the settings, only dropout counts" in caplog.text
    again = train_classifier(clips, fresh, config=CONFIG, encoder=encoder)
    # Not to the last bit: how memory is aligned decides which kernel sums a product.
    assert [r["loss"] for r in again.history] == pytest.approx([r["loss"] for r in first.history], rel=1e-3)
    frozen = HubClassifier(encoder, dropout=0.0).model.wavlm.state_dict()
    assert all(torch.equal(frozen[name], weights) for name, weights in before.items())
    assert first.model.model.classifier.weight.tolist() == torch.eye(4).tolist()


@pytest.mark.parametrize("family", ["WavLM", "Whisper"])
def test_clips_side_by_side_do_not_mix(domain, tmp_path, family):
    """Lengths differ, and Whisper's positions with them; weights are there once."""
    _, clips, _ = domain
    hub = HubClassifier(str(save_encoder(tmp_path / "encoder", family)), LABELS, dropout=0.0)
    cut = [replace(clip, end=0.2 + 0.03 * (i % 13)) for i, clip in enumerate(clips)]
    cache, threads, seen = AudioCache(tmp_path / "cache"), torch.get_num_threads(), []
    alone = []
    for clip in cut:
        with torch.inference_mode():
            states = hub.states(torch.from_numpy(cache.samples(clip))[None])
        alone.append(np.stack([state[0].mean(dim=0).numpy() for state in states]))
    torch.set_num_threads(4)
    try:
        together = hub.embeddings(cut, cache, lambda: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
    assert len(seen) == len(cut)
    np.testing.assert_allclose(together.batch(range(len(cut))), np.stack(alone), atol=2e-3)
    twin = hub._twin()
    assert all(a is b for a, b in zip(twin.parameters(), hub.parameters(), strict=True))
    assert all(a is not b for a, b in zip(twin.model.modules(), hub.model.modules(), strict=True))


def test_the_penalty_is_the_best_on_speakers_left_out(domain, tmp_path):
    _, clips, cache = domain
    encoder = str(save_encoder(tmp_path / "encoder", "WavLM"))
    trained = train_classifier(clips, cache, config=CONFIG, encoder=encoder)
    losses = [record["loss"] for record in trained.history]
    assert [record["penalty"] for record in trained.history] == [*PENALTIES]
    assert trained.validation_ua == trained.history[int(np.argmin(losses))]["validation_ua"]


def voices(count=12, hidden=6, seed=0):
    """Values of `count` clips each of five speakers, (N, hidden): the voice moves and stretches them."""
    rng = np.random.default_rng(seed)
    truth, who = np.tile(np.arange(count) % 3, 5), np.repeat(np.arange(5), count)
    values = np.eye(3, hidden)[truth] + 0.2 * rng.standard_normal((len(truth), hidden))
    values = 10 * rng.standard_normal((5, hidden))[who] + rng.uniform(0.2, 5, (5, hidden))[who] * values
    return torch.from_numpy(values).float(), truth, who


def test_a_head_is_within_the_speaker_where_speakers_are_known():
    values, truth, who = voices()
    rows = who < 4
    head = fit_linear(values[rows], truth[rows], who[rows], [str(i) for i in who[rows]], classes=3)
    assert head.history[head.best]["validation_ua"] == 100
    nobody = np.full(len(who), -1)
    right = [
        (head.spread.within(values, known) @ head.weight.T + head.bias).argmax(1).numpy()[~rows]
        == truth[~rows]
        for known in (who, nobody)
    ]
    assert right[0].all() and not right[1].all()
    assert torch.equal(head.spread.within(values, nobody), values)
    moved = head.spread.within(values, who)[~rows]
    torch.testing.assert_close(moved.mean(0), head.spread.mean, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(moved.std(0, correction=0), head.spread.deviation, rtol=1e-3, atol=1e-4)


def test_a_constant_value_of_a_speaker_moves_nobody():
    spread = Spread.of(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    moved = spread.within(torch.full((8, 2), 7.0), np.zeros(8, int))
    assert torch.equal(moved, spread.mean.expand(8, 2))


def test_draws_know_the_speaker(domain, tmp_path):
    _, clips, cache = domain
    encoder = str(save_encoder(tmp_path / "encoder", "WavLM"))
    trained = train_classifier(clips, cache, config=CONFIG, encoder=encoder).model
    trained.save_pretrained(tmp_path / "source")
    model = load_model(tmp_path / "source")
    within = classifier_draws(model, clips, cache, 1)
    np.testing.assert_allclose(within, classifier_draws(trained, clips, cache, 1), atol=1e-5)
    alone = [clip.without_speaker() for clip in clips]
    assert np.abs(within - classifier_draws(model, alone, cache, 1)).max() > 1e-3
    (tmp_path / "source" / "states.safetensors").unlink()
    before = load_model(tmp_path / "source")  # as earlier versions wrote it
    assert not before.knows_speakers
    assert np.array_equal(
        classifier_draws(before, clips, cache, 1), classifier_draws(before, alone, cache, 1)
    )
    (tmp_path / "source" / "states.safetensors").write_bytes(b"x")
    with pytest.raises(MifuseError, match=r"states\.safetensors cannot be read .*: train the head again"):
        load_model(tmp_path / "source")


def test_draws_are_of_the_head(domain, tmp_path, monkeypatch):
    _, clips, cache = domain
    encoder = str(save_encoder(tmp_path / "encoder", "WavLM"))
    model = train_classifier(clips, cache, config=CONFIG, encoder=encoder).model
    draws = classifier_draws(model, clips, cache, 3, seed=1)
    assert draws.shape == (3, len(clips), 4)
    np.testing.assert_allclose(draws.sum(2), 1, atol=1e-6)
    assert not np.array_equal(draws[0], draws[1])
    monkeypatch.setattr(HubClassifier, "_encode", None)  # would fail when called
    assert np.array_equal(draws, classifier_draws(model, clips, cache, 3, seed=1))


def test_command_then_adapt(tmp_path):
    world = World(tmp_path / "world")
    encoder = save_encoder(tmp_path / "encoder", "WavLM")
    arguments = ["train", str(world.manifest), "-o", str(tmp_path / "source"), "--encoder", f"hf:{encoder}"]
    done = CliRunner().invoke(main, [*arguments, "--set", "fit.steps=4", "--json"])
    assert done.exit_code == 0, done.output
    assert "model shards" not in done.stderr  # a bar of transformers
    assert json.loads(done.stdout)["epochs"] == len(PENALTIES)
    files = {"config.json", "model.safetensors", "preprocessor_config.json", "run.json", "states.safetensors"}
    assert {file.name for file in (tmp_path / "source").iterdir()} == files
    assert json.loads((tmp_path / "source" / "run.json").read_text())["encoder"] == str(encoder)
    for source in (tmp_path / "source", f"hf:{tmp_path / 'source'}"):
        adapted = world.run(tmp_path / "student", "--force", source=source)
        assert adapted.exit_code == 0, adapted.output
    assert json.loads((tmp_path / "student" / "config.json").read_text())["size"] == "xs"


def test_an_encoder_without_room_for_a_head(tmp_path):
    config = transformers.ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_length=32,
        num_mel_bins=16,
    )
    transformers.ASTModel(config).save_pretrained(tmp_path)
    transformers.ASTFeatureExtractor(max_length=32, num_mel_bins=16).save_pretrained(tmp_path)
    with pytest.raises(MifuseError, match=r"\(audio-spectrogram-transformer\) has no weighted layers"):
        HubClassifier(str(tmp_path), dropout=0.2)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--encoder", "somewhere"], 2, "write hf:somewhere, for a folder too"),
        (["--encoder", "hf:x", "--size", "s"], 2, "--size is of a student"),
        (["--encoder", "hf:./absent"], 1, "hf:./absent cannot be loaded as an audio classifier"),
    ],
)
def test_bad_use(domain, tmp_path, options, code, message):
    done = CliRunner().invoke(main, ["train", str(domain[0]), "-o", str(tmp_path / "out"), *options])
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_whole_checkpoint_keeps_its_own_draws(tmp_path):
    assert HubClassifier(str(save_hub(tmp_path))).dropout is None
