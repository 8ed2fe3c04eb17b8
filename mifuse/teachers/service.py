"""What can go wrong with a request to a service, the same for every SDK, and without its secrets."""

from __future__ import annotations

import datetime
import email.utils
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, Literal

from mifuse.errors import MifuseError
from mifuse_runtime.shown import shown

MESSAGE = 300  # characters of a service's own words that are shown

Kind = Literal["limit", "busy", "slow", "retry", "away", "clip", "stop"]
KINDS: dict[int, Kind] = {
    401: "stop", 402: "stop", 403: "stop", 404: "stop", 405: "stop", 501: "stop",
    408: "retry", 409: "retry", 425: "retry", 429: "limit",
    500: "retry", 502: "busy", 503: "busy", 504: "busy", 529: "busy",
}  # fmt: skip


class ServiceError(MifuseError):
    """A request that brought no reply.

    Args:
        kind: `limit`: too many requests; `busy`: the service is overloaded; `slow`: no answer in time;
            `away`: no connection; `retry`: bad luck, try again; `clip`: this request will never work;
            `stop`: none will (key, model, payment).
        wait: seconds that the service asks to wait.
        billed: whether it may have been billed all the same: sent, but the answer did not arrive.
    """

    def __init__(
        self, message: str, kind: Kind, *, wait: float | None = None, billed: bool = False, status: int = 0
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.wait = wait
        self.billed = billed
        self.status = status
        self.usage: Mapping[str, object] = {}
        """Tokens by kind that the service bills all the same, as it says them."""


def key_from_environment(name: str, needed: bool = True) -> str:
    """An API key; the environment is the only place that it is taken from.

    Raises:
        MifuseError: it is not set, and `needed`.
    """
    key = os.environ.get(name, "").strip()
    if needed and not key:
        raise MifuseError(f"{name} is not set: put your key into the environment variable of that name")
    return key


def check_address(base_url: str | None) -> None:
    """Refuse an address that cannot be shown in a message.

    Raises:
        MifuseError: not http(s), or with a name and password in it.
    """
    if base_url is None:
        return
    parts = urllib.parse.urlsplit(base_url)
    if parts.username or parts.password:
        raise MifuseError("--base-url holds a password: give keys in the environment only")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise MifuseError(f"--base-url {base_url!r}: expected an address like https://host/v1")


def scrub(text: str, secret: str) -> str:
    """`text` in one line and without the key, whoever put it there."""
    if secret:
        text = text.replace(secret, "***")
    return shown(" ".join(text.split()))


def scrub_text(words: str, secret: str) -> str:
    """An answer, word for word but for a key that the service repeats."""
    return words.replace(secret, "***") if secret else words


def service_error(error: Exception, who: str, secret: str) -> ServiceError:
    """The error of an SDK as ours. Raise it `from None`: the original's request holds the key.

    Args:
        error: of the `openai` or the `anthropic` package, which share their shape, or of the HTTP client.
        who: host that was asked.
    """
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or status < 400:  # below it: a reply that cannot be read
        return _unanswered(error, who, secret)
    response: Any = getattr(error, "response", None)
    headers = {name.lower(): value for name, value in response.headers.items()} if response else {}
    code = str(getattr(error, "code", "") or "")
    kind = KINDS.get(status, "retry" if status >= 500 else "clip")
    if "quota" in code or "billing" in code:  # OpenAI says 429 to an empty account too
        kind = "stop"
    said = scrub(_words(error), secret)[:MESSAGE]
    elsewhere = "check --model and --base-url"
    step = {
        401: "check the key in the environment",
        403: "check what the key may do",
        404: elsewhere,
        405: elsewhere,  # some other server
        501: elsewhere,
    }.get(status, "")
    message = f"{who} answered {status}: {said}" + (f": {step}" if step else "")
    return ServiceError(message, kind, wait=retry_after(headers), status=status)


def _unanswered(error: Exception, who: str, secret: str) -> ServiceError:
    cause = error.__cause__ or error
    name = type(cause).__name__
    if name == "ReplyError":  # of ours
        kind: Kind = getattr(cause, "kind", "busy")
        return ServiceError(f"{who} {scrub(str(cause), secret)}", kind, billed=kind != "stop")
    if name in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol"):
        reason = scrub(str(cause), secret)[:MESSAGE]
        return ServiceError(f"{who} cannot be reached ({reason}): check the network and --base-url", "away")
    what = "did not answer in time" if "Timeout" in name else f"broke off ({name})"
    return ServiceError(f"{who} {what}", "slow" if "Timeout" in name else "retry", billed=True)


def _words(error: Exception) -> str:
    """The sentence in the body of an error, else all of it."""
    body = getattr(error, "body", None)
    for inner in (body.get("error") if isinstance(body, Mapping) else None, body):
        if isinstance(inner, Mapping) and isinstance(inner.get("message"), str):
            return str(inner["message"])
    return str(error)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or a date); None without either."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (IndexError, OverflowError, TypeError, ValueError):
        return None


def seconds(text: str) -> float | None:
    """How long from now, as services write it; None when it is none of their ways.

    >>> seconds("6m0s"), seconds("20ms"), seconds("1.5"), seconds("soon")
    (360.0, 0.02, 1.5, None)
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    if parts and "".join(map("".join, parts)) == text:
        return sum(float(value) * units[unit] for value, unit in parts)
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return max(0.0, when.timestamp() - time.time())
    except ValueError:
        return None


def most_tokens(text: str) -> int:
    """More tokens than any tokeniser makes of a text of ours, chat template and format instructions included.

    English has 4 bytes a token; other scripts come down to 1.5.
    """
    return len(text.encode()) * 2 // 3 + 500
