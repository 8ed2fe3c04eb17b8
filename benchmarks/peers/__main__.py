"""Latency, size and start of ours and of what others would take, in one run on one thread.

    python -m benchmarks.peers [--work DIR] [--whisper DIR] [--only NAME …] [--out FILE]
    python -m benchmarks.peers … --again FILE     # a second run, and how far it agrees, noted in FILE
    python -m benchmarks.peers … --compare FILE   # after a change: what differs by more than chance
    python -m benchmarks.peers.page               # docs/peers.md anew, from benchmarks/results

Each peer runs in an environment of its own, which is made with pip the first time, and gets the same
synthetic speech. `in turn`: one call of each, round after round, so that each finds the caches as the others
left them; `alone`: calls of one peer, one after the other. Of each call wall and CPU time are taken: on a
busy machine the second is nearly what a quiet one would give. All this in rounds, each with new processes, as
a process keeps for its life where memory lies; intervals are of the chance between rounds, and of the drift
that all peers show alike. `first result` is import, loading and the first call. Energy is that of the
processor's packages by RAPL, where the system lets it be read. A table is printed; --out writes it all as
JSON, with commit and machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environments import environment, installed_mb
from benchmarks.peers.shapes import shape
from benchmarks.peers.table import SECONDS, agreement, differences, table
from benchmarks.provenance import code_files, provenance
from benchmarks.streaming import make_bundle
from mifuse.demo.synth import DOMAINS, make_speaker, synthesise
from mifuse.exporting.bench import machine
from mifuse.exporting.timing import drift, summary, widened
from mifuse.files import whole_file

HERE = Path(__file__).resolve().parent
CLOCKS = ("wall", "cpu")
ROUNDS = 9  # each starts every peer anew; so many are ENOUGH for an interval without a distribution
FEWEST, MOST = 1, 20  # calls of each peer and length in a round
WARM_UP = 1


Calls = list[list[float]]  # wall and CPU time of each call, ms


class Peer:
    """A worker's process."""

    def __init__(self, command: Sequence[str], call: str, model: str, audio: Path, threads: int = 1) -> None:
        self._process = subprocess.Popen(
            [*command, call, model, audio], env=os.environ | {"PEER_THREADS": str(threads)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.start: dict[str, float] = self._answer()

    def times(self, seconds: int, calls: int) -> Calls:
        """Wall and CPU time of each call, ms."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds} {calls}\n")
        self._process.stdin.flush()
        found: Calls = self._answer()
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


Start = Callable[..., Peer]


def energy_mj(below: Path = Path("/sys/class/powercap")) -> float | None:
    """What the processor's packages have used since some moment, mJ; None where RAPL cannot be read."""
    try:
        packages = [int(file.read_text()) for file in below.glob("intel-rapl:[0-9]/energy_uj")]
    except OSError:  # readable by root alone, on most systems
        return None
    return sum(packages) / 1000 if packages else None


def measure(
    peers: Mapping[str, Peer], seconds: int, budget: float
) -> tuple[dict[str, dict[str, Calls]], dict[str, float]]:
    """Name -> {"in turn", "alone"} -> each call, for `budget` s either; and name -> mJ of a call."""
    spent = {name: peer.times(seconds, WARM_UP)[-1][0] / 1000 for name, peer in peers.items()}
    calls = {name: max(FEWEST, min(MOST, int(budget / max(one, 1e-6)))) for name, one in spent.items()}
    turns: dict[str, Calls] = {name: [] for name in peers}
    for number in range(max(calls.values(), default=0)):
        # Who has fewer calls takes them at even distances, so that all rounds are alike.
        due = [name for name, count in calls.items() if number * count % max(calls.values()) < count]
        for name in due[:: 1 if number % 2 else -1]:
            turns[name] += peers[name].times(seconds, 1)
    found, energy = {}, {}
    for name, peer in peers.items():
        before = energy_mj()
        found[name] = {"in turn": turns[name], "alone": peer.times(seconds, calls[name])}
        after = energy_mj()
        if before is not None and after is not None and after >= before:  # it starts again at zero at times
            energy[name] = (after - before) / calls[name]
    return found, energy


def speech(seconds: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Synthetic speech, (n,) at 16 kHz."""
    rng = np.random.default_rng(0)
    speaker = make_speaker(DOMAINS["studio"], rng)
    turns = [synthesise("neutral", speaker, DOMAINS["studio"], rng, 2.5) for _ in range(seconds // 2 + 1)]
    return np.concatenate(turns)[: seconds * 16_000].astype(np.float32)


def installed(
    rows: Sequence[Mapping[str, Any]], work: Path, whisper: Path | None
) -> tuple[dict[str, Start], dict[str, dict[str, Any]]]:
    """How to start each peer, and of each what is known before, or why it cannot be had here."""
    audio = work / "speech.npy"
    np.save(audio, speech(max(SECONDS)))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in code_files())).hexdigest()[:12]
    ours = work / f"ours-{digest}"
    if not ours.is_dir():
        with tempfile.TemporaryDirectory(dir=work) as new:
            make_bundle(Path(new)).replace(ours)
    starts: dict[str, Start] = {}
    facts: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = row["name"]
        facts[name] = {key: row[key] for key in ("name", "licence", "does")} | {"ms": {}}
        try:
            command, packages = environment(row["env"], work / "environments")
            model = _model(row.get("model", ""), work, ours, whisper)
            start = partial(Peer, command, row["call"], model, audio)
            start().close()  # the first start compiles what is installed
        except (RuntimeError, FileNotFoundError) as error:
            facts[name]["left out"] = str(error)
            continue
        starts[name] = start
        facts[name]["installed_mb"] = installed_mb(packages)
        file = Path(model.removesuffix(":int8").removesuffix(":fp32"))
        if "model" in row:
            graph = file / ("model.int8.onnx" if model.endswith("int8") else "model.onnx")
            facts[name]["model_kb"] = (graph if file.is_dir() else file).stat().st_size / 1000
    return starts, facts


def _model(model: str, work: Path, ours: Path, whisper: Path | None) -> str:
    kind, _, name = model.partition(":")
    if kind == "bundle":
        return f"{ours}:{name}"
    if kind != "shape":
        return "-"
    file = shape(name, work / "shapes", whisper)
    if file is None:
        raise FileNotFoundError("its weights are not here: give --whisper")
    return str(file)


def run(rows: Sequence[Mapping[str, Any]], work: Path, whisper: Path | None, budget: float) -> dict[str, Any]:
    """The whole result, as --out writes it."""
    starts, facts = installed(rows, work, whisper)
    fixed = {row["name"] for row in rows if row.get("fixed")}  # of one length, whatever is asked
    many = [row["name"] for row in rows if row.get("threads") and row["name"] in starts]
    cores = machine().cores
    first: dict[str, list[dict[str, float]]] = {name: [] for name in starts}
    found: dict[tuple[str, str], list[list[float]]] = {}
    energy: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        with ExitStack() as stack:
            peers = {name: start() for name, start in starts.items()}
            for name, peer in peers.items():
                stack.callback(peer.close)
                first[name].append(peer.start)
            for seconds in SECONDS:
                asked = {n: peer for n, peer in peers.items() if n not in fixed or seconds == SECONDS[-1]}
                calls, spent = measure(asked, seconds, budget / ROUNDS)
                for name in spent if seconds == 3 else ():
                    energy.setdefault(name, []).append(spent[name])
                for name, ways in calls.items():
                    for (how, each), (clock, ms) in product(ways.items(), enumerate(CLOCKS)):
                        key = f"{seconds} s, {how}, {ms}"
                        found.setdefault((name, key), []).append([call[clock] for call in each])
        for name in many if cores > 1 else ():
            with closing(starts[name](threads=cores)) as peer:
                wall = [call[0] for call in peer.times(3, FEWEST + 1)[1:]]
            found.setdefault((name, f"3 s, alone, {cores} threads, wall"), []).append(wall)
        sys.stderr.write(f"round {number + 1} of {ROUNDS}\n")
    times = {key: summary(rounds) for key, rounds in found.items()}
    common = drift([of.rounds for of in times.values()]) if times else 0.0
    for (name, key), of in times.items():
        facts[name]["ms"][key] = asdict(widened(of, common))
    for name, starts_ in first.items():
        facts[name] |= {key: float(np.median([start[key] for start in starts_])) for key in starts_[0]}
    for name, spent_ in energy.items():
        facts[name]["mj"] = float(np.median(spent_))
    document = {"provenance": provenance(), "machine": asdict(machine()), "threads": 1, "drift": common}
    return document | {"rows": [*facts.values()]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="folder of environments and models (a new one, not kept)")
    parser.add_argument("--whisper", type=Path, help="folder of Whisper base's encoder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--budget", type=float, default=1.0, help="s for each peer, length and way (1)")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="of an earlier run: what differs")
    parser.add_argument("--again", type=Path, metavar="FILE", help="compare, and note the agreement in FILE")
    arguments = parser.parse_args()
    rows = [row for row in json.loads((HERE / "peers.json").read_text(encoding="utf-8")) if "env" in row]
    earlier = arguments.again or arguments.compare
    old = json.loads(earlier.read_text(encoding="utf-8")) if earlier else None
    if old and not all("rounds" in times for row in old["rows"] for times in row["ms"].values()):
        parser.error(
            f"{earlier} has no rounds: it is of an earlier version of this benchmark, measure it anew"
        )
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
    if old:
        print(*differences(old, result), sep="\n")
    if arguments.again and old:
        write(arguments.again, old | {"second": agreement(old, result) | {"provenance": provenance()}})
    if arguments.out:
        write(arguments.out, result)


def write(file: Path, document: Mapping[str, Any]) -> None:
    """JSON, whole or not at all."""
    with whole_file(file) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
