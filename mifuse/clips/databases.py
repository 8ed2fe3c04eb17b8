"""Databases in audformat, the field's own format: a header `db.yaml`, tables beside it, recordings below.

`audformat` is no dependency of mifuse; it is needed for such databases alone.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mifuse.clips.labels import Naming, folded, known_aliases
from mifuse.clips.manifest import Clip
from mifuse.errors import ManifestError

_LOGGER = logging.getLogger(__name__)

AUDFORMAT = "audformat"
HEADER = "db.yaml"
GOLD = "gold_standard"  # tables of what raters agreed on, rather than of each rater
NO_LABEL = "no emotion in the tables"


def is_readable(folder: Path) -> bool:
    """Whether a folder is a database that can be read here; what stands in the way is said."""
    if not (folder / HEADER).is_file():
        return False
    if importlib.util.find_spec(AUDFORMAT) is None:
        _LOGGER.warning("%s: labels in %s are not read: pip install audformat for that", folder, HEADER)
        return False
    return True


def labelled(
    folder: Path, recordings: Sequence[Path], naming: Naming, left_out: Counter[str]
) -> list[tuple[str, Clip]]:
    """Emotion and clip of each file or segment that a table of emotions has, in the order of the files.

    Speaker and set (`train`, `dev`, `test`) come from whatever tables have them.

    Args:
        recordings: that there are.
        left_out: counts those of them that no table has, and rows whose file is not there.

    Raises:
        ManifestError: `audformat` is not installed, the database cannot be read, or no table has emotions.
    """
    database = _load(folder)
    tables = {name: (database.tables[name], database.tables[name].df) for name in database.tables}
    columns = [
        (name, column)
        for name, (table, frame) in tables.items()
        for column in table.columns
        if _says_emotions(database, table.columns[column], frame[column], naming)
    ]
    if gold := [one for one in columns if GOLD in one[0]]:
        columns = gold
    if not columns:
        has = ", ".join(f"{name} ({', '.join(table.columns)})" for name, (table, _) in tables.items())
        raise ManifestError(
            f"{folder}: no table of {HEADER} has a column of emotions; it has {has or 'none'}: "
            "where one of them holds emotions in words of its own, name these with --map OLD=NEW"
        )
    speakers, sets = _speakers(database, tables), _sets(database, tables)
    language = _language(database)
    there, seen = set(recordings), set[tuple[Path, float | None, float | None]]()
    found: list[tuple[str, Clip]] = []
    for table, column in columns:
        for index, emotion in tables[table][1][column].items():
            file, start, end = _segment(index)
            place = Path(os.path.abspath(folder / file))  # noqa: PTH100 - links stay as they are
            if (place, start, end) in seen:
                continue
            seen.add((place, start, end))
            if place not in there:
                left_out["in the tables, but not there"] += 1
                continue
            word = str(emotion) if isinstance(emotion, str) else NO_LABEL  # missing ones are NaN
            extra = {"set": sets[file]} if file in sets else {}
            clip = Clip("", place, None, speakers.get(file), None, start, end, language, extra)
            found.append((word, clip))
    left_out["not in the tables"] += len(there - {place for place, _, _ in seen})
    return sorted(found, key=lambda one: (one[1].path, one[1].start or 0.0))


def _load(folder: Path) -> Any:
    try:
        import audformat
        import yaml  # audformat's own
    except ImportError as error:
        raise ManifestError(
            f"{folder} is a database of audformat ({HEADER}), which is not installed: pip install audformat, "
            "or say how its files are named with --corpus"
        ) from error
    if pickles := sorted(file.name for file in folder.glob("db.*.pkl")):
        raise ManifestError(
            f"{folder}: {pickles[0]} is a pickle, which could run code and would be read in place of its "
            "table: delete it, audformat has the same as .parquet or .csv"
        )
    try:
        yaml.safe_load((folder / HEADER).read_text("utf-8"))  # audformat's reader would run tags of Python
        return audformat.Database.load(str(folder), load_data=True)
    except Exception as error:  # yaml, pandas and pyarrow all raise their own
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise ManifestError(f"{folder}: {HEADER} or its tables cannot be read ({reason})") from error


def _says_emotions(database: Any, column: Any, values: Any, naming: Naming) -> bool:
    """Whether two of its scheme's names at least, or of its values, are known emotions or to be renamed."""
    scheme = database.schemes.get(column.scheme_id)
    names = values.dropna().unique() if scheme is None or scheme.labels is None else scheme.labels_as_list
    words = {str(name) for name in names}
    emotions = set(known_aliases().values())
    known = {label for word in words if (label := Naming().label(word)) in emotions}
    return len(known) > 1 or any(folded(word) in naming.renamed for word in words)


def _speakers(database: Any, tables: dict[str, tuple[Any, Any]]) -> dict[str, str]:
    """File -> speaker, of the first columns that are called so, or whose scheme is."""
    found: dict[str, str] = {}
    for table, frame in tables.values():
        for name, column in table.columns.items():
            if "speaker" in (name, column.scheme_id):
                for index, value in frame[name].dropna().items():
                    found.setdefault(_segment(index)[0], f"{database.name}-{value}")
    return found


def _sets(database: Any, tables: dict[str, tuple[Any, Any]]) -> dict[str, str]:
    """File -> train, dev or test, where its table belongs to one."""
    return {
        _segment(index)[0]: database.splits[table.split_id].type
        for table, frame in tables.values()
        if table.split_id in database.splits
        for index in frame.index
    }


def _language(database: Any) -> str | None:
    """ISO 639-1 of a database of one language, as manifests have it."""
    if len(database.languages) != 1:
        return None
    import iso639  # audformat's own

    language = iso639.Lang(database.languages[0])
    return str(language.pt1 or language.pt3)


def _segment(index: Any) -> tuple[str, float | None, float | None]:
    """File, start and end in seconds of a row's index, of a table of files or of segments."""
    if isinstance(index, str):
        return index, None, None
    file, start, end = index
    return str(file), _seconds(start) or None, _seconds(end)


def _seconds(time: Any) -> float | None:
    seconds = time.total_seconds()  # NaT's is NaN: the end of the file
    return None if math.isnan(seconds) else float(seconds)
