"""Replies of services, whatever JSON they are: one clear error, or an answer and what it may cost."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mifuse.clips.labels import LABELS
from mifuse.teachers import replies
from mifuse.teachers.base import Said
from mifuse.teachers.openai import OpenAIConfig, OpenAITeacher, usage
from mifuse.teachers.prompts import Prompts
from mifuse.teachers.service import ServiceError

KEY = "sk-hostile-0123456789"
ANSWER = json.dumps(dict.fromkeys(LABELS, 1 / len(LABELS)))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_an_error_with_a_bill_is_paid() -> None:
    body = {"error": {"code": 502, "message": "gone"}, "usage": {"prompt_tokens": 7, "completion_tokens": 0}}
    with pytest.raises(ServiceError, match="gone") as caught:
        replies.read(json.dumps(body).encode(), "host", KEY, usage)
    assert caught.value.usage == {"input": 7} and not caught.value.billed and caught.value.kind == "busy"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 401}, "stop"),
        ({"code": "429"}, "limit"),
        ({"code": 418}, "clip"),
        ({"code": 10**30}, "busy"),
        ({"code": None, "type": "authentication_error"}, "stop"),
        ({"message": 7}, "busy"),
        ([1, 2], "busy"),
    ],
)
def test_what_kind_of_error(error: object, kind: str) -> None:
    with pytest.raises(ServiceError) as caught:
        replies.read(json.dumps({"error": error}).encode(), "host", KEY, usage)
    assert caught.value.kind == kind and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"error": {"code": 503, "message": "overloaded"}}]', "overloaded"),
        (b'"upstream is gone"', "upstream is gone"),
        (b"", "nothing at all"),
    ],
)
def test_an_error_in_a_list_or_a_bare_text_is_an_outage(content: bytes, words: str) -> None:
    with pytest.raises(ServiceError, match=words) as caught:
        replies.read(content, "host", KEY, usage)
    assert caught.value.kind == "busy"


def test_an_answer_in_parts() -> None:
    parts = [{"type": "text", "text": ANSWER[:9]}, {"type": "image"}, 7, {"type": "text", "text": ANSWER[9:]}]
    said = openai_teacher(logprobs=False)._said(
        {"message": {"content": parts}}, Prompts(LABELS, "audio", False).get(0)
    )
    assert said == Said(ANSWER)


NAMES = ["choices", "message", "content", "usage", "error", "code", "finish_reason", "refusal", "logprobs"]
NAMES += ["top_logprobs", "token", "logprob", "id", "prompt_tokens", "completion_tokens", "cached_tokens"]
NAMES += ["prompt_tokens_details", "audio_tokens"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(ANSWER),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@cache
def openai_teacher(logprobs: bool) -> OpenAITeacher:
    """Made once: each has a client, which takes 30 ms."""
    return OpenAITeacher(OpenAIConfig("m", "http://127.0.0.1:9/v1", logprobs=logprobs))


@given(st.dictionaries(st.sampled_from(["choices", "usage", "id", "error"]), JSON, max_size=4))
@example({"choices": [{"logprobs": {"content": [{"token": "a", "logprob": "x"}]}}]})
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_json_raises_anything_else(found: dict[str, Any]) -> None:
    for logprobs in (False, True):
        teacher = openai_teacher(logprobs)
        prompt = Prompts(LABELS, "audio", logprobs).get(0)
        try:
            content = json.dumps(found).encode()
            read = replies.read(content, "host", KEY, usage)
            for choice in replies.items(read.get("choices")):
                teacher._said(replies.mapping(choice), prompt)
        except ServiceError as error:
            assert "\n" not in str(error)
        counts, odd = replies.billed(usage(found.get("usage")), {"input": 100, "output": 10})
        assert all(type(n) is int and n >= 0 for n in counts.values())
        assert sum(counts.values()) <= 110 and len(odd) < 200
