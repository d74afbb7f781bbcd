"""Reads from the `presence` table who came when, how long they waited and how long their interviews took."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg

from persistence.plan.demand import DAY_S, Demand, Visit, observed
from persistence.statements import statements

MAX_VISITS = 50_000
"""More than these, the newest, are not looked at: a month of 1,700 interviews a day."""


class Arrivals:
    """The demand on each pool, from the table in `schema`. Calls raise `persistence.errors.POSTGRES_AWAY`."""

    def __init__(self, connections: asyncpg.Pool[asyncpg.Record], schema: str = "public") -> None:
        self._connections = connections
        self._sql = statements(schema, "plan.sql")

    async def demand(self, pool: str, days: int) -> Demand:
        """The demand of the last `days` days, or since the pool's history began."""
        window = days + 1  # broken days at both ends do not count
        async with (
            self._connections.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            span = await connection.fetchrow(self._sql["plan_span"], pool)
            got_in = await connection.fetch(self._sql["plan_interviews"], pool, window, MAX_VISITS)
            in_vain = await connection.fetch(self._sql["plan_given_up"], pool, window, MAX_VISITS)
        assert span is not None  # noqa: S101 - an aggregate has a row
        # Before the very first session nobody came: its day counts as a whole one.
        begun = (span["first"] or span["now"]) - DAY_S
        since = max(span["now"] - window * DAY_S, begun)
        return observed([*_visits(got_in), *_in_vain(in_vain)], since, span["now"], days)


def _visits(records: list[asyncpg.Record]) -> Iterator[Visit]:
    return (Visit(record["arrived_at"], record["waited_s"], record["length_s"]) for record in records)


def _in_vain(records: list[asyncpg.Record]) -> Iterator[Visit]:
    return (Visit(record["arrived_at"], record["waited_s"], None, got_in=False) for record in records)
