"""Text of others on its way to a terminal, a sheet or a page: one function that every output uses."""

from __future__ import annotations

_SPACES = "\u00a0\u3000"  # spaces that names of files have, and Python does not count as printable
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what a cell begins with that a spreadsheet computes


def shown(text: object, most: int | None = None) -> str:
    """Text in one line that hides nothing: control characters, line breaks, halves of characters and what
    turns the direction of writing are escaped, as JSON escapes them.

    Args:
        most: characters; longer text ends with an ellipsis.

    >>> shown("a.wav\\x1b[2J\\n\\u202ecod.exe")
    'a.wav\\\\u001b[2J\\\\u000a\\\\u202ecod.exe'
    """
    words = str(text)
    if most is not None and len(words) > most:
        words = words[: most - 1] + "…"
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() or c in _SPACES else _escaped(c) for c in words)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def quoted(value: str) -> str:
    """A cell that no spreadsheet takes for a formula; `unquoted` gives the value back.

    >>> quoted("=cmd|' /C calc'!A0"), quoted("a.wav"), unquoted(quoted("+1"))
    ("'=cmd|' /C calc'!A0", 'a.wav', '+1')
    """
    return f"'{value}" if value.lstrip("'").startswith(_FORMULA) else value


def unquoted(cell: str) -> str:
    """What `quoted` has made a cell of."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell
