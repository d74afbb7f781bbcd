"""One pass over those who are present: what moved of them is `last_seen` alone, and only that is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from persistence.drain import side_by_side
from persistence.port import FROM_THE_START, DirtySessions, Touched

Move = Callable[[Touched], Awaitable[Sequence[str]]]


class Touching:
    """Writes `last_seen` of everyone present or in permit grace in a pool, `batch` sessions at a time.

    `move` writes a batch and returns the sessions whose rows have to be written whole.
    """

    def __init__(self, source: DirtySessions, move: Move, pool: str, *, batch: int) -> None:
        self._source = source
        self._move = move
        self._pool = pool
        self._batch = batch
        self._cursor: int | None = FROM_THE_START
        self._taking = asyncio.Lock()

    async def run(self) -> None:
        """Run until everyone was met. The first error ends all, and is raised."""
        await side_by_side(self._work)

    async def _work(self) -> None:
        while touched := await self._touch():
            missed = await self._move(touched) if touched.session_ids else ()
            await self._source.ack_touch(self._pool, touched, missed)

    async def _touch(self) -> Touched | None:
        async with self._taking:
            if self._cursor is None:
                return None
            touched = await self._source.touch(self._pool, self._batch, self._cursor)
            self._cursor = touched.cursor
            return touched
