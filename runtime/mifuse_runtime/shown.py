"""Text of others on its way to a terminal, a sheet or a page: one function that every output uses."""

from __future__ import annotations

_SPACES = "\u00a0\u3000"  # spaces that names of files have, and Python does not count as printable
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell begins with that a spreadsheet computes


def shown(text: object, most: int | None = None) -> str:
    """Text in one line that hides nothing: control characters, line breaks, halves of characters and what
    turns the direction of writing are escaped.

    Args:
        most: characters; longer text ends with an ellipsis.

    >>> shown("a.wav\\x1b[2J\\n\\u202ecod.exe")
    'a.wav\\\\x1b[2J\\\\n\\\\u202ecod.exe'
    """
    words = str(text)
    if most is not None and len(words) > most:
        words = words[: most - 1] + "…"
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() or c in _SPACES else _escaped(c) for c in words)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def cell(value: object) -> object:
    """A value of a table for people, which no spreadsheet takes for a formula; numbers stay as they are.

    >>> cell("=cmd|' /C calc'!A0"), cell("a.wav"), cell(-0.5)
    ("'=cmd|' /C calc'!A0", 'a.wav', -0.5)
    """
    if not isinstance(value, str):
        return value
    return f"'{shown(value)}" if value.startswith(FORMULA) else shown(value)
