"""Forgetting a person: their rows go, and no flush brings one back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from persistence.patience import QUESTION_WITHIN_S, transaction
from persistence.statements import statements


@dataclass(slots=True, frozen=True)
class Erased:
    """What the live state knew of a person and has erased. `version`: as high as any that was erased, or higher."""

    session_ids: Sequence[str]
    version: int


# Erases a person from the live state; it is given the sessions of the table, by pool.
EraseLive = Callable[[Mapping[str, Sequence[str]]], Awaitable[Erased]]


class Forgetting:
    """Erases people from the table in `schema`, and with the same step from the live state.

    A flush may have taken a session's state before it was erased, and write it at any time after. So nobody writes
    while the live state is erased, and each session gets a mark that makes later writes of what was taken void.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        schema: str = "public",
        *,
        within_s: float = QUESTION_WITHIN_S,
    ) -> None:
        self._pool = pool
        self._sql = statements(schema, "retention.sql")
        self._within_s = within_s

    async def forget(self, user_id: str, erase_live: EraseLive) -> int:
        """Erase a person; how many sessions that were. May be repeated, and must be if it fails.

        Raises what `erase_live` raises, and `persistence.errors.POSTGRES_AWAY` when Postgres can't serve, or not
        within `within_s` seconds, also because somebody holds the table.
        """
        async with transaction(self._pool, self._within_s) as connection:
            await connection.execute(self._sql["stop_writes"])
            rows = await connection.fetch(self._sql["rows_of"], user_id)
            erased = await erase_live(_by_pool(rows))
            session_ids = sorted({*(row["session_id"] for row in rows), *erased.session_ids})
            await connection.execute(self._sql["mark"], session_ids, erased.version)
            await connection.execute(self._sql["delete_rows_of"], user_id)
        return len(session_ids)


def _by_pool(rows: Sequence[asyncpg.Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["pool"], []).append(row["session_id"])
    return found
