"""What the history says about the last days of a pool: one method a question, one statement of analytics.sql each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from persistence.patience import QUESTION_WITHIN_S, transaction
from persistence.statements import statements

Row = TypeVar("Row")


@dataclass(slots=True, frozen=True)
class LanguageRow:
    """How many came, in one language."""

    language_code: str | None
    sessions: int
    interviews: int
    completed: int


@dataclass(slots=True, frozen=True)
class LanguageDayRow:
    """How many came on one day (UTC, as YYYY-MM-DD), in one language."""

    language_code: str | None
    day: str
    sessions: int
    interviews: int
    completed: int


@dataclass(slots=True, frozen=True)
class DurationRow:
    """How long interviews took, and completed sessions, in one language; with `total`: in all. Null: none were."""

    language_code: str | None
    total: bool
    interviews: int
    interview_mean_s: float | None
    interview_median_s: float | None
    interview_p90_s: float | None
    interview_longest_s: float | None
    completed: int
    session_mean_s: float | None
    session_median_s: float | None
    session_p90_s: float | None
    session_longest_s: float | None


@dataclass(slots=True, frozen=True)
class HourRow:
    """How many sessions started in the hour from `hour_ms` on (wall-clock ms), and how many of them got in."""

    hour_ms: int
    sessions: int
    interviews: int


@dataclass(slots=True, frozen=True)
class ConcurrencyRow:
    """How many interviews ran at the same time in the hour from `hour_ms` on: the most, and on average over it."""

    hour_ms: int
    most: int
    average: float


@dataclass(slots=True, frozen=True)
class WaitRow:
    """How long those waited who got in, in one language; with `total`: in all. `waited`: a second or longer.

    `gave_up`: who waited, never got in, and is gone; `gave_up_median_s`: after how long.
    """

    language_code: str | None
    total: bool
    admitted: int
    waited: int
    median_s: float | None
    p90_s: float | None
    longest_s: float | None
    gave_up: int
    gave_up_median_s: float | None


@dataclass(slots=True, frozen=True)
class EndingRow:
    """How many sessions ended for one reason."""

    end_reason: str
    sessions: int


class Analytics:
    """Questions to the views of `schema`. A day is one of UTC, and `days` counts back from today, which is one of them.

    Calls raise `persistence.errors.POSTGRES_AWAY` when Postgres can't serve them, or not within `within_s` seconds.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        schema: str = "public",
        *,
        within_s: float = QUESTION_WITHIN_S,
    ) -> None:
        self._pool = pool
        self._sql = statements(schema, "analytics.sql")
        self._within_s = within_s

    async def languages(self, pool: str, days: int) -> list[LanguageRow]:
        """Who came, by language, the most frequent first."""
        return await self._rows(LanguageRow, "languages", pool, days)

    async def language_days(self, pool: str, days: int) -> list[LanguageDayRow]:
        """Who came, by day and language, the oldest day first."""
        return await self._rows(LanguageDayRow, "language_days", pool, days)

    async def durations(self, pool: str, days: int) -> list[DurationRow]:
        """How long it took: all together first, then by language."""
        return await self._rows(DurationRow, "durations", pool, days)

    async def peak_hours(self, pool: str, days: int) -> list[HourRow]:
        """Who came, by hour, the newest first; hours in which nobody came are left out."""
        return await self._rows(HourRow, "peak_hours", pool, days)

    async def concurrency(self, pool: str, days: int) -> list[ConcurrencyRow]:
        """Interviews at the same time, by hour, the oldest first; hours without any are left out."""
        return await self._rows(ConcurrencyRow, "concurrency", pool, days)

    async def waits(self, pool: str, days: int) -> list[WaitRow]:
        """How long they waited: all together first, then by language."""
        return await self._rows(WaitRow, "waits", pool, days)

    async def endings(self, pool: str, days: int) -> list[EndingRow]:
        """Why sessions ended, the most frequent reason first."""
        return await self._rows(EndingRow, "endings", pool, days)

    async def _rows(self, kind: type[Row], name: str, pool: str, days: int) -> list[Row]:
        async with transaction(self._pool, self._within_s, readonly=True) as connection:
            records = await connection.fetch(self._sql[name], pool, days)
        return [kind(**dict(record)) for record in records]
