"""What mifuse stands on: licences of all dependencies, checked; parts (SBOM) and notices of each wheel.

    python -m benchmarks.supply licences [--extra all]     a line a package; exits with 1 if one is refused
    python -m benchmarks.supply sbom dist/*.whl            writes WHEEL.cdx.json beside each: CycloneDX 1.6
    python -m benchmarks.supply notices dist/*.whl         writes WHEEL.licences.txt: what an app passes on

Read from what is installed. Which parts have known holes is asked of `pip-audit`, see .github/workflows.
"""

from __future__ import annotations

import argparse
import email.parser
import hashlib
import json
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

# Words of licences that may be used and passed on with Apache-2.0 code; MPL's reach ends at its own files.
ALLOWED = (
    "apache", "mit", "bsd", "isc", "psf", "python software", "python-2.0", "unlicense", "zlib", "hpnd", "mpl",
    "mozilla", "cc0", "0bsd", "public domain", "boost", "ofl", "historical permission",
)  # fmt: skip
REFUSED = re.compile(r"\b(a?gpl|gnu (affero )?general public|proprietary|commercial)", re.IGNORECASE)
# What metadata do not say, or what is used knowingly: name -> licence, reason.
KNOWN = {
    "soxr": ("LGPL-2.1-or-later", "a library of its own that users can exchange; not on the device"),
    "soundfile": ("BSD-3-Clause", "its wheels bring libsndfile, LGPL-2.1-or-later, as a library of its own"),
    "mifuse": ("Apache-2.0", "this project"),
    "mifuse-runtime": ("Apache-2.0", "this project"),
    "mifuse-demo": ("Apache-2.0", "this project"),
    "sigstore-models": ("MIT", "its file LICENSE says so"),
    "triton": ("MIT", ""),
}
# Texts of licences, as distributions bring them: LICENSE, COPYING, NOTICE, ThirdPartyNotices.txt.
TEXT = re.compile(r"(licen[cs]e|copying|notice)[^/]*$|/licen[cs]es/[^/]+$", re.IGNORECASE)
VENDOR = re.compile(
    r"^(nvidia-|cuda-|intel-|mkl)"
)  # of a vendor, for its hardware: brought by torch, never by us


def closure(names: Iterable[str], extras: Iterable[str]) -> Iterator[metadata.Distribution]:
    """Installed distributions that these need, themselves among them, each once."""
    left = [(name, frozenset(extras)) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    shown: set[str] = set()
    while left:
        name, wanted = left.pop()
        key = canonicalize_name(name)
        if (key, wanted) in seen:
            continue
        seen.add((key, wanted))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        if key not in shown:
            shown.add(key)
            yield found
        left += [(one.name, frozenset(one.extras)) for one in needed(found.requires or [], wanted)]


def needed(lines: Iterable[str], extras: Iterable[str]) -> Iterator[Requirement]:
    """Requirements that hold here, for these extras."""
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        cases = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(requirement.marker.evaluate(case) for case in cases):
            yield requirement


def licence(found: metadata.Distribution) -> tuple[str, str]:
    """Licence of a distribution and what there is to say about it."""
    fields: Any = found.metadata
    name = canonicalize_name(str(fields["Name"]))
    if name in KNOWN:
        return KNOWN[name]
    if VENDOR.match(name):
        return "of its vendor", "for its hardware, brought by torch"
    said = fields.get("License-Expression") or ""
    classes = [
        line.rpartition("::")[2].strip()
        for line in fields.get_all("Classifier") or ()
        if "License ::" in line
    ]
    text = (fields.get("License") or "").strip().splitlines()
    return said or ", ".join(classes) or (text[0][:60] if text else ""), ""


def is_allowed(name: str, said: str) -> bool:
    """Whether a licence is one that we build on."""
    if canonicalize_name(name) in KNOWN or VENDOR.match(canonicalize_name(name)):
        return True
    # Of several one may choose.
    parts = re.split(r"\bOR\b|/", said)
    return any(any(word in part.lower() for word in ALLOWED) and not REFUSED.search(part) for part in parts)


def licences(extra: str) -> int:
    """Print all; 1 if one is not allowed."""
    wrong = []
    rows = sorted(closure(["mifuse"], [extra]), key=lambda one: str(one.metadata["Name"]).lower())
    for found in rows:
        name = str(found.metadata["Name"])
        said, reason = licence(found)
        allowed = is_allowed(name, said)
        wrong += [] if allowed else [name]
        print(
            f"{name:<32} {found.version:<18} {said or 'says none':<40} {reason if allowed else 'NOT ALLOWED'}"
        )
    if wrong:
        sys.stderr.write(f"not allowed, or not known: {', '.join(wrong)}: look, and note them in KNOWN\n")
    return int(bool(wrong))


def parts_of(wheel: Path) -> tuple[str, str, list[str], list[metadata.Distribution]]:
    """Name and version of a wheel, what it asks for, and all that this brings along, as installed here."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        fields = email.parser.Parser().parsestr(archive.read(name).decode())
    direct = [one.name for one in needed(fields.get_all("Requires-Dist") or [], [])]
    parts = sorted(closure(direct, []), key=lambda one: canonicalize_name(str(one.metadata["Name"])))
    return str(fields["Name"]), str(fields["Version"]), direct, parts


def notices(wheel: Path) -> Path:
    """Write the licences of all that a wheel needs, with their texts, beside it.

    Raises:
        SystemExit: a package brings no text of its licence, and its metadata name none.
    """
    name, version, _, parts = parts_of(wheel)
    written = [f"{name} {version}, Apache-2.0, needs the following; each keeps its own licence.\n"]
    for part in parts:
        name, said = f"{part.metadata['Name']} {part.version}", licence(part)[0]
        texts = [file for file in part.files or () if TEXT.search(file.as_posix()) and file.suffix != ".py"]
        if not texts and not said:
            raise SystemExit(f"{name} says nothing of its licence: look, and note it in KNOWN")
        written.append(f"{'=' * 80}\n{name}: {said or 'see below'}\n")
        written += [f"--- {file.as_posix()}\n{file.read_text(encoding='utf-8')}" for file in texts]
    out = wheel.with_name(f"{wheel.name}.licences.txt")
    out.write_text("\n".join(written), encoding="utf-8")
    return out


def sbom(wheel: Path) -> Path:
    """Write the list of parts of a wheel beside it, with the versions that are installed here."""
    this, version, direct, parts = parts_of(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same wheel and parts give the same number.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {
            "component": component(this, version, "Apache-2.0", "application")
            | {"hashes": [{"alg": "SHA-256", "content": digest}]}
        },
        "components": [
            component(str(one.metadata["Name"]), one.version, licence(one)[0], "library") for one in parts
        ],
        "dependencies": [{"ref": purl(this, version), "dependsOn": [
            purl(str(one.metadata["Name"]), one.version) for one in parts
            if canonicalize_name(str(one.metadata["Name"])) in map(canonicalize_name, direct)
        ]}],
    }  # fmt: skip
    out = wheel.with_name(f"{wheel.name}.cdx.json")
    out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return out


def purl(name: str, version: str) -> str:
    """https://github.com/package-url/purl-spec"""
    return f"pkg:pypi/{canonicalize_name(name)}@{version}"


def component(name: str, version: str, said: str, kind: str) -> dict[str, Any]:
    """A part, as CycloneDX has it."""
    found: dict[str, Any] = {"type": kind, "bom-ref": purl(name, version), "name": name, "version": version}
    found["purl"] = purl(name, version)
    if said:
        found["licenses"] = [{"license": {"name": said}}]
    return found


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("licences").add_argument("--extra", default="all")
    for name in ("sbom", "notices"):
        commands.add_parser(name).add_argument("wheels", nargs="+", type=Path)
    options = parser.parse_args()
    if options.command == "licences":
        return licences(options.extra)
    write = sbom if options.command == "sbom" else notices
    for wheel in options.wheels:
        print(write(wheel))
    return 0


if __name__ == "__main__":
    sys.exit(main())
