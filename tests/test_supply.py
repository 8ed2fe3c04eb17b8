"""Dependencies: licences that are checked, parts that are listed, hashes that hold."""

from __future__ import annotations

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


def test_everything_that_is_locked_has_a_hash_and_the_version_of_the_constraints() -> None:
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text.partition("\n")[2])
    locked: dict[str, set[str]] = {}
    for block in blocks:
        name, version = re.match(r"([A-Za-z0-9._-]+)==([^ \\;]+)", block).groups()  # type: ignore[union-attr]
        locked.setdefault(name.replace("_", "-").lower(), set()).add(version)
        assert "--hash=sha256:" in block, name
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        found = re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)(.*)", line)
        if found and "<" not in found[3]:
            name = found[1].replace("_", "-").lower()
            assert name not in locked or found[2] in locked[name], f"{name}: `make lock`"
