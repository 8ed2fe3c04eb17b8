"""Subsets and groups of emotions in JavaScript are those of Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mifuse_runtime
from mifuse_runtime import Recognizer
from tests.browser import Ask, needs_web
from tests.bundles import make_bundle, speech
from tests.test_web import same, written

pytestmark = needs_web


def test_subsets_and_groups_are_those_of_python(ask: Ask, tmp_path: Path) -> None:
    five = ("angry", "calm", "fear", "happy", "sad")
    folder = make_bundle(tmp_path / "five", five, dimensions={"arousal": (1.0, 7.0)})
    whole = Recognizer.load(folder)
    ask("load", bundle=folder)
    some = ["sad", "angry", "fear"]
    few, low = whole.subset(some), whole.grouped({"low": ("sad", "fear")})
    views = {
        "few": (few, {"subset": some}),
        "low": (low, {"texts": [" low = sad+ fear"]}),
        "both": (few.grouped({"low": ("sad", "fear")}), {"subset": some, "groups": {"low": ["sad", "fear"]}}),
    }
    samples = speech(2.0)
    request = written(samples, tmp_path)
    for name, (seen, options) in views.items():
        assert ask("view", bundle=folder, view=name, **options) == list(seen.labels)
        same(ask("predict", bundle=name, **request), seen.predict(samples))
        assert seen.predict(samples).label in seen.labels
        wanted = seen.stream(window=1.0).feed(samples)
        found = ask("stream", bundle=name, window=1.0, cuts=[9000], **request)
        for one, other in zip(found, wanted, strict=False):
            same(one, other)
    for groups in (
        {"a": ["bored"]},
        {"a": ["sad"], "b": ["sad"]},
        {"calm": ["sad"]},
        {"all": five},
        {"a": []},
    ):
        with pytest.raises(mifuse_runtime.MifuseError) as refused:
            whole.grouped(groups)
        with pytest.raises(RuntimeError, match=f"^MifuseError: {re.escape(str(refused.value))}$"):
            ask("view", bundle=folder, view="none", groups=groups)
    for names in (["sad"], ["sad", "sad"], ["sad", "bored"], []):
        with pytest.raises(mifuse_runtime.MifuseError) as refused:
            whole.subset(names)
        with pytest.raises(RuntimeError, match=f"^MifuseError: {re.escape(str(refused.value))}$"):
            ask("view", bundle=folder, view="none", subset=names)
    with pytest.raises(RuntimeError, match="each name once"):
        ask("view", bundle=folder, view="none", texts=["a=sad", "a=fear"])
