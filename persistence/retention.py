"""Retention: rows of sessions that ended long ago are deleted, daily and in small batches."""

from __future__ import annotations

import time
from collections.abc import Callable

import asyncpg
import structlog

from persistence.patience import WORK_WITHIN_S, transaction
from persistence.statements import statements

BATCH = 1000
# A flush waits until these are through; what is left after them is deleted after the next flushes.
BATCHES_AT_ONCE = 20
INTERVAL_S = 86_400.0

_log = structlog.get_logger(__name__)


class Retention:
    """Deletes what ended more than `days` days ago; 0 keeps everything.

    Also deletes, whatever `days` is, the marks that `persistence.forgetting` leaves. `clock` is seconds. Calls
    raise `persistence.errors.POSTGRES_AWAY` when Postgres can't serve them, or not a batch within `within_s` seconds.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        schema: str = "public",
        *,
        days: int = 0,
        batch: int = BATCH,
        within_s: float = WORK_WITHIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._sql = statements(schema, "retention.sql")
        self._days = days
        self._batch = batch
        self._within_s = within_s
        self._clock = clock
        self._next = clock()

    async def delete_if_due(self) -> int:
        """Delete a bounded number of rows if the last time is a day ago, or if that left some; returns how many."""
        if self._clock() < self._next:
            return 0
        await self._run("delete_marks")
        deleted, is_done = await self._delete_old() if self._days else (0, True)
        if is_done:
            self._next = self._clock() + INTERVAL_S
        if deleted:
            _log.info("old_sessions_deleted", sessions=deleted, retention_days=self._days)
        return deleted

    async def _delete_old(self) -> tuple[int, bool]:
        """How many rows were deleted, and whether those were all."""
        deleted = 0
        for _ in range(BATCHES_AT_ONCE):
            count = len(await self._run("delete_old", float(self._days), self._batch))
            deleted += count
            if count < self._batch:
                return deleted, True
        return deleted, False

    async def _run(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        async with transaction(self._pool, self._within_s) as connection:
            return await connection.fetch(self._sql[name], *arguments)
