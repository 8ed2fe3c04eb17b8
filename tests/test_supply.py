"""Dependencies: licences that are checked, parts that are listed, hashes that hold."""

from __future__ import annotations

import configparser
import json
import re
import zipfile
from pathlib import Path

import pytest

supply = pytest.importorskip("benchmarks.supply")
ROOT = Path(__file__).parents[1]


def test_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert supply.licences("train") == 0
    out = capsys.readouterr().out
    assert re.search(r"^soxr +\S+ +LGPL-2\.1-or-later +a library of its own", out, re.MULTILINE)
    assert "numpy" in out and "torch" in out


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-2.0", True),
        ("GPL-3.0-only", False),
        ("GNU Affero General Public License", False),
        ("LGPL-3.0", False),
        ("", False),
        ("Proprietary", False),
    ],
)
def test_what_is_allowed(said: str, allowed: bool) -> None:
    assert supply.is_allowed("something", said) == allowed


def test_parts_of_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        text = "Name: x\nVersion: 1.0\nRequires-Dist: numpy>=1\nRequires-Dist: torch; extra == 'train'\n"
        archive.writestr("x-1.0.dist-info/METADATA", text)
    document = json.loads(supply.sbom(wheel).read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert [part["name"] for part in document["components"]] == ["numpy"]
    assert document["dependencies"][0]["ref"] == "pkg:pypi/x@1.0"
    assert len(document["metadata"]["component"]["hashes"][0]["content"]) == 64
    assert supply.sbom(wheel).read_text() == json.dumps(document, indent=2) + "\n", "the same each time"


def test_notices_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x-1.0.dist-info/METADATA", "Name: x\nVersion: 1.0\nRequires-Dist: onnxruntime\n")
    text = supply.notices(wheel).read_text(encoding="utf-8")
    titles = re.findall(r"^={80}\n(\S+) \S+: (.*)$", text, re.MULTILINE)
    assert {"numpy", "onnxruntime", "protobuf"} <= {name for name, _ in titles}
    assert all(said for _, said in titles)
    assert "ThirdPartyNotices.txt" in text and "Copyright (c) Microsoft Corporation" in text
    monkeypatch.setattr(supply, "licence", lambda _: ("", ""))
    monkeypatch.setattr(supply, "TEXT", re.compile("nothing"))
    with pytest.raises(SystemExit, match="says nothing of its licence"):
        supply.notices(wheel)


def test_everything_that_is_locked_has_a_hash_and_the_version_of_the_constraints() -> None:
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]  # behind the header
    locked: dict[str, set[str]] = {}
    for block in blocks:
        name, version = re.match(r"([A-Za-z0-9._-]+)==([^ \\;]+)", block).groups()  # type: ignore[union-attr]
        locked.setdefault(name.replace("_", "-").lower(), set()).add(version)
        assert "--hash=sha256:" in block, name
    for name, version in _pins():
        # What examples alone need is in no list of `all`.
        alone = name in ("ray", "pipecat-ai", "livekit-agents", "wyoming", "gradio")
        assert alone or version in locked[name], f"{name}: `make lock`"


def test_every_dependency_has_its_version_in_the_constraints() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    named = {re.match(r"[\w-]+", line)[0] for text in lists for line in text.split("\n") if line}  # type: ignore[index]
    assert {name.replace("_", "-").lower() for name in named} - {"mifuse"} <= {name for name, _ in _pins()}


def _pins() -> list[tuple[str, str]]:
    found = re.findall(r"^([\w.-]+)==([^ ;\n]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return [(name.replace("_", "-").lower(), version) for name, version in found]
