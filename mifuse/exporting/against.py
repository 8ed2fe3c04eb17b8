"""One run of `mifuse bench --json` against an earlier one: what differs by more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mifuse.errors import MifuseError
from mifuse.exporting.bench import COMPARED
from mifuse.exporting.timing import Change, changes

Document = Mapping[str, Any]  # what `mifuse bench --json` prints
PLACES = (("engine",), ("threads",), ("machine", "cpu"), ("machine", "cores"), ("machine", "versions"))


def earlier(path: Path) -> dict[str, Any]:
    """The file of an earlier run, checked.

    Raises:
        MifuseError: it cannot be read, or is no such file.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for times in _rounds(document).values():
            if not all(isinstance(ms, int | float) and 0 < ms < float("inf") for ms in times):
                raise ValueError
        for place in PLACES:
            _at(document, place)
    except OSError as error:
        raise MifuseError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MifuseError(
            f"{path} is not what `mifuse bench --json` of this version prints: make it anew"
        ) from error
    return document


def against(before: Document, now: Document) -> list[tuple[float, str, str, Change]]:
    """(seconds, precision, predict or graph, what changed) of all that both runs timed.

    Raises:
        MifuseError: they share nothing, or one has a single round.
    """
    old, new = _rounds(before), _rounds(now)
    both = [key for key in new if key in old]
    if not both:
        raise MifuseError(
            "the earlier run has none of these lengths and precisions: give --seconds as it was"
        )
    try:
        found = changes([(old[key], new[key]) for key in both])
    except ValueError as error:
        raise MifuseError(f"{error}: give --calls 2 or more, then and now") from error
    return [(*key, change) for key, change in zip(both, found, strict=True)]


def unlike(before: Document, now: Document) -> list[str]:
    """What the two runs did not have alike, a line each."""
    pairs = ((place, _at(before, place), _at(now, place)) for place in PLACES)
    return [f"{place[-1]} then {old}, now {new}" for place, old, new in pairs if old != new]


def _rounds(document: Document) -> dict[tuple[float, str, str], list[float]]:
    rows = document["latencies_ms"]
    return {
        (float(row["seconds"]), str(row["precision"]), kind): row["rounds"][kind]
        for row in rows
        for kind in COMPARED
    }


def _at(document: Document, place: tuple[str, ...]) -> Any:
    found: Any = document
    for key in place:
        found = found[key]
    return found
