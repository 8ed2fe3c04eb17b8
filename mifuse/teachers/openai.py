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
from mifuse.teachers import replies
from mifuse.teachers.answers import InvalidAnswerError, from_tokens
from mifuse.teachers.base import Reply, Said, Source
from mifuse.teachers.optional import Optionals
from mifuse.teachers.prompts import Prompt, Prompts, with_transcript
from mifuse.teachers.replies import counted, items, mapping, optional, spoken, text
from mifuse.teachers.service import (
    ServiceError,
    check_address,
    key_from_environment,
    most_tokens,
    scrub,
    scrub_text,
    service_error,
)
from mifuse.teachers.transport import client, is_open_to_readers, keep_to, within
from mifuse_runtime.dimensions import Ranges

AUDIO_TOKENS_PER_SECOND = (
    40  # the most of any model known: Gemini 32, Qwen2.5-Omni 25, Voxtral 12.5, OpenAI 10
)
TRIES = 4  # of a request, with less of what a service may not know each time
DECODING = 120.0  # s: a long clip waits for others to be decoded
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

    default_draws = 4

    def __init__(
        self,
        config: OpenAIConfig,
        cache: AudioCache | None = None,
        labels: Sequence[str] = LABELS,
        descriptions: tuple[tuple[str, str], ...] = (),
        *,
        dimensions: Ranges | None = None,
    ) -> None:
        check_address(config.base_url)
        self.config = config
        # Samples of one prompt differ only where chance has a say in them.
        alone = config.logprobs or config.temperature == 0
        self.per_request = 1 if alone else config.per_request
        self.concurrency = config.concurrency
        self._key = key_from_environment("OPENAI_API_KEY", needed=False)  # a server of one's own has none
        http = client(openai, config.timeout)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=config.base_url,
            timeout=config.timeout,
            max_retries=0,
            http_client=http,
        )
        keep_to(http, self._client.base_url)
        self._create = self._client.chat.completions.with_raw_response.create
        self.host = self._client.base_url.host
        self.unencrypted = is_open_to_readers(str(self._client.base_url), self._key)
        self.deadline = TRIES * config.timeout + DECODING
        self._cache = cache or AudioCache()
        self._seconds = functools.cache(duration)  # K requests a clip, each would open the file twice
        self._decoding = asyncio.Lock()  # for one long clip at a time: half an hour takes 450 MB
        self.dimensions = dict(dimensions or {})
        self.prompts = Prompts(
            *(tuple(labels), "audio", config.logprobs, config.seed),
            descriptions=descriptions,
            dimensions=tuple(self.dimensions.items()),
        )
        shape = {
            "temperature": config.temperature, "per_request": self.per_request,
            "max_seconds": config.max_seconds, "max_tokens": config.max_tokens,
        }  # fmt: skip
        self.source = Source("openai", config.model, self.prompts.hash(shape))
        self._optionals = Optionals({"n"} if config.logprobs else {"n", "schema"}, self.host)

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        """One chat completion with as many choices as draws; see `Teacher.ask`."""
        prompt = self.prompts.get(draws[0] // self.per_request, attempt)
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
            raw = await within(
                self.config.timeout,
                self._create(
                    model=self.config.model,
                    # The SDK looks into each part of its own arguments for keys to rename: 1 of 4 ms.
                    messages=(),
                    extra_body=body,
                    extra_headers={"Idempotency-Key": key},
                ),
                self.host,
            )
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a head that is none
            raise service_error(error, self.host, self._key) from None
        completion = replies.read(raw.http_response.content, self.host, self._key, usage)
        headers = {name.lower(): value for name, value in raw.headers.items()}
        choices = items(completion.get("choices"))[:count]  # a service may send a million
        said = [self._said(mapping(choice), prompt) for choice in choices]
        identity = headers.get("x-request-id") or text(completion.get("id")) or None
        return Reply(said, usage(completion.get("usage")), identity, headers)

    def _said(self, choice: Mapping[str, Any], prompt: Prompt) -> Said:
        message = mapping(choice.get("message"))
        words = scrub_text(spoken(message.get("content")), self._key)
        refusal, finish = text(message.get("refusal")), choice.get("finish_reason")
        if refusal or finish == "content_filter":
            return Said(words, problem=f"refused: {scrub(refusal or 'content filter', self._key)[:200]}")
        if self.config.logprobs:
            return self._from_tokens(choice, words, prompt)
        if finish == "length":
            return Said(words, problem=f"cut off at {self.config.max_tokens} tokens")
        return Said(words)

    def _from_tokens(self, choice: Mapping[str, Any], words: str, prompt: Prompt) -> Said:
        tokens = [mapping(token) for token in items(mapping(choice.get("logprobs")).get("content"))]
        if not tokens:
            why = f"{self.host} gives no token probabilities: use --probs verbal"
            raise ServiceError(why, "stop", billed=True)
        first = next((token for token in tokens if text(token.get("token")).strip(' "\n')), tokens[0])
        alternatives = [mapping(one) for one in items(first.get("top_logprobs"))] or [first]
        pairs = [(text(one.get("token")), one.get("logprob")) for one in alternatives]
        try:
            return Said(words, probs=from_tokens(pairs, prompt.labels))
        except InvalidAnswerError as error:
            return Said(words, problem=str(error))

    def _wav(self, clip: Clip) -> str:
        return wav(self._cache.samples(clip)[: int(self.config.max_seconds * SAMPLE_RATE)])

    def most_usage(self, clip: Clip, draws: int) -> dict[str, int]:
        """See `Teacher.most_usage`; the length is that of the file, silent ends included."""
        prompt = self.prompts.get(0)
        words = with_transcript(prompt.system + prompt.text, clip.extra.get("transcript"))
        seconds = min(self._seconds(clip), self.config.max_seconds) + 1
        return {
            "input": most_tokens(words),
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


def usage(said: object) -> Mapping[str, object]:
    """Tokens by kind; of what the protocol counts twice, each once. What makes no sense stays as it is."""
    tokens = mapping(said)
    details = mapping(tokens.get("prompt_tokens_details"))
    audio, cached = optional(details, "audio_tokens"), optional(details, "cached_tokens")
    prompt = tokens.get("prompt_tokens")
    if all(type(count) is int for count in (prompt, audio, cached)):
        prompt -= audio + cached  # below zero where the parts are more than the whole
    counts = {
        "input": prompt,
        "audio": audio,
        "cache_read": cached,
        "output": tokens.get("completion_tokens"),
    }
    return counted(counts)
