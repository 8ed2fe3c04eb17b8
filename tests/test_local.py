"""The teacher on this machine: real Qwen2-Audio classes, tiny, with weights made by hand.

Its layers add nothing to the residual stream, and its head says ANSWER after any token but ANSWER, then ends.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from draws_files import make_speech

from mifuse.cli import main
from mifuse.errors import MifuseError
from mifuse.teachers.local import LocalConfig, LocalTeacher
from mifuse.teachers.store.database import DrawsStore

ANSWER = '{"angry": 0.1, "happy": 0.2, "neutral": 0.3, "sad": 0.4}'
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]


def save_tiny_model(folder: Path, *, answers: bool = True) -> Path:
    """A checkpoint of 30 k parameters; without `answers` the weights stay random."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token=SPECIAL[2], pad_token=SPECIAL[0], additional_special_tokens=SPECIAL
    )
    tokenizer.add_tokens([ANSWER])
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
        "{% if c['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    processor = Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=16), tokenizer, chat_template=template
    )
    processor.save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 16, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": len(tokenizer), "num_key_value_heads": 2,
            "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 4096, **size,
        },
        audio_token_index=3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    if answers:
        answer = tokenizer.convert_tokens_to_ids(ANSWER)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "language_model" in name and name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()
            words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
            words[:, 0], words[answer, 0] = 1.0, -1.0
            head.zero_()
            head[answer, 0], head[2, 0] = 100.0, -100.0
    model.save_pretrained(folder)
    return folder


def test_the_command(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    manifest = make_speech(tmp_path / "clips", 2)
    words = ["label", manifest.path, "--teacher", f"local:{tmp_path / 'model'}", "--store", tmp_path / "d.db"]
    result = CliRunner().invoke(main, list(map(str, [*words, "--draws", 3, "--json"])))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["added"] == 6
    assert "leave" not in result.stderr and "go to" not in result.stderr
    with DrawsStore(tmp_path / "d.db") as store:
        (source,) = store.sources()
        for draw in store.draws(source):
            assert draw.answer.raw == ANSWER and draw.answer.probs == json.loads(ANSWER)
            assert draw.answer.price_usd is None
        assert store.total() == 0


def test_random_weights_say_nothing_valid_and_are_not_believed(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", answers=False)
    manifest = make_speech(tmp_path / "clips", 1)
    words = ["label", manifest.path, "--teacher", f"local:{tmp_path / 'model'}", "--store", tmp_path / "d.db"]
    result = CliRunner().invoke(main, list(map(str, [*words, "--draws", 1, "--max-tokens", 5])))
    assert result.exit_code == 1
    assert "5 invalid answers, the last: " in result.output
    with DrawsStore(tmp_path / "d.db") as store:
        assert store.sources() == []


def test_what_is_no_audio_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MifuseError, match=r"absent.* cannot be loaded"):
        LocalTeacher(LocalConfig(str(tmp_path / "absent")))
