"""Latency, size and start of ours and of what others would take, in one run on one thread.

    python -m benchmarks.peers [--work DIR] [--whisper DIR] [--only NAME …] [--out FILE] [--compare OLD.json]

Each peer runs in an environment of its own, which is made with pip the first time, and gets the same
synthetic speech. `in turn`: one call of each, round after round, so that each finds the caches as the others
left them; `alone`: calls of one peer, one after the other. Of each call wall and CPU time are taken: on a
busy machine the second is nearly what a quiet one would give. `first result` is import, loading and the first
call. A table is printed; --out writes it all as JSON, with the commit and the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environments import environment, installed_mb
from benchmarks.peers.shapes import shape
from benchmarks.peers.statistics import differences, percentiles
from benchmarks.provenance import provenance
from benchmarks.streaming import make_bundle
from mifuse.demo.synth import DOMAINS, make_speaker, synthesise
from mifuse.exporting.bench import machine

HERE = Path(__file__).resolve().parent
SECONDS = (1, 3, 10)
FEWEST, MOST = 5, 60  # calls of each peer and length
WARM_UP = 2
HEAD = ["CPU ms, p50", "1 s", "3 s", "10 s", "3 s alone", "3 s, wall: p50 / p90 / p99", "times ours"]
HEAD += ["first result", "peak", "installed"]


class Peer:
    """A worker's process."""

    def __init__(self, python: Path, call: str, model: str, audio: Path) -> None:
        self._process = subprocess.Popen(
            [python, HERE / "worker.py", call, model, audio],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.start: dict[str, float] = self._answer()

    def times(self, seconds: int, calls: int) -> list[list[float]]:
        """Wall and CPU time of each call, ms."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds} {calls}\n")
        self._process.stdin.flush()
        found: list[list[float]] = self._answer()
        return found

    def _answer(self) -> Any:
        assert self._process.stdout and self._process.stderr
        line = self._process.stdout.readline()
        if not line:
            last = (self._process.stderr.read().strip().splitlines() or ["it ended"])[-1]
            raise RuntimeError(last)
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def measure(peers: Mapping[str, Peer], seconds: int, budget: float) -> dict[str, dict[str, Any]]:
    """Name -> {"in turn", "alone"} -> percentiles; each peer gets `budget` seconds for either."""
    spent = {name: peer.times(seconds, WARM_UP)[-1][0] / 1000 for name, peer in peers.items()}
    calls = {name: max(FEWEST, min(MOST, int(budget / max(one, 1e-6)))) for name, one in spent.items()}
    turns: dict[str, list[list[float]]] = {name: [] for name in peers}
    for number in range(max(calls.values(), default=0)):
        # Who has fewer calls takes them at even distances, so that all rounds are alike.
        due = [name for name, count in calls.items() if number * count % max(calls.values()) < count]
        for name in due[:: 1 if number % 2 else -1]:
            turns[name] += peers[name].times(seconds, 1)
    alone = {name: peer.times(seconds, calls[name]) for name, peer in peers.items()}
    return {name: {"in turn": _both(turns[name]), "alone": _both(alone[name])} for name in peers}


def _both(times: Sequence[Sequence[float]]) -> dict[str, Any]:
    wall, cpu = zip(*times, strict=True)
    return {"wall": percentiles(wall), "cpu": percentiles(cpu)}


def speech(seconds: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Synthetic speech, (n,) at 16 kHz."""
    rng = np.random.default_rng(0)
    speaker = make_speaker(DOMAINS["studio"], rng)
    turns = [synthesise("neutral", speaker, DOMAINS["studio"], rng, 2.5) for _ in range(seconds // 2 + 1)]
    return np.concatenate(turns)[: seconds * 16_000].astype(np.float32)


@contextmanager
def started(
    rows: Sequence[Mapping[str, Any]], work: Path, whisper: Path | None
) -> Iterator[tuple[dict[str, Peer], dict[str, dict[str, Any]]]]:
    """The peers that can be had here, and of each what is known before it is timed, or why it cannot."""
    audio = work / "speech.npy"
    np.save(audio, speech(max(SECONDS)))
    if not (work / "bundle").is_dir():
        make_bundle(work)
    peers, facts = {}, {}
    with ExitStack() as stack:
        for row in rows:
            name = row["name"]
            facts[name] = {key: row[key] for key in ("name", "licence", "does")}
            try:
                python = environment(row["env"], work / "environments")
                model = _model(row.get("model", ""), work, whisper)
                peer = Peer(python, row["call"], model, audio)
            except (RuntimeError, FileNotFoundError) as error:
                facts[name]["left out"] = str(error)
                continue
            stack.callback(peer.close)
            peers[name] = peer
            facts[name] |= peer.start | {"installed_mb": installed_mb(python)}
            file = Path(model.removesuffix(":int8").removesuffix(":fp32"))
            if "model" in row:
                graph = file / ("model.int8.onnx" if model.endswith("int8") else "model.onnx")
                facts[name]["model_kb"] = (graph if file.is_dir() else file).stat().st_size / 1000
        yield peers, facts


def _model(model: str, work: Path, whisper: Path | None) -> str:
    kind, _, name = model.partition(":")
    if kind == "bundle":
        return f"{work / 'bundle'}:{name}"
    if kind != "shape":
        return "-"
    file = shape(name, work / "shapes", whisper)
    if file is None:
        raise FileNotFoundError("its weights are not here: give --whisper")
    return str(file)


def run(rows: Sequence[Mapping[str, Any]], work: Path, whisper: Path | None, budget: float) -> dict[str, Any]:
    """The whole result, as --out writes it."""
    with started(rows, work, whisper) as (peers, facts):
        for row in facts.values():
            row["ms"] = {}
        for seconds in SECONDS:
            fixed = {row["name"] for row in rows if row.get("fixed") and seconds != SECONDS[-1]}
            asked = {name: peer for name, peer in peers.items() if name not in fixed}
            for name, found in measure(asked, seconds, budget).items():
                facts[name]["ms"] |= {
                    f"{seconds} s, {how}, {clock}": times
                    for how, clocks in found.items()
                    for clock, times in clocks.items()
                }
            sys.stderr.write(f"{seconds} s measured\n")
    return {"provenance": provenance(), "machine": asdict(machine()), "threads": 1, "rows": [*facts.values()]}


def table(result: Mapping[str, Any]) -> str:
    """The Markdown table of a result."""
    lines = ["| " + " | ".join(HEAD) + " |", "| --- |" + " ---: |" * (len(HEAD) - 1)]
    ours = next((row["ms"]["3 s, in turn, cpu"]["p50"] for row in result["rows"] if row["ms"]), None)
    for row in result["rows"]:
        if "left out" in row:
            cells = ["-"] * (len(HEAD) - 2) + [row["left out"]]
            lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
            continue
        longest = f"{SECONDS[-1]} s, in turn"  # all that a peer of one fixed length has
        length = "3 s, in turn" if "3 s, in turn, cpu" in row["ms"] else longest
        cpu, wall = (row["ms"][f"{length}, {clock}"] for clock in ("cpu", "wall"))
        cells = [_ms(row["ms"].get(f"{seconds} s, in turn, cpu")) for seconds in SECONDS]
        cells += [
            _ms(row["ms"].get("3 s, alone, cpu")),
            " / ".join(_short(wall[p]) for p in ("p50", "p90", "p99")),
        ]
        cells += [_short(cpu["p50"] / ours) if ours else "-"]
        cells += [f"{row['first_s']:.2f} s", f"{row['peak_mb']:.0f} MB", f"{row['installed_mb']:.0f} MB"]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ms(times: Mapping[str, Any] | None) -> str:
    return _short(times["p50"]) if times else "-"


def _short(value: float) -> str:
    """Three digits, without an exponent.

    >>> [_short(value) for value in (0.01234, 1.234, 1234.5)]
    ['0.0123', '1.23', '1234']
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="folder of environments and models (a new one, not kept)")
    parser.add_argument("--whisper", type=Path, help="folder of Whisper base's encoder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--budget", type=float, default=4.0, help="s for each peer, length and way (4)")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--compare", type=Path, help="JSON of an earlier run: what differs")
    arguments = parser.parse_args()
    rows = json.loads((HERE / "peers.json").read_text(encoding="utf-8"))
    if arguments.only:
        unknown = set(arguments.only) - {row["name"] for row in rows}
        if unknown:
            parser.error(
                f"no peer {sorted(unknown)[0]!r}: there are {', '.join(row['name'] for row in rows)}"
            )
        rows = [row for row in rows if row["name"] in arguments.only]
    with tempfile.TemporaryDirectory() as new:
        work = arguments.work or Path(new)
        work.mkdir(parents=True, exist_ok=True)
        result = run(rows, work.resolve(), arguments.whisper, arguments.budget)
    print(table(result))
    if arguments.compare:
        print(*differences(json.loads(arguments.compare.read_text(encoding="utf-8")), result), sep="\n")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
