"""The teacher behind any OpenAI-shaped endpoint that takes audio: OpenAI, vLLM, Gemini's, others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import math
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openai

from mifuse.clips.audio import SAMPLE_RATE, AudioCache, Samples, duration
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip
from mifuse.config import require
from mifuse.teachers.answers import InvalidAnswerError, from_tokens
from mifuse.teachers.base import Reply, Said, Source
from mifuse.teachers.optional import Optionals
from mifuse.teachers.prompts import Prompt, Prompts, with_transcript
from mifuse.teachers.service import (
    ServiceError,
    check_address,
    key_from_environment,
    most_tokens,
    scrub,
    scrub_text,
    service_error,
)

AUDIO_TOKENS_PER_SECOND = (
    40  # the most of any model known: Gemini 32, Qwen2.5-Omni 25, Voxtral 12.5, OpenAI 10
)
TOP_LOGPROBS = 20  # the most that the protocol allows


@dataclass(frozen=True)
class OpenAIConfig:
    """How an OpenAI-shaped endpoint is asked."""

    model: str
    base_url: str | None = None  # None: what the SDK takes by itself, OPENAI_BASE_URL or OpenAI's own
    temperature: float = 1.0  # 0 asks for the likeliest answer: draws then differ by their prompts alone
    logprobs: bool = False  # read the labels' probabilities from the tokens instead of asking for numbers
    per_request: int = 4  # draws by `n` from one prompt; 1 asks each by a prompt of its own
    max_seconds: float = 30.0  # s; longer clips are cut to their first seconds
    max_tokens: int = 300  # of an answer, thinking included
    concurrency: int = 64  # the most requests open at a time
    timeout: float = 120.0  # s, of a request
    seed: int = 0  # of the prompts

    def __post_init__(self) -> None:
        most = math.inf
        require(self, temperature=(0, 2), per_request=(1, 128), max_seconds=(0.1, most), max_tokens=(1, most))
        require(self, concurrency=(1, 10_000), timeout=(0.1, 900))


class OpenAITeacher:
    """Chat completions with `input_audio`.

    A JSON schema and `n` are sent until the endpoint refuses them; then it is asked without, and a line in
    the log says so.
    """

    default_draws = 8

    def __init__(
        self, config: OpenAIConfig, cache: AudioCache | None = None, labels: Sequence[str] = LABELS
    ) -> None:
        check_address(config.base_url)
        self.config = config
        # Samples of one prompt differ only where chance has a say in them.
        alone = config.logprobs or config.temperature == 0
        self.per_request = 1 if alone else config.per_request
        self.concurrency = config.concurrency
        self._key = key_from_environment("OPENAI_API_KEY", needed=False)  # a server of one's own has none
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none", base_url=config.base_url, timeout=config.timeout, max_retries=0
        )
        self._create = self._client.chat.completions.with_raw_response.create
        self.host = self._client.base_url.host
        self._cache = cache or AudioCache()
        self._seconds = functools.cache(duration)  # K requests a clip, each would open the file twice
        self._decoding = asyncio.Lock()  # for one long clip at a time: half an hour takes 450 MB
        self._prompts = Prompts(tuple(labels), "audio", config.logprobs, config.seed)
        shape = {
            "temperature": config.temperature, "per_request": self.per_request,
            "max_seconds": config.max_seconds, "max_tokens": config.max_tokens,
        }  # fmt: skip
        self.source = Source("openai", config.model, self._prompts.hash(shape))
        self._optionals = Optionals({"n"} if config.logprobs else {"n", "schema"}, self.host)

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        """One chat completion with as many choices as draws; see `Teacher.ask`."""
        prompt = self._prompts.get(draws[0] // self.per_request, attempt)
        long = self._seconds(clip) > self.config.max_seconds
        async with self._decoding if long else contextlib.nullcontext():
            audio = await asyncio.to_thread(self._wav, clip)
        count = len(draws)
        return await self._optionals.ask(
            {"schema"} | ({"n"} if count > 1 else set()),
            lambda features: self._complete(clip, prompt, audio, count=count, features=features, key=key),
        )

    async def _complete(
        self, clip: Clip, prompt: Prompt, audio: str, *, count: int, features: frozenset[str], key: str
    ) -> Reply:
        content = [
            {"type": "text", "text": with_transcript(prompt.text, clip.extra.get("transcript"))},
            {"type": "input_audio", "input_audio": {"data": audio, "format": "wav"}},
        ]
        body: dict[str, Any] = {
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}],
            "max_completion_tokens": self.config.max_tokens,
            "temperature": self.config.temperature,
        }
        if "n" in features:
            body["n"] = count
        if "schema" in features:
            schema = {"name": "emotions", "strict": True, "schema": prompt.schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if self.config.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        try:
            raw = await self._create(
                model=self.config.model,
                # The SDK looks into each part of its own arguments for keys to rename: 1 of 4 ms a request.
                messages=(),
                extra_body=body,
                extra_headers={"Idempotency-Key": key},
            )
            completion = raw.parse()
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is not JSON
            raise service_error(error, self.host, self._key) from None
        headers = {name.lower(): value for name, value in raw.headers.items()}
        said = [self._said(choice, prompt) for choice in getattr(completion, "choices", None) or ()]
        identity = headers.get("x-request-id") or getattr(completion, "id", None)
        return Reply(said, _usage(getattr(completion, "usage", None)), identity, headers)

    def _said(self, choice: Any, prompt: Prompt) -> Said:
        message = choice.message
        text = scrub_text(message.content, self._key)
        refusal = getattr(message, "refusal", None)
        if refusal or choice.finish_reason == "content_filter":
            return Said(text, problem=f"refused: {scrub(refusal or 'content filter', self._key)[:200]}")
        if self.config.logprobs:
            return self._from_tokens(choice, text, prompt)
        if choice.finish_reason == "length":
            return Said(text, problem=f"cut off at {self.config.max_tokens} tokens")
        return Said(text)

    def _from_tokens(self, choice: Any, text: str, prompt: Prompt) -> Said:
        tokens = getattr(choice.logprobs, "content", None)
        if not tokens:
            why = f"{self.host} gives no token probabilities: use --probs verbal"
            raise ServiceError(why, "stop", billed=True)
        first = next((token for token in tokens if token.token.strip(' "\n')), tokens[0])
        try:
            pairs = [(one.token, one.logprob) for one in first.top_logprobs or [first]]
            return Said(text, probs=from_tokens(pairs, prompt.labels))
        except InvalidAnswerError as error:
            return Said(text, problem=str(error))

    def _wav(self, clip: Clip) -> str:
        return wav(self._cache.samples(clip)[: int(self.config.max_seconds * SAMPLE_RATE)])

    def most_usage(self, clip: Clip, draws: int) -> dict[str, int]:
        """See `Teacher.most_usage`; the length is that of the file, silent ends included."""
        prompt = self._prompts.get(0)
        text = with_transcript(prompt.system + prompt.text, clip.extra.get("transcript"))
        seconds = min(self._seconds(clip), self.config.max_seconds) + 1
        return {
            "input": most_tokens(text),
            "audio": math.ceil(AUDIO_TOKENS_PER_SECOND * seconds),
            "output": self.config.max_tokens * draws,
        }

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def wav(samples: Samples) -> str:
    """16-bit WAV at 16 kHz as base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        writer.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return base64.b64encode(file.getvalue()).decode()


def _usage(usage: Any) -> Mapping[str, int]:
    """Tokens by kind; of what the protocol counts twice, each once."""
    if usage is None:
        return {}
    details = getattr(usage, "prompt_tokens_details", None)
    audio = getattr(details, "audio_tokens", None) or 0
    cached = getattr(details, "cached_tokens", None) or 0
    counts = {
        "input": max(0, (usage.prompt_tokens or 0) - audio - cached),
        "audio": audio,
        "cache_read": cached,
        "output": usage.completion_tokens or 0,
    }
    return {kind: count for kind, count in counts.items() if count}
