"""The teacher that reads: Claude takes no audio, so it is shown a picture and measures."""

from __future__ import annotations

import asyncio
import base64
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anthropic

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.clips.manifest import Clip
from mifuse.config import require
from mifuse.errors import MifuseError
from mifuse.teachers import evidence, replies
from mifuse.teachers.base import Reply, Said, Source
from mifuse.teachers.evidence import DPI, HEIGHT, WIDTH, Voices
from mifuse.teachers.optional import Optionals
from mifuse.teachers.prompts import Prompts, with_transcript
from mifuse.teachers.replies import counted, items, mapping, optional, spoken, text
from mifuse.teachers.service import (
    check_address,
    key_from_environment,
    most_tokens,
    scrub_text,
    service_error,
)
from mifuse.teachers.transport import client, is_open_to_readers, keep_to, within
from mifuse.voices.prosody import MEASURES
from mifuse_runtime.dimensions import Ranges

# Tokens of a picture are pixels / 750, or patches of 28 x 28 pixels: the larger of the two.
PICTURE_TOKENS = max(
    math.ceil(WIDTH * DPI * HEIGHT * DPI / 750), math.ceil(WIDTH * DPI / 28) * math.ceil(HEIGHT * DPI / 28)
)
TABLE_BYTES = 110 * (len(MEASURES) + 1)
TRIES = 2  # of a request: with a schema, and without where the service refuses one
DRAWING = 300.0  # s: what is shown is drawn for all requests of a moment, one after the other
EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class AnthropicConfig:
    """How Claude is asked."""

    model: str
    base_url: str | None = None  # None: what the SDK takes by itself, ANTHROPIC_BASE_URL or Anthropic's own
    effort: str | None = None  # low, medium, high, xhigh, max; None: the model's own
    max_seconds: float = 30.0  # s; of longer clips the first seconds are shown
    max_tokens: int = 1024  # of an answer, thinking included
    concurrency: int = 32  # the most requests open at a time
    timeout: float = 120.0  # s, of a request
    seed: int = 0  # of the prompts

    def __post_init__(self) -> None:
        require(
            self,
            max_seconds=(0.1, math.inf),
            max_tokens=(1, math.inf),
            concurrency=(1, 10_000),
            timeout=(0.1, 900),
        )
        if self.effort is not None and self.effort not in EFFORTS:
            raise MifuseError(f"effort = {self.effort!r}: use one of {', '.join(EFFORTS)}")


class AnthropicTeacher:
    """Messages with a picture and a table of the voice, answered by a JSON schema.

    Its draws differ by their prompts: the API has no temperature.

    Args:
        clips: the corpus that measures are relative to.
    """

    default_draws = 4
    per_request = 1

    def __init__(
        self,
        config: AnthropicConfig,
        clips: Sequence[Clip],
        cache: AudioCache | None = None,
        labels: Sequence[str] = LABELS,
        descriptions: tuple[tuple[str, str], ...] = (),
        *,
        dimensions: Ranges | None = None,
    ) -> None:
        check_address(config.base_url)
        self.config = config
        self.concurrency = config.concurrency
        self.key = key_from_environment("ANTHROPIC_API_KEY", needed=False)
        http = client(anthropic, config.timeout)
        self.client = anthropic.AsyncAnthropic(
            api_key=self.key or "none",
            base_url=config.base_url,
            timeout=config.timeout,
            max_retries=0,
            http_client=http,
        )
        keep_to(http, self.client.base_url)
        self.host = self.client.base_url.host
        self.unencrypted = is_open_to_readers(str(self.client.base_url), self.key)
        self.deadline = TRIES * config.timeout + DRAWING
        self._clips, self._cache = clips, cache or AudioCache()
        self._voices: Voices | None = None
        self._measuring = threading.Lock()
        self.dimensions = dict(dimensions or {})
        self.prompts = Prompts(
            *(tuple(labels), "evidence"),
            seed=config.seed,
            descriptions=descriptions,
            dimensions=tuple(self.dimensions.items()),
        )
        shape = {
            "evidence": evidence.VERSION, "effort": config.effort,
            "max_seconds": config.max_seconds, "max_tokens": config.max_tokens,
        }  # fmt: skip
        self.source = Source("anthropic", config.model, self.prompts.hash(shape))
        self._optionals = Optionals({"schema"}, self.host)

    def measure(self, progress: Callable[[], object] = lambda: None) -> Voices:
        """Measure the corpus, once; otherwise done at the first question.

        Args:
            progress: called after each clip.
        """
        with self._measuring:
            if self._voices is None:
                self._voices = Voices(self._clips, self._cache, progress, self.config.max_seconds)
        return self._voices

    def _show(self, clip: Clip, question: str) -> list[dict[str, Any]]:
        """The content of a question. The day the API takes audio, an audio block comes in here."""
        png, table = self.measure().evidence(clip)
        data = base64.b64encode(png).decode()
        return [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
            {"type": "text", "text": f"{table}\n\n{question}"},
        ]

    def parameters(self, clip: Clip, draw: int, attempt: int, schema: bool = True) -> dict[str, Any]:
        """Of the message that asks for a draw, by itself or in a batch."""
        prompt = self.prompts.get(draw, attempt)
        question = with_transcript(prompt.text, clip.extra.get("transcript"))
        output: dict[str, Any] = {"effort": self.config.effort} if self.config.effort else {}
        if schema:
            output["format"] = {"type": "json_schema", "schema": prompt.schema()}
        return {
            "model": self.config.model,
            "max_tokens": self.config.max_tokens,
            # The same for all questions, so it is read from the cache where it is long enough for one.
            "system": [{"type": "text", "text": prompt.system, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": self._show(clip, question)}],
            **({"output_config": output} if output else {}),
        }

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        """One message; see `Teacher.ask`."""
        (draw,) = draws

        async def send(features: frozenset[str]) -> Reply:
            parameters = await asyncio.to_thread(self.parameters, clip, draw, attempt, "schema" in features)
            try:
                raw = await within(
                    self.config.timeout,
                    self.client.messages.with_raw_response.create(
                        extra_headers={"Idempotency-Key": key}, **parameters
                    ),
                    self.host,
                )
            except (anthropic.AnthropicError, ValueError) as error:  # ValueError: a head that is none
                raise service_error(error, self.host, self.key) from None
            message = replies.read(raw.http_response.content, self.host, self.key, usage)
            headers = {name.lower(): value for name, value in raw.headers.items()}
            return self.reply(message, headers)

        return await self._optionals.ask({"schema"}, send)

    def reply(self, message: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
        """A message, answered by itself or in a batch, as a reply."""
        headers = headers or {}
        words = spoken(message.get("content"))
        problem = {
            "refusal": "refused",
            "max_tokens": f"cut off at {self.config.max_tokens} tokens",
            "model_context_window_exceeded": "cut off at the end of the context window",
        }.get(text(message.get("stop_reason")), "")
        identity = headers.get("request-id") or text(message.get("id")) or None
        said = Said(scrub_text(words, self.key), problem=problem)
        return Reply(
            [said] if items(message.get("content")) or problem else [],
            usage(message.get("usage")),
            identity,
            headers,
        )

    def most_usage(self, clip: Clip, draws: int) -> dict[str, int]:
        """See `Teacher.most_usage`."""
        prompt = self.prompts.get(0)
        words = with_transcript(prompt.system + prompt.text, clip.extra.get("transcript"))
        return {
            "input": most_tokens(words + " " * TABLE_BYTES) + PICTURE_TOKENS,
            "output": self.config.max_tokens * draws,
        }

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def usage(said: object) -> Mapping[str, object]:
    """Tokens by kind; what makes no sense stays as it is."""
    tokens = mapping(said)
    counts = {
        "input": tokens.get("input_tokens"),
        "cache_write": optional(tokens, "cache_creation_input_tokens"),
        "cache_read": optional(tokens, "cache_read_input_tokens"),
        "output": tokens.get("output_tokens"),
    }
    return counted(counts)
