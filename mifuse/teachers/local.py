"""The teacher on this machine: an audio-text model of `transformers`, on the GPU when there is one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip
from mifuse.config import require
from mifuse.errors import MifuseError
from mifuse.teachers.base import Reply, Said, Source
from mifuse.teachers.prompts import Prompts, with_transcript
from mifuse_runtime.dimensions import Ranges


@dataclass(frozen=True)
class LocalConfig:
    """How a model on this machine is asked."""

    model: str  # name on the Hugging Face hub, or a folder; Qwen2-Audio, Qwen2.5-Omni, Voxtral, …
    temperature: float = 1.0  # 0 asks for the likeliest answer: draws then differ by their prompts alone
    per_request: int = 4  # draws generated together from one prompt
    max_seconds: float = 30.0  # s; longer clips are cut to their first seconds
    max_tokens: int = 300  # of an answer
    seed: int = 0  # of the prompts

    def __post_init__(self) -> None:
        most = math.inf
        require(self, temperature=(0, 2), per_request=(1, 128), max_seconds=(0.1, most), max_tokens=(1, most))


class LocalTeacher:
    """Generates answers to the same prompts as the services get.

    The model is loaded from safetensors, and no code that comes with it is run.

    Raises:
        MifuseError: there is no such model, or it takes no audio.
    """

    default_draws = 4
    deadline = math.inf  # a model may be slow here
    concurrency = 1  # the GPU is busy with one

    def __init__(
        self,
        config: LocalConfig,
        cache: AudioCache | None = None,
        labels: Sequence[str] = LABELS,
        descriptions: tuple[tuple[str, str], ...] = (),
        *,
        dimensions: Ranges | None = None,
    ) -> None:
        from transformers import AutoModelForMultimodalLM, AutoProcessor

        # transformers types neither.
        processors: Any = AutoProcessor
        models: Any = AutoModelForMultimodalLM
        self.config = config
        self.per_request = 1 if config.temperature == 0 else config.per_request
        try:
            self._processor = processors.from_pretrained(config.model)
            model = models.from_pretrained(config.model, dtype="auto", use_safetensors=True)
        except (OSError, ValueError) as error:  # ValueError: a model of another kind
            reason = " ".join(str(error).split())[:200]
            raise MifuseError(
                f"{config.model!r} cannot be loaded ({reason}): name a folder or a hub model that takes audio"
            ) from error
        if getattr(self._processor, "feature_extractor", None) is None:
            raise MifuseError(f"{config.model!r} takes no audio: name a model that does")
        if hasattr(model, "disable_talker"):  # Qwen2.5-Omni would speak its answer as well
            model.disable_talker()
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._cache = cache or AudioCache()
        self.dimensions = dict(dimensions or {})
        self.prompts = Prompts(
            *(tuple(labels), "audio"),
            seed=config.seed,
            descriptions=descriptions,
            dimensions=tuple(self.dimensions.items()),
        )
        shape = {
            "temperature": config.temperature, "per_request": self.per_request,
            "max_seconds": config.max_seconds, "max_tokens": config.max_tokens,
        }  # fmt: skip
        self.source = Source("local", config.model, self.prompts.hash(shape))

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        """As many answers as draws, from one prompt; see `Teacher.ask`."""
        return await asyncio.to_thread(self._generate, clip, draws, attempt, key)

    def _generate(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        prompt = self.prompts.get(draws[0] // self.per_request, attempt)
        samples = self._cache.samples(clip)[: int(self.config.max_seconds * SAMPLE_RATE)]
        question = with_transcript(prompt.text, clip.extra.get("transcript"))
        content = [{"type": "audio", "audio": samples}, {"type": "text", "text": question}]
        conversation = [
            {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
            {"role": "user", "content": content},
        ]
        text = self._processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        inputs = self._processor(
            text=[text], audio=[samples], sampling_rate=SAMPLE_RATE, return_tensors="pt", padding=True
        ).to(self._model.device, dtype=self._model.dtype)
        chance: dict[str, Any] = {"do_sample": False}
        if self.config.temperature > 0:
            chance = {"do_sample": True, "temperature": self.config.temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(int(key[:15], 16))  # the same question has the same answers
            generated = self._model.generate(
                **inputs, **chance, max_new_tokens=self.config.max_tokens, num_return_sequences=len(draws)
            )
        asked = inputs["input_ids"].shape[1]
        answers = generated[:, asked:]
        ends = self._model.generation_config.eos_token_id
        texts = self._processor.batch_decode(answers, skip_special_tokens=True)
        said = [self._said(*one, ends) for one in zip(texts, answers.tolist(), strict=True)]
        return Reply(said, {"input": asked, "output": answers.numel()})

    def _said(self, text: str, tokens: list[int], ends: int | list[int] | None) -> Said:
        known = ends if isinstance(ends, list) else [ends]
        whole = len(tokens) < self.config.max_tokens or any(end in tokens for end in known)
        return Said(text, problem="" if whole else f"cut off at {self.config.max_tokens} tokens")

    def most_usage(self, clip: Clip, draws: int) -> dict[str, int]:
        """Nothing is billed."""
        return {}

    async def close(self) -> None:
        """There is nothing to let go of."""
