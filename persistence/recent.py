"""What the history says of the last hours of a pool: how many were here, in an interview, and waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import asyncpg

from persistence.patience import ANSWER_WITHIN_S, transaction
from persistence.statements import statements


class Levels(NamedTuple):
    """How many at one moment."""

    online: int
    in_interview: int
    waiting: int


class Recent:
    """Asks the `presence` table of `schema`, with one statement."""

    def __init__(
        self, pool: asyncpg.Pool[asyncpg.Record], schema: str = "public", *, within_s: float = ANSWER_WITHIN_S
    ) -> None:
        self._pool = pool
        self._sql = statements(schema, "recent.sql")["recent"]
        self._within_s = within_s

    async def levels(self, pool: str, first_ms: int, step_ms: int, count: int) -> list[Levels]:
        """The levels at `count` moments, the first at `first_ms` (wall clock), `step_ms` apart.

        Raises `persistence.errors.POSTGRES_AWAY` when Postgres can't say it in time.
        """
        async with transaction(self._pool, self._within_s, readonly=True) as connection:
            rows = await connection.fetch(self._sql, pool, first_ms, step_ms, count)
        changes = {row["step"]: Levels(row["online"], row["in_interview"], row["waiting"]) for row in rows}
        return list(_added_up(changes.get(step) for step in range(count)))


def _added_up(changes: Iterable[Levels | None]) -> Iterator[Levels]:
    level = Levels(0, 0, 0)
    for change in changes:
        if change is not None:
            level = Levels(*(sum(pair) for pair in zip(level, change, strict=True)))
        yield level
