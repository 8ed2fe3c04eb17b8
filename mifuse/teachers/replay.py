"""The teacher that plays back draws from a JSONL file: bought elsewhere, or a stand-in's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mifuse.clips.manifest import Clip
from mifuse.errors import DrawsError
from mifuse.teachers.base import Reply, Said, choose_source
from mifuse.teachers.jsonl import read_jsonl


class ReplayTeacher:
    """Answers with the draws of a file, under the name of the teacher that gave them.

    Args:
        file: JSONL.
        name: which teacher of the file to replay; needed when it holds several.

    Raises:
        DrawsError: a line is no draw, or the file holds several teachers and `name` is None.
    """

    # Nothing is waited for; as many answers as this share one transaction of the store.
    concurrency = 256
    deadline = math.inf
    per_request = 1

    def __init__(self, file: Path | str, name: str | None = None) -> None:
        self._file = file
        draws = read_jsonl(file)
        self.source = choose_source({draw.source for draw in draws}, name, str(file))
        draws = [draw for draw in draws if draw.source == self.source]
        self._said = {
            (draw.clip, draw.draw): Said(probs=draw.probs, dimensions=draw.dimensions) for draw in draws
        }
        self._counts = Counter(draw.clip for draw in draws)
        self.default_draws = max(self._counts.values())

    async def ask(self, clip: Clip, draws: Sequence[int], attempt: int, key: str) -> Reply:
        """The file's draw; DrawsError when it has none."""
        try:
            return Reply([self._said[clip.key, draw] for draw in draws])
        except KeyError:
            count = self._counts[clip.key]
            raise DrawsError(f"{self._file} has {count or 'no'} draws of {clip.name!r}") from None

    def most_usage(self, clip: Clip, draws: int) -> dict[str, int]:
        """Nothing is billed."""
        return {}

    async def close(self) -> None:
        """There is nothing to let go of."""
