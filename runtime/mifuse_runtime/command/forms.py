"""A form that a client of `serve` sends, as curl and browsers do: its file, piece by piece."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from aiohttp import web

T = TypeVar("T")
Read = Callable[[], Awaitable[bytes]]

FIELDS = 10  # of a form, until the file comes


async def file_of(request: web.Request) -> Read:
    """Reads the next piece of the form's file, or of the field called `file`; empty at its end.

    Raises:
        web.HTTPBadRequest: no form, or none with a file; a piece raises it, too, where the form is cut off.
    """
    from aiohttp import BodyPartReader, web

    reader = await _read(request.multipart)
    for _ in range(FIELDS):
        part = await _read(reader.next)
        if part is None:
            break
        if isinstance(part, BodyPartReader) and (part.filename or part.name == "file"):
            return functools.partial(_read, part.read_chunk)
    raise web.HTTPBadRequest(reason="the form has no file: send one as -F file=@a.wav")


async def _read(step: Callable[[], Awaitable[T]]) -> T:
    """A step of aiohttp's reader, which raises much where a form is none, is cut off or is nested."""
    from aiohttp import web
    from aiohttp.http import HttpProcessingError

    try:
        return await step()
    except (HttpProcessingError, ValueError, AssertionError, RuntimeError, LookupError, TypeError) as error:
        raise web.HTTPBadRequest(reason="the form cannot be read") from error
