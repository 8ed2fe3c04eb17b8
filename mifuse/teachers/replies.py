"""What came back from a service, whatever it is: JSON of any shape, an error sent as a success, a page."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from mifuse.teachers.service import KINDS, MESSAGE, Kind, ServiceError, scrub

INPUTS = ("input", "audio", "cache_read", "cache_write")  # kinds of tokens that a request has
_WORDS: dict[str, Kind] = {  # parts of what services call their errors
    "rate_limit": "limit", "overloaded": "busy", "authentication": "stop", "permission": "stop",
    "billing": "stop", "quota": "stop", "invalid_request": "clip", "not_found": "stop",
}  # fmt: skip


Usage = Callable[[object], Mapping[str, object]]


def read(content: bytes, who: str, secret: str, usage: Usage) -> dict[str, Any]:
    """The JSON object of a reply of status 200; {} for JSON of another kind, which holds no answer.

    An error may also be the one object of a list, or a bare text.

    Args:
        usage: tokens by kind, of the field of that name.

    Raises:
        ServiceError: it is an error or a page: an outage, not an answer. What it bills is in `usage`.
    """
    start = content[:100].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith(b"<"):
        words = scrub(" ".join(_text_of(content[:20_000])), secret)[:MESSAGE]
        raise ServiceError(
            f"{who} answered with a page instead of JSON: {words}: check the network and --base-url", "busy"
        )
    try:
        found = json.loads(content, parse_int=_whole)
    except RecursionError:
        return {}
    except ValueError:
        words = scrub(content[:MESSAGE].decode("utf-8", "replace"), secret) or "nothing at all"
        raise ServiceError(
            f"{who} answered with something else than JSON: {words}",
            "busy",
            billed=start[:1] in (b"", b"{", b"["),  # an answer may have been cut off; words are of a proxy
        ) from None
    if isinstance(found, list) and found and all(_error_in(mapping(one)) for one in found):
        found = found[0]
    if isinstance(found, str) and found.strip():
        raise _outage(found, {}, who, secret, usage)
    if not isinstance(found, dict):
        return {}
    if error := _error_in(found):
        raise _outage(error, found, who, secret, usage)
    return found


def _whole(digits: str) -> int | float:
    """A whole number of JSON; of thousands of digits, which Python does not take, infinity."""
    return int(digits) if len(digits) < 4000 else math.inf


def _error_in(found: Mapping[str, Any]) -> object:
    """What says that the reply is an error, whoever's way that is; None for an answer."""
    choices = found.get("choices")
    if isinstance(choices, list) and choices:
        return mapping(choices[0]).get("error") if all(mapping(one).get("error") for one in choices) else None
    if choices or found.get("content"):
        return None
    for name in ("error", "errors", "detail"):
        error = found.get(name)
        if error:
            return error[0] if isinstance(error, list) else error
    # As vLLM, and gateways, write it: the object itself is the error.
    kinds = (found.get("object"), found.get("type"), found.get("status"))
    return found if "error" in kinds or isinstance(found.get("message"), str) else None


def _outage(error: object, found: Mapping[str, Any], who: str, secret: str, usage: Usage) -> ServiceError:
    inner = mapping(error)
    said = next((inner[key] for key in ("message", "msg", "reason", "type") if inner.get(key)), error)
    words = scrub(said if isinstance(said, str) else json.dumps(said), secret)[:MESSAGE]
    names = f"{inner.get('code')} {inner.get('type')}"
    known = (kind for part, kind in _WORDS.items() if part in names)
    code = inner.get("code", inner.get("status"))
    number = int(code) if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) < 4 else 0
    kind = next(known, None) or KINDS.get(number) or ("clip" if 400 <= number < 500 else "busy")
    failure = ServiceError(f"{who} answered with an error: {words}", kind)
    failure.usage = usage(found.get("usage"))
    return failure


def _text_of(page: bytes) -> list[str]:
    """The words of a page."""
    import html.parser

    words: list[str] = []
    silent = 0

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            nonlocal silent
            silent += tag in ("script", "style")

        def handle_endtag(self, tag: str) -> None:
            nonlocal silent
            silent -= tag in ("script", "style")

        def handle_data(self, data: str) -> None:
            if not silent:
                words.append(data)

    Reader().feed(page.decode("utf-8", "replace"))
    return words


def mapping(value: object) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """The value if it is text, else none; halves of characters, which no file takes, are replaced."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def spoken(content: object) -> str:
    """What a model says, sent as a text or as a list of parts, of which those of text count."""
    if isinstance(content, str):
        return text(content)
    parts = [mapping(part) for part in items(content)]
    return "".join(text(part.get("text")) for part in parts if part.get("type") == "text")


def optional(tokens: Mapping[str, Any], name: str) -> Any:
    """A count that a service may leave out where there is nothing to count."""
    count = tokens.get(name)
    return 0 if count is None else count


def counted(counts: Mapping[str, object]) -> dict[str, object]:
    """Tokens by kind without those that are 0; {} where a service counts nothing at all."""
    if all(count is None or (type(count) is int and count == 0) for count in counts.values()):
        return {}
    return {kind: count for kind, count in counts.items() if type(count) is not int or count != 0}


def billed(usage: Mapping[str, object], most: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """Tokens by kind as they may be booked, and what is odd in what the service says.

    Args:
        usage: as the service says it; anything.
        most: what the request can use, by kind.

    >>> billed({"input": 10, "output": -5}, {"input": 20, "output": 9})
    ({'input': 20, 'output': 9}, 'output is -5')
    >>> billed({"input": 10, "output": 5}, {"input": 20, "output": 9})
    ({'input': 10, 'output': 5}, '')
    """
    counts: dict[str, int] = {}
    for kind, count in usage.items():
        if kind not in (*INPUTS, "output") or type(count) is not int or count < 0:
            return dict(most), f"{kind} is {'missing' if count is None else str(count)[:40]}"
        counts[kind] = count
    for kinds, what in ((INPUTS, "input"), (("output",), "output")):
        said, can = (sum(given.get(kind, 0) for kind in kinds) for given in (counts, most))
        if said > can:
            return dict(most), f"{what} is {str(said)[:40]}, the request can have {can} at most"
    return (counts, "") if counts else (dict(most), "no tokens are counted")
