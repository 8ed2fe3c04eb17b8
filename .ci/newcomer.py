"""What a newcomer does: clone, then every line of docs/call-centre.md as it stands there, to the timeline.

    .venv/bin/python .ci/newcomer.py

The LALM is a server on this machine that goes by loudness, the calls are synthetic, and who listens to
40 rows is this script. All else is what users run: commands with their defaults, in a shell, on a clone.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "export"), str(ROOT / "runtime")]

import soundfile  # noqa: E402

from mifuse.demo.synth import make_domain  # noqa: E402
from tests.llm_server import LlmServer  # noqa: E402
from tests.test_call_centre import call  # noqa: E402
from tests.tutorials import level_decides  # noqa: E402

CALLS = 7


def run(lines: str, folder: Path, clone: Path) -> str:
    """What a block of the page prints; it ends this script where a line fails."""
    packages = os.pathsep.join(str(clone / part) for part in ("", "export", "runtime"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": packages, "OPENAI_API_KEY": "test-key"}
    environment["MIFUSE_CACHE"] = str(folder / "cache")
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", lines],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nexit code {done.returncode}")
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    return done.stdout


def listen(file: Path) -> None:
    """Every fifth row is angry, all others are neutral."""
    with file.open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    with file.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(
            row | {"label": "neutral" if place % 5 else "angry"} for place, row in enumerate(rows)
        )


def main() -> None:
    """From the clone to the timeline."""
    with tempfile.TemporaryDirectory() as made, LlmServer(answer=level_decides) as server:
        folder, clone = Path(made), Path(made) / "mifuse"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        (folder / "calls").mkdir()
        for number in range(CALLS):
            soundfile.write(folder / "calls" / f"call{number}.wav", call(number), 8_000, subtype="PCM_16")
        make_domain(folder / "studio", "studio", speakers=4, clips_per_speaker=12)
        run("mifuse train studio/manifest.csv -o source/ --size xs --set fit.steps=60", folder, clone)
        page = (clone / "docs" / "call-centre.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
        first, second = (text.replace("MODEL", "m").replace("URL", f"{server.url}/v1") for text in blocks)
        run(first, folder, clone)
        listen(folder / "calls" / "check.csv")
        lines = run(second, folder, clone).splitlines()
        head = next(place for place, line in enumerate(lines) if line.startswith("path,"))
        rows = list(csv.DictReader(lines[head:]))
        calls = {row["path"] for row in rows}
        sys.stdout.write(f"{len(rows)} rows in the timelines of {len(calls)} calls\n")
        if len(calls) < CALLS:
            sys.exit("calls are missing")


if __name__ == "__main__":
    main()
