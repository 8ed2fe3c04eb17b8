"""Classifiers as teachers: tiny checkpoints of transformers, and of funasr where that is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from draws_files import make_speech

from mifuse.cli import main
from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import Naming
from mifuse.clips.manifest import Clip, read_manifest
from mifuse.errors import MifuseError
from mifuse.models.hub import HubModel
from mifuse.teachers.classifiers import ClassifierConfig, ClassifierTeacher, HubListener, copy_of
from mifuse.teachers.funasr import FunasrListener, emotions_of, words_of
from mifuse.teachers.store.database import DrawsStore
from tests.test_classifier import save_hub

needs_funasr = pytest.mark.skipif(
    importlib.util.find_spec("funasr") is None, reason="funasr is not installed: its models are not tried"
)
# What emotion2vec_plus says, in its order.
NINE = (
    *("生气/angry", "厌恶/disgusted", "恐惧/fearful", "开心/happy", "中立/neutral", "其他/other", "难过/sad"),
    *("吃惊/surprised", "<unk>"),
)


def label(manifest: Path, teacher: str, *more: str) -> Result:
    store = str(manifest.parent / "draws.db")
    return CliRunner().invoke(main, ["label", str(manifest), "--teacher", teacher, "--store", store, *more])


def draws_of(manifest: Path) -> dict[str, list[dict[str, float]]]:
    """Draws of each clip, in order."""
    found: dict[str, list[dict[str, float]]] = {}
    with DrawsStore(manifest.parent / "draws.db", read_only=True) as store:
        (source,) = store.sources()
        for row in sorted(store.draws(source), key=lambda row: row.draw):
            found.setdefault(row.clip, []).append(dict(row.answer.probs))
    return found


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three clips of speech that nobody has labelled."""
    return make_speech(tmp_path / "clips", 3).path


def test_a_classifier_of_the_hub_fills_the_store(manifest: Path, tmp_path: Path) -> None:
    names = ("neu", "HAP", "Anger", "sadness", "fear", "other")
    spec = f"hf:{save_hub(tmp_path / 'hub', names=names)}"
    said = label(manifest, spec, "--dry-run", "--draws", "4", "--json")
    assert said.exit_code == 0, said.output
    shown = json.loads(said.stdout)
    assert shown["labels"] == "neutral, happy, angry, sad, fear"
    assert shown["draws_of"].startswith("the clip, then copies changed a little")
    assert shown["missing"] == 12
    assert "usd_at_most" not in shown
    done = label(manifest, spec, "--draws", "4", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["added"] == 12
    model, cache = HubModel(str(tmp_path / "hub")), AudioCache()
    found = draws_of(manifest)
    for clip in read_manifest(manifest).clips:
        whole, *copies = found[cache.hash(clip)]
        with torch.inference_mode():
            probs = dict(
                zip(names, model(torch.from_numpy(cache.samples(clip))[None])[0].tolist(), strict=True)
            )
        rest = 1 - probs["other"]
        expected = {"neutral": probs["neu"], "happy": probs["HAP"], "angry": probs["Anger"]}
        expected |= {"sad": probs["sadness"], "fear": probs["fear"]}
        assert whole == pytest.approx({name: share / rest for name, share in expected.items()}, abs=1e-5)
        assert all(copy != whole and sum(copy.values()) == pytest.approx(1) for copy in copies)
    again = label(manifest, spec, "--draws", "6", "--json")
    assert (json.loads(again.stdout)["present"], json.loads(again.stdout)["added"]) == (12, 6)
    told = CliRunner().invoke(main, ["draws", "info", str(manifest.parent / "draws.db")])
    assert "never differ" not in told.output


def test_beside_a_lalm_in_one_store(manifest: Path, tmp_path: Path) -> None:
    from mifuse.teachers.draws import load_draws

    spec = f"hf:{save_hub(tmp_path / 'hub')}"
    lines = [
        {"path": f"c{number}.wav", "teacher": "lalm", "draw": 0, "label": "happy"} for number in range(3)
    ]
    (tmp_path / "lalm.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for teacher, count in ((spec, "2"), (f"replay:{tmp_path / 'lalm.jsonl'}", "1")):
        done = label(manifest, teacher, "--draws", count)
        assert done.exit_code == 0, done.output
    clips = read_manifest(manifest).clips
    for teacher, count in (("hf", 2), ("lalm", 1)):
        draws = load_draws(manifest.parent / "draws.db", clips, teacher=teacher)
        assert draws.shape == (count, 3, 4)


def test_other_weights_are_another_source(manifest: Path, tmp_path: Path) -> None:
    cache, naming_ = AudioCache(), Naming()
    folder = save_hub(tmp_path / "hub")
    config = ClassifierConfig(str(folder))
    first = ClassifierTeacher("hf", config, HubListener, cache, naming_).source
    assert ClassifierTeacher("hf", config, HubListener, cache, naming_).source == first
    model = HubModel(str(folder))
    model.model.classifier.bias.data += 1
    model.model.save_pretrained(folder)
    assert ClassifierTeacher("hf", config, HubListener, cache, naming_).source != first


@pytest.mark.parametrize(
    ("names", "options", "code", "message"),
    [
        (
            ("LABEL_0", "LABEL_1"),
            [],
            1,
            "does not name its labels (LABEL_0, LABEL_1): say what they are with",
        ),
        (("LABEL_0", "LABEL_1"), ["--map", "LABEL_0=angry,LABEL_1=sad"], 0, "angry, sad"),
        (("happy", "calm", "sad"), ["--labels", "angry,sad"], 1, "none of them is angry"),
        (
            ("happy", "calm", "sad"),
            ["--labels", "neutral,sad", "--map", "calm=neutral"],
            0,
            "happy, neutral, sad",
        ),
        (("happy", "other"), [], 1, "two emotions at least are needed"),
        (("happy", "sad"), ["--describe", "sad=low"], 2, "--describe: hf asks nothing"),
        (("happy", "sad"), ["--temperature", "1"], 2, "--temperature: the teacher hf has no such setting"),
    ],
)
def test_words_of_a_classifier(
    manifest: Path, tmp_path: Path, names: tuple[str, ...], options: list[str], code: int, message: str
) -> None:
    said = label(manifest, f"hf:{save_hub(tmp_path / 'hub', names=names)}", *options, "--dry-run")
    assert (said.exit_code, message in said.output) == (code, True), said.output


@pytest.mark.parametrize("size", [1, 400, 16_000, 48_001])
def test_copies_of_a_clip(size: int) -> None:
    clip = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    assert copy_of(clip, 0) is clip
    copies = [copy_of(clip, draw) for draw in range(1, 8)]
    assert {copy.shape for copy in copies} == {(max(1, int(0.9 * size)),)}
    assert all(copy.dtype == np.float32 and np.isfinite(copy).all() for copy in copies)
    assert not np.array_equal(copies[0], copies[1])
    assert not np.array_equal(copies[0], copy_of(clip, 1, attempt=1))
    assert not np.array_equal(copies[0], copy_of(clip, 1, seed=1))


def test_results_of_funasr_in_their_documented_form() -> None:
    scores = [0.5, 0.0, 0.0, 0.3, 0.1, 0.05, 0.05, 0.0, 0.0]
    result = {"key": "a", "labels": list(NINE), "scores": scores}
    assert words_of(result) == list(NINE)
    assert emotions_of(result)["生气/angry"] == 0.5
    tagged = {"key": "a", "text": "<|zh|><|SAD|><|Speech|><|withitn|>你好。"}
    assert emotions_of(tagged) == {"SAD": 1.0}
    assert emotions_of({"text": "<|nospeech|><|EMO_UNKNOWN|><|Event_UNK|><|woitn|>"}) == {}
    assert words_of({"key": "a", "text": "hello", "timestamp": []}) == []


class Tagged:
    """A stand-in whose answers are in the form of SenseVoice's: sure of one emotion, or of none."""

    words = ("HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED")
    digest = "none"
    says_numbers = False

    def __init__(self, name: str) -> None:
        self.tag = name

    def __call__(self, samples: np.ndarray) -> list[dict[str, float]]:
        return [emotions_of({"text": f"<|en|><|{self.tag}|><|Speech|><|woitn|>well"}) for _ in samples]


@pytest.mark.parametrize(("tag", "probs"), [("FEARFUL", {"fear": 1.0}), ("EMO_UNKNOWN", None)])
def test_tags_are_votes(manifest: Path, tag: str, probs: dict[str, float] | None) -> None:
    teacher = ClassifierTeacher("funasr", ClassifierConfig(tag), Tagged)
    clip: Clip = read_manifest(manifest).clips[0]
    for said in asyncio.run(teacher.ask(clip, [0, 1, 2], 0, "key")).said:
        assert said.probs == probs
        assert bool(said.problem) == (probs is None)


def test_without_funasr(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "funasr", None)
    said = label(manifest, "funasr:iic/emotion2vec_plus_large")
    assert said.exit_code == 1
    assert "funasr is not installed" in said.stderr
    assert "pip install funasr" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def save_emotion2vec(folder: Path, *, drop: str = "") -> Path:
    """emotion2vec_plus in small and random: the files and fields of the published folder."""
    import yaml
    from funasr import AutoModel  # noqa: F401  # it registers its classes
    from funasr.models.emotion2vec.model import Emotion2vec

    block = {
        "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0, "prenet_depth": 1, "prenet_layerdrop": 0.0,
        "prenet_dropout": 0.0, "num_extra_tokens": 2, "init_extra_token_zero": True, "model_depth": 1,
        "local_grad_mult": 1.0, "use_alibi_encoder": True, "num_alibi_heads": 2, "alibi_scale": 1.0,
        "learned_alibi": False, "alibi_max_pos": None, "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": True, "learned_alibi_scale_per_layer": False, "mask_prob": 0.0,
        "ema_local_encoder": False, "extractor_mode": "layer_norm", "conv_pos_depth": 1, "conv_pos_width": 5,
        "conv_pos_groups": 2, "conv_pos_pre_ln": False, "decoder": None, "encoder_zero_mask": True,
        "feature_encoder_spec": "[(8, 10, 5)] + [(8, 8, 8)]",
    }  # fmt: skip
    conf = {
        "loss_beta": 0.0, "loss_scale": None, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "norm_eps": 1e-5,
        "norm_affine": True, "encoder_dropout": 0.1, "post_mlp_drop": 0.1, "attention_dropout": 0.1,
        "activation_dropout": 0.0, "dropout_input": 0.0, "layerdrop": 0.0, "embed_dim": 8, "normalize": True,
        "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0, "layer_norm_first": False,
        "average_top_k_layers": 1, "end_of_block_targets": False, "clone_batch": 1,
        "modalities": {"audio": block},
    }  # fmt: skip
    torch.manual_seed(0)
    model = Emotion2vec(model_conf=conf, vocab_size=len(NINE))
    model.proj.weight.data.mul_(20)
    weights = {f"d2v_model.{name}": value for name, value in model.state_dict().items()}
    folder.mkdir()
    torch.save(
        {name: value for name, value in weights.items() if not drop or drop not in name}, folder / "model.pt"
    )
    (folder / "tokens.txt").write_text("\n".join(NINE) + "\n", encoding="utf-8")
    config = {
        "model": "Emotion2vec",
        "model_conf": conf,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "scope_map": ["d2v_model.", "none"],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@needs_funasr
def test_emotion2vec_through_funasr(
    manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_emotion2vec(tmp_path / "emotion2vec")
    threads = torch.get_num_threads()
    done = label(manifest, f"funasr:{folder}", "--draws", "3", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["added"] == 9
    assert summary["labels"] == "angry, disgust, fear, happy, neutral, sad, surprise"
    for draws in draws_of(manifest).values():
        assert len(draws) == 3
        assert all(sum(draw.values()) == pytest.approx(1) for draw in draws)
        assert draws[0] != draws[1]
    assert torch.get_num_threads() == threads
    assert capfd.readouterr().out == ""


@needs_funasr
def test_funasr_with_weights_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(MifuseError, match=r"lacks \d+ of its weights \(.*blocks"):
        FunasrListener(str(save_emotion2vec(tmp_path / "emotion2vec", drop="blocks.0")))


@needs_funasr
def test_funasr_without_such_a_model(tmp_path: Path) -> None:
    with pytest.raises(MifuseError, match="cannot be loaded") as caught:
        FunasrListener(str(tmp_path / "absent"))
    assert "\n" not in str(caught.value)
