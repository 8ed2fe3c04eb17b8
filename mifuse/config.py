"""Settings: one frozen dataclass a stage, read from JSON and changed by `name=value`."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from mifuse.errors import MifuseError

T = TypeVar("T")


def from_dict(default: T, values: Mapping[str, Any], where: str = "") -> T:
    """A copy of the dataclass `default` with `values` in place of its own; groups are nested dicts.

    Raises:
        MifuseError: an unknown key (named with its nearest neighbours), a value of another type, or one
            that the dataclass refuses.
    """
    known: dict[str, Any] = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
            choices = ", ".join(where + one for one in near)
            raise MifuseError(f"there is no setting {where + name!r}: did you mean {choices}?")
        changes[name] = _converted(known[name], value, where + name)
    return dataclasses.replace(default, **changes)  # type: ignore[type-var]


def _converted(old: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(old):
        if not isinstance(value, Mapping):
            raise MifuseError(f"{where} is a group of settings: set one of them, as in {where}.NAME=VALUE")
        return from_dict(old, value, f"{where}.")
    wanted = type(old)
    if wanted is tuple and isinstance(value, list) and len(value) == len(old):
        return tuple(_converted(mine, theirs, where) for mine, theirs in zip(old, value, strict=True))
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        raise MifuseError(f"{where} = {value!r}: expected {wanted.__name__}, as in {json.dumps(old)}")
    return value


def require(config: Any, **ranges: tuple[float, float]) -> None:
    """Refuse a config with a number outside its range, name = (least, most); for `__post_init__`.

    Raises:
        MifuseError: names the setting, its value and the range.
    """
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if not least <= value <= most:
            bounds = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
            raise MifuseError(f"{name} = {value}: it must be {bounds}")


def override(default: T, assignments: Iterable[str]) -> T:
    """Apply `name=value` and `group.name=value` strings; values are JSON, or bare text.

    Raises:
        MifuseError: not of that form, or refused by `from_dict`.
    """
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise MifuseError(f"{assignment!r}: settings are given as NAME=VALUE, as in fit.lr=0.001")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        for part in reversed(name.strip().split(".")):
            value = {part: value}
        default = from_dict(default, value)
    return default
