"""Commits that many wait for: whoever comes first commits for all, and the others find it done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """A commit of many items at a time, in a thread of its own.

    Args:
        commit: gets the items that came together, returns a result for each; all or nothing.
    """

    def __init__(self, commit: Callable[[list[T]], Sequence[R]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._lock = asyncio.Lock()
        self._running: asyncio.Task[Sequence[R]] | None = None
        self._failure: Exception | None = None

    async def put(self, item: T) -> R:
        """Return the item's result once it is committed.

        Raises:
            Whatever `commit` raises; after that nobody tries again before `flush`.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        async with self._lock:
            if not future.done():
                if self._failure is not None:
                    raise self._failure
                await self._commit_waiting()
        return await future

    async def _commit_waiting(self) -> None:
        batch = self._waiting[:]
        self._running = committing = asyncio.ensure_future(
            asyncio.to_thread(self._commit, [item for item, _ in batch])
        )
        committing.add_done_callback(lambda done: self._finish(batch, done))
        await asyncio.shield(committing)  # who waits may be cancelled, a commit may not

    def _finish(self, batch: list[tuple[T, asyncio.Future[R]]], done: asyncio.Task[Sequence[R]]) -> None:
        error = done.exception()
        if isinstance(error, Exception):
            self._failure = error
            return
        del self._waiting[: len(batch)]
        for (_, future), result in zip(batch, done.result(), strict=True):
            if not future.done():
                future.set_result(result)

    async def flush(self) -> None:
        """Commit what still waits, also what could not be committed before; to be called at the end."""
        if self._running is not None:
            await asyncio.wait([self._running])
            await asyncio.sleep(0)  # its callback runs now
        self._failure = None
        if self._waiting:
            await self._commit_waiting()
