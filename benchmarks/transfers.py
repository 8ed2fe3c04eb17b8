"""Every transfer between the corpora of a folder, with every method: whether the method wins.

    python -m benchmarks.transfers --corpora DIR [--recipe default] [--seeds 3] [--jobs 2] [--out FILE.json]

Each corpus is a folder with source.csv, target.csv and lalm_draws.jsonl. Stopped, it goes on where it was:
every result is a small file under --work. True labels are used for scoring and by the methods
`oracle`, `few` (5 a class) and `asked` (of 20 clips that `mifuse choose` chooses) alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import charts, table, units
from benchmarks.baselines import BASELINES
from benchmarks.provenance import provenance
from benchmarks.units import FILES, SPLITS, Method, Transfer, Unit, ablations, named
from benchmarks.workers import pool
from mifuse.config import override
from mifuse.errors import MifuseError
from mifuse.exporting.bench import machine
from mifuse.fusion.recipes import RECIPES
from mifuse.models.classifier import TrainConfig
from mifuse.runs.folder import versions

COLUMNS = ["classifier", "lalm", "average", "lalm-only", "paper", "default", "oracle"]
TITLES = {name: baseline.title for name, baseline in BASELINES.items()} | {
    "average": "average of both",
    "paper": "MI-Fuse, paper",
    "default": "MI-Fuse, default",
    "default int8": "MI-Fuse, default, int8",
    "few": "MI-Fuse, default, and 5 labels a class",
    "asked": "MI-Fuse, default, and 20 labels asked for",
    "oracle": "oracle (true labels)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet and print the table. Exit code 1 when a unit failed."""
    options = parser().parse_args(arguments)
    try:
        return _main(options)
    except (MifuseError, OSError, ValueError, KeyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _main(options: argparse.Namespace) -> int:
    corpora = find_corpora(options.corpora)
    pairs = [Transfer((a,), b) for b in corpora for a in corpora if a != b]
    if options.transfers:
        pairs = [Transfer.parse(text) for text in options.transfers.split(",")]
    pooled = [Transfer(tuple(a for a in corpora if a != b), b) for b in corpora]
    pooled = pooled if options.pooled and len(corpora) > 2 else []
    methods = choose_methods(options)
    others = ablations(named(options.recipe, options.set).config) if options.ablate else []
    todo = plan(options, pairs + pooled, methods) + plan(options, pairs, others)
    failed = (
        [] if options.only_print else work_through(list(dict.fromkeys(todo)), options.jobs, options.fresh)
    )
    results = table.Results.of(options.corpora, todo)
    names = [method.name for method in methods]
    document = {
        **provenance(),
        "machine": asdict(machine()),
        "versions": versions(),
        "hardware": results.hardware(),
        "settings": {
            "methods": names,
            "seeds": options.seeds,
            "lalm": lalm_name(options.corpora / corpora[0]),
            "baselines": {
                name: {"title": b.title, "sees": b.sees, "about": b.about}
                for name, b in BASELINES.items()
                if name in names
            },
            "classifier": asdict(train_config(options)),
            "recipe": options.recipe,
            "configs": {method.name: asdict(method.config) for method in methods if method.kind == "recipe"},
        },
        "transfers": table.rows(results, names, pairs),
        "mean": table.means(results, names, pairs),
        "pooled": table.rows(results, names, pooled),
        "comparisons": table.comparisons(results, options.recipe, names, pairs),
        "ablations": table.means(results, [method.name for method in others], pairs),
    }
    show(document, options.recipe)
    write(options, document, results, pairs)
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    it = argparse.ArgumentParser(
        prog="python -m benchmarks.transfers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("--corpora", type=Path, required=True, help="folder of corpora")
    it.add_argument(
        "--recipe", default="default", choices=RECIPES, help="what is compared with the baselines"
    )
    it.add_argument("--seeds", type=int, default=3)
    it.add_argument(
        "--methods", help=f"comma-separated; all: with {', '.join(BASELINES)}; default: {','.join(COLUMNS)}"
    )
    it.add_argument(
        "--transfers", help="comma-separated SOURCE>TARGET (A+B>TARGET pools); default: all pairs"
    )
    it.add_argument("--pooled", action="store_true", help="each target from all other corpora as well")
    it.add_argument("--ablate", action="store_true", help="the recipe with one thing changed each")
    it.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change every recipe")
    it.add_argument(
        "--set-classifier", action="append", default=[], metavar="NAME=VALUE", help="its training"
    )
    it.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    it.add_argument(
        "--int8", action=argparse.BooleanOptionalAction, default=True, help="the exported student"
    )
    it.add_argument("--work", type=Path, default=Path.home() / ".cache" / "mifuse" / "transfers")
    it.add_argument("--fresh", action="store_true", help="do again what is there")
    it.add_argument("--only-print", action="store_true", help="tables of what is there, nothing is run")
    it.add_argument("--out", type=Path, help="JSON")
    it.add_argument("--pictures", type=Path, help="folder for SVG")
    return it


def find_corpora(folder: Path) -> list[str]:
    """Names of the folders that hold a corpus.

    Raises:
        MifuseError: fewer than two.
    """
    found = [entry.name for entry in folder.iterdir() if all((entry / file).is_file() for file in FILES)]
    if len(found) < 2:
        raise MifuseError(f"{folder}: {len(found)} corpora with {', '.join(FILES)}: a transfer needs two")
    return sorted(found)


def choose_methods(options: argparse.Namespace) -> list[Method]:
    """The columns, in their order."""
    names = (options.methods or ",".join(COLUMNS)).split(",")
    if names == ["all"]:
        names = [*COLUMNS[:3], *BASELINES, *COLUMNS[4:]]
    if names == ["baselines"]:
        names = list(BASELINES)
    if options.recipe not in names and options.methods is None:
        names.insert(names.index("oracle"), options.recipe)
    if options.int8 and options.recipe in names:
        names.insert(names.index(options.recipe) + 1, f"{options.recipe} int8")
    known = [*COLUMNS[:3], *BASELINES, *RECIPES, "few", "asked", "oracle"]
    for name in names:
        if name.removesuffix(" int8") not in known:
            raise MifuseError(f"no method {name!r}: use {', '.join(known)}, all or baselines")
    return [named(name, options.set) for name in names]


def train_config(options: argparse.Namespace) -> TrainConfig:
    """How source classifiers are trained."""
    return override(TrainConfig(), options.set_classifier)


def plan(options: argparse.Namespace, transfers: Sequence[Transfer], methods: Sequence[Method]) -> list[Unit]:
    """All units, seed by seed, so that an interrupted run has whole seeds."""
    train = train_config(options)
    return [
        Unit(options.corpora, options.work, transfer, seed, train, method)
        for seed in range(options.seeds)
        for method in methods
        for transfer in transfers
        # Draws and true labels are the same for every seed; so is the LALM's row.
        if method.kind != "lalm" or seed == 0
    ]


def work_through(todo: Sequence[Unit], jobs: int, fresh: bool) -> list[str]:
    """Run the units that have no file yet: classifiers, then students, then their int8. Returns failures."""
    teachers = list(
        {u.classifier: Unit(u.corpora, u.work, u.transfer, u.seed, u.train) for u in todo}.values()
    )
    exports = [unit for unit in todo if unit.method and unit.method.kind == "int8"]
    students = [unit for unit in todo if unit not in exports]
    failed: list[str] = []
    started = time.perf_counter()
    stages = [[u for u in all_ if fresh or not u.file.exists()] for all_ in (teachers, students, exports)]
    total, done = sum(map(len, stages)), 0
    with workers(jobs) as processes:
        for stage in stages:
            waiting = {
                processes.submit(units.run, unit): unit for unit in sorted(stage, key=_cost, reverse=True)
            }
            for future in as_completed(waiting):
                done += 1
                text, error = str(waiting[future]), future.exception()
                if error is not None:
                    failed.append(f"{text}: {type(error).__name__}: {error}")
                outcome = f"{future.result():.0f} s" if error is None else failed[-1]
                minutes = (time.perf_counter() - started) / 60
                print(f"[{done}/{total}, {minutes:.1f} min] {text}: {outcome}", file=sys.stderr, flush=True)
    return failed


def workers(jobs: int) -> Executor:
    """Processes that know the parent's hashes."""
    return pool(jobs, units.hashes.update, dict(units.hashes))


def _cost(unit: Unit) -> int:
    """Longest first within a seed, so that no worker is left alone at the end; bytes stand for clips."""
    names = unit.transfer.sources if unit.method is None else (unit.transfer.target,)
    file = FILES[0] if unit.method is None else FILES[1]
    size = sum((unit.corpora / name / file).stat().st_size for name in names)
    steps = unit.train.fit.steps if unit.method is None else unit.method.config.fit.steps
    return size * steps - unit.seed * 10**15


def lalm_name(corpus: Path) -> str:
    """The teacher whose draws the corpus has."""
    with (corpus / FILES[2]).open(encoding="utf-8") as file:
        return str(json.loads(file.readline())["teacher"])


def show(document: dict[str, Any], recipe: str) -> None:
    """Print the tables."""
    for split in SPLITS:
        seeds = document["settings"]["seeds"]
        print(f"\nUA, {charts.NAMES[split]} ({split}), %, mean ± sd over {seeds} seeds\n")
        print(table.markdown(document, titles(document), split))
    print()
    if document["settings"]["baselines"]:
        print(table.baselines_markdown(document))
        print()
    print("\n".join(table.comparison_lines(document["comparisons"])))
    if document["ablations"]:
        print(f"\nThe recipe {recipe} with one thing changed, mean of the transfers\n")
        print(table.ablation_markdown(document, recipe))


def titles(document: dict[str, Any]) -> dict[str, str]:
    """Heads of the columns; a stand-in is called one wherever it is shown."""
    name = document["settings"]["lalm"]
    return TITLES | {"lalm": "stand-in LALM" if "stand-in" in name else f"LALM ({name})"}


def write(
    options: argparse.Namespace, document: dict[str, Any], results: table.Results, pairs: Sequence[Transfer]
) -> None:
    """JSON and pictures, each whole or not at all."""
    texts: dict[Path, str] = {}
    if options.out:
        texts[options.out] = json.dumps(table.finite(document), indent=1) + "\n"
    if options.pictures:
        for split in SPLITS:
            texts[options.pictures / f"transfers-{split}.svg"] = charts.bars(
                document, titles(document), split
            )
        if results.has(options.recipe, pairs):
            curves = {str(pair): table.trust(results, options.recipe, pair) for pair in pairs}
            texts[options.pictures / "trust.svg"] = charts.trust(curves)
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.tmp")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)


if __name__ == "__main__":
    sys.exit(main())
