"""Models of `funasr` as classifiers: emotion2vec with its nine classes, SenseVoice with its tags.

`funasr` is no dependency of mifuse: it brings 30 packages, 400 MB. Its weights are pickles; torch reads them
without running what they hold. A model's configuration, though, `funasr` evaluates in part as Python: take
models of people whom you trust.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mifuse.clips.audio import SAMPLE_RATE
from mifuse.errors import MifuseError
from mifuse.teachers.classifiers import Samples, digest_of

MODELSCOPE = ("iic", "damo")  # owners whose models are there and not on Hugging Face
# What SenseVoice says of the voice, before the words, as in <|en|><|HAPPY|><|Speech|><|woitn|>.
TAGS = ("HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED")
TAG = re.compile(rf"<\|({'|'.join(TAGS)})\|>")
OTHER_TAG = re.compile(r"<\|\w+\|>")
UNTRAINED = ("miss key in ckpt", "init_param does not exist")  # what `funasr` prints and goes on


class FunasrListener:
    """A model of `funasr`, on the GPU when there is one.

    Raises:
        MifuseError: `funasr` is not installed, has no such model, or the model says no emotions.
    """

    says_numbers = False

    def __init__(self, name: str) -> None:
        try:
            from funasr import AutoModel
        except ImportError as error:
            raise MifuseError(
                f"funasr:{name}: funasr is not installed ({error}): pip install funasr (30 packages, 400 MB)"
            ) from error
        hub = "ms" if name.partition("/")[0] in MODELSCOPE and not Path(name).exists() else "hf"
        try:
            with _quietly() as printed:
                self._model: Any = AutoModel(
                    model=name,
                    hub=hub,
                    device="cuda" if torch.cuda.is_available() else "cpu",
                    ncpu=torch.get_num_threads(),
                    disable_update=True,
                    disable_pbar=True,
                    log_level="ERROR",
                    trust_remote_code=False,
                )
        except Exception as error:  # it raises whatever it likes, AssertionError among them
            reason = " ".join((str(error) or type(error).__name__).split())[:200]
            raise MifuseError(
                f"funasr:{name} cannot be loaded ({reason}): name a folder or a model"
            ) from error
        if lines := [
            line for line in printed.getvalue().splitlines() if any(say in line for say in UNTRAINED)
        ]:
            raise MifuseError(f"funasr:{name} lacks {len(lines)} of its weights ({lines[0].strip()})")
        self.digest = digest_of(self._model.model)
        second = 1e-3 * np.random.default_rng(0).standard_normal((1, SAMPLE_RATE), dtype=np.float32)
        result = self._generate(second)[0]
        self.words = tuple(words_of(result))
        if not self.words:
            raise MifuseError(
                f"funasr:{name} says no emotions, only {', '.join(sorted(result))}: "
                "take emotion2vec_plus_large or SenseVoiceSmall"
            )

    def __call__(self, samples: Samples) -> list[Mapping[str, float]]:
        """See `mifuse.teachers.classifiers.Listener`; SenseVoice votes."""
        return [emotions_of(result) for result in self._generate(samples)]

    def _generate(self, samples: Samples) -> list[dict[str, Any]]:
        with _quietly():
            found: list[dict[str, Any]] = self._model.generate(
                list(samples),
                fs=SAMPLE_RATE,
                disable_pbar=True,
                granularity="utterance",
                extract_embedding=False,  # emotion2vec
                language="auto",
                use_itn=False,
                ban_emo_unk=True,  # SenseVoice
            )
        return found


def words_of(result: Mapping[str, Any]) -> list[str]:
    """All that a model which gave this result can say; nothing when it is neither of the two kinds."""
    if result.get("labels") and result.get("scores"):
        return [str(label) for label in result["labels"]]
    return list(TAGS) if OTHER_TAG.search(str(result.get("text", ""))) else []


def emotions_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Word -> probability of one result.

    >>> emotions_of({"labels": ["生气/angry", "<unk>"], "scores": [0.75, 0.25]})
    {'生气/angry': 0.75, '<unk>': 0.25}
    >>> emotions_of({"text": "<|en|><|HAPPY|><|Speech|><|woitn|>well done"})
    {'HAPPY': 1.0}
    >>> emotions_of({"text": "<|en|><|EMO_UNKNOWN|><|BGM|><|woitn|>"})
    {}
    """
    if result.get("labels"):
        return {
            str(label): float(score) for label, score in zip(result["labels"], result["scores"], strict=True)
        }
    found = TAG.search(str(result.get("text", "")))
    return {found[1]: 1.0} if found else {}


@contextlib.contextmanager
def _quietly() -> Iterator[io.StringIO]:
    """What `funasr` prints is returned; logging, threads and how weights are read are ours again after."""
    root, threads, name = logging.getLogger(), torch.get_num_threads(), "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    level, handlers, before = root.level, root.handlers[:], os.environ.get(name)
    os.environ[name] = "1"  # a pickle must not run code
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            yield printed
    finally:
        logging.disable(logging.NOTSET)
        root.setLevel(level)
        root.handlers[:] = handlers
        torch.set_num_threads(threads)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
