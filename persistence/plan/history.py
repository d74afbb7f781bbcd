"""Reads from the `presence` table who came when, how long they waited and how long their interviews took."""

from __future__ import annotations

import asyncpg

from persistence.patience import QUESTION_WITHIN_S, transaction
from persistence.plan.demand import DAY_S, Demand
from persistence.plan.recorded import Recorded
from persistence.statements import statements

MAX_VISITS = 50_000
"""More than these, the newest, are not looked at: a month of 1,700 interviews a day."""


class Arrivals:
    """The demand on each pool, from the table in `schema`.

    Calls raise `persistence.errors.POSTGRES_AWAY` when Postgres can't serve them, or not within `within_s` seconds.
    """

    def __init__(
        self,
        connections: asyncpg.Pool[asyncpg.Record],
        schema: str = "public",
        *,
        within_s: float = QUESTION_WITHIN_S,
    ) -> None:
        self._connections = connections
        self._sql = statements(schema, "plan.sql")
        self._within_s = within_s

    async def demand(self, pool: str, days: int) -> Demand:
        """The demand of the last `days` days, or since the pool's history began."""
        return (await self.recorded(pool, days)).demand()

    async def recorded(self, pool: str, days: int) -> Recorded:
        """What `demand` is worked out of."""
        window = days + 1  # broken days at both ends do not count
        reading = {"isolation": "repeatable_read", "readonly": True}
        async with transaction(self._connections, self._within_s, **reading) as connection:
            span = await connection.fetchrow(self._sql["plan_span"], pool)
            got_in = await connection.fetch(self._sql["plan_interviews"], pool, window, MAX_VISITS)
            in_vain = await connection.fetch(self._sql["plan_given_up"], pool, window, MAX_VISITS)
        assert span is not None  # noqa: S101 - an aggregate has a row
        # Before the very first session nobody came: its day counts as a whole one.
        begun = (span["first"] or span["now"]) - DAY_S
        since = max(span["now"] - window * DAY_S, begun)
        return Recorded([*map(tuple, got_in)], [*map(tuple, in_vain)], since, span["now"], days)
