"""Checkpoints of `transformers`: what can be loaded as an audio classifier, and why the others cannot.

Nothing that comes with a checkpoint is run: no code, no pickle. Weights that a checkpoint lacks would be
random, so it is refused then, but for the head that is going to be trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import nn

from mifuse.errors import MifuseError
from mifuse.models.frontend import SAMPLE_RATE

HEAD = ("layer_weights", "projector", "classifier")  # what `transformers` calls the parts of the head
HARMLESS = ("masked_spec_embed",)  # weights that only training from scratch uses
# Heads that `transformers` has no class for, but all the parts of: the end of the architecture's name ->
# their weights under the names of its own head. A dense layer and the mean over time may change places.
HEADS_OF_OTHERS = {
    # Dense, tanh, dense on the mean, as by m3hrdadfi's `soxan`; audEERING's and many XLS-R ones have it.
    "ForSpeechClassification": {
        r"^classifier\.dense\.": "projector.",
        r"^classifier\.(out_proj|output)\.": "classifier.",
    },
    # A recogniser's head, trained for emotions: the mean of its frames' logits.
    "ForCTC": {r"^lm_head\.": "classifier."},
}
_OTHER = "mifuse runs no code of a checkpoint; choose one of WavLM, HuBERT, wav2vec2 or Whisper"
CONVERT = (
    'python -c "import glob, torch; from safetensors.torch import save_file; save_file({k: '
    "v.clone().contiguous() for f in glob.glob('pytorch_model*.bin') for k, v in torch.load(f, "
    "weights_only=True).items()}, 'model.safetensors', {'format': 'pt'})\""
)


def read_checkpoint(name: str, labels: Sequence[str], dropout: float | None) -> tuple[Any, Any]:
    """Model and feature extractor.

    Args:
        name: hub name or folder.
        labels: of a new head.
        dropout: of a new head for these labels, untrained, in place of the checkpoint's; None keeps that.

    Raises:
        MifuseError: with the reason why it cannot be used.
    """
    from transformers import AutoConfig, AutoFeatureExtractor

    from mifuse.models.attention import (
        plain,
    )  # it imports `transformers`: 2 s that a run without encoders is spared

    try:
        _check_config(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        other = "" if dropout is not None else _head_of_others(config)
        if dropout is not None:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: i for i, label in enumerate(labels)}
            config.use_weighted_layer_sum = True
            config.classifier_proj_size = len(labels)  # of a linear classifier
            config.head_dropout = dropout  # not of transformers, which keeps it all the same
            config.problem_type = None
        if other:
            config.classifier_proj_size = config.hidden_size
        model, report = _weights(name, config, HEADS_OF_OTHERS.get(other))
        extractor = AutoFeatureExtractor.from_pretrained(  # type: ignore[no-untyped-call]
            name, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = first_line(error)
        raise MifuseError(f"hf:{name} cannot be loaded as an audio classifier: {reason}") from error
    plain(model)
    if other == "ForCTC":
        model.projector = nn.Identity()
    elif other:
        model.classifier = nn.Sequential(nn.Tanh(), model.classifier)
    _check_weights(name, _absent(report, other, dropout), report["unexpected_keys"])
    _check_kind(name, model, extractor, dropout)
    if "layer_weights" in report["missing_keys"]:
        # `transformers` leaves whatever was in memory there, for WavLM and wav2vec2.
        nn.init.constant_(model.layer_weights, 1 / len(model.layer_weights))
    return model, extractor


def _weights(name: str, config: Any, renamed: dict[str, str] | None) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForAudioClassification

    from mifuse.models.attention import NAME

    try:
        with quietly():
            model, report = AutoModelForAudioClassification.from_pretrained(
                name,
                config=config,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,  # most of the hub is in half; heads and features are not
                attn_implementation=NAME,
                use_safetensors=True,  # the other form is a pickle
                trust_remote_code=False,
                output_loading_info=True,
                **({"key_mapping": renamed} if renamed else {}),
            )
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        _refuse(
            name, f"a model of the kind {config.model_type} is no classifier of audio", "choose one that is"
        )
    except OSError as error:
        files = _files(name)
        if any(file.endswith(".safetensors") for file in files) or not any(
            file.startswith("pytorch_model") and file.endswith(".bin") for file in files
        ):
            raise
        where = (
            f"in {name}"
            if Path(name).is_dir()
            else f"after `hf download {name} --local-dir FOLDER`, in FOLDER"
        )
        raise MifuseError(
            f"hf:{name} has its weights in a pickle alone (pytorch_model.bin), which could run code: "
            f"convert it once, {where}: {CONVERT}"
        ) from error
    return model, report


def _check_config(name: str) -> None:
    """Refuse what is no checkpoint of a kind that `transformers` knows, by what its config.json says."""
    from transformers import PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        known, _ = PretrainedConfig.get_config_dict(name)
    except OSError:
        if "hyperparams.yaml" not in _files(name):
            raise
        known = {}
    kind = known.get("model_type")
    if "speechbrain_interface" in known or (not kind and "hyperparams.yaml" in _files(name)):
        _refuse(name, "it is in SpeechBrain's format, whose hyperparams.yaml is code", _OTHER)
    if not known:
        _refuse(name, "there is no config.json", "give the folder of a checkpoint, or its name on the hub")
    if not kind:
        _refuse(name, "its config.json has no model_type: it needs code of its makers", _OTHER)
    if kind not in CONFIG_MAPPING:
        code = sorted(
            {str(place).split(".")[0].split("--")[-1] for place in known.get("auto_map", {}).values()}
        )
        _refuse(
            name,
            f"the kind {kind} needs code that comes with it ({', '.join(code) or 'none is there'})",
            _OTHER,
        )


def _head_of_others(config: Any) -> str:
    """The end of the architecture's name, where the head is one of `HEADS_OF_OTHERS`."""
    name = (config.architectures or [""])[0]
    found = next((end for end in HEADS_OF_OTHERS if name.endswith(end)), "")
    mean = getattr(config, "pooling_mode", "mean") == "mean"  # it could be the sum or the maximum
    return found if mean and hasattr(config, "classifier_proj_size") else ""


def _absent(report: dict[str, Any], other: str, dropout: float | None) -> set[str]:
    """Weights that would be random though nobody is going to train them."""
    absent = {key for key in report["missing_keys"] if key.split(".")[-1] not in HARMLESS}
    absent |= {key for key, *_ in report["mismatched_keys"]}
    if other == "ForCTC":
        absent = {key for key in absent if not key.startswith("projector")}
    return {key for key in absent if dropout is None or not key.startswith(HEAD)}


def _check_weights(name: str, absent: set[str], unused: Collection[str]) -> None:
    if body := sorted(key for key in absent if not key.startswith(HEAD)):
        has = f", and others are there ({min(unused)}, …)" if unused else ""
        _refuse(
            name, f"{len(body)} weights of its encoder are missing ({body[0]}, …){has}", "choose another one"
        )
    if absent:
        others = sorted(key for key in unused if key.startswith((*HEAD, "lm_head")))
        has = f"; it has {', '.join(others[:3])}" if others else ""
        raise MifuseError(
            f"hf:{name} has no trained head ({min(absent)} is missing or of another size{has}): "
            "put one on it with `mifuse train --encoder`, or choose a fine-tuned checkpoint"
        )


def _check_kind(name: str, model: Any, extractor: Any, dropout: float | None) -> None:
    if extractor.sampling_rate != SAMPLE_RATE:
        raise MifuseError(
            f"hf:{name} takes audio of {extractor.sampling_rate} Hz: choose a checkpoint for {SAMPLE_RATE} Hz"
        )
    if dropout is not None and not all(hasattr(model, part) for part in HEAD):
        raise MifuseError(
            f"hf:{name} ({model.config.model_type}) has no weighted layers to put a head on: "
            "choose a WavLM, HuBERT, wav2vec2 or Whisper checkpoint"
        )


def _refuse(name: str, reason: str, advice: str) -> NoReturn:
    raise MifuseError(f"hf:{name} cannot be loaded as an audio classifier: {reason}: {advice}")


def _files(name: str) -> list[str]:
    """Names of the files of a folder, or of a repository where it can be reached."""
    if Path(name).is_dir():
        return [file.name for file in Path(name).iterdir()]
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HFValidationError

    try:
        return list_repo_files(name)
    except (OSError, HFValidationError):
        return []


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """`transformers` reports at length what a checkpoint lacks, such as a new head; what matters raises."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
