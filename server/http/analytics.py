"""Operations on the history: who came, when, for how long, how long they waited, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, TypeVar

import msgspec

from persistence.analytics import Analytics, DurationRow, EndingRow, LanguageDayRow, LanguageRow, WaitRow
from persistence.errors import POSTGRES_AWAY
from persistence.patience import QUESTION_WITHIN_S
from server.domain.times import iso
from server.http.auth import Access
from server.http.problems import HistoryAwayError
from server.http.routing import Answer, AnyCall, Call, Operation, PoolParams, operation

NO_HISTORY = "This server keeps no history: DATABASE_URL is not set."
NO_ANSWER = "Postgres does not answer: the history can't be read now."

Result = TypeVar("Result")


class Span(PoolParams, frozen=True):
    """Which part of the history: so many days (UTC), of which today is the last."""

    days: Annotated[int, msgspec.Meta(ge=1, le=3660, description="The last so many days, with today.")] = 28


class Languages(msgspec.Struct, frozen=True):
    """Who came, by language, and by day and language."""

    pool: str
    days: int
    languages: list[LanguageRow]
    by_day: list[LanguageDayRow]


class Durations(msgspec.Struct, frozen=True):
    """How long interviews took, and whole sessions that were completed: in all (`total`), and by language."""

    pool: str
    days: int
    durations: list[DurationRow]


class Hour(msgspec.Struct, frozen=True):
    """How many sessions started in an hour, and how many of them got into the interview."""

    hour: str
    sessions: int
    interviews: int


class PeakHours(msgspec.Struct, frozen=True):
    """Who came, by hour, the newest first, without the hours in which nobody came; and the fullest hour."""

    pool: str
    days: int
    busiest: Hour | None
    hours: list[Hour]


class ConcurrentHour(msgspec.Struct, frozen=True):
    """How many interviews ran at the same time in an hour: the most, and on average over the hour."""

    hour: str
    most: int
    average: float


class Concurrency(msgspec.Struct, frozen=True):
    """Interviews at the same time, by hour, the oldest first, without the hours in which none ran."""

    pool: str
    days: int
    most: int
    hours: list[ConcurrentHour]


class Waits(msgspec.Struct, frozen=True):
    """How long those waited who got in, and how many gave up: in all (`total`), and by language."""

    pool: str
    days: int
    waits: list[WaitRow]


class Endings(msgspec.Struct, frozen=True):
    """Why sessions ended."""

    pool: str
    days: int
    endings: list[EndingRow]


@operation("GET", "/v1/analytics/languages", Access.KEY, answers={200: Languages}, errors=(503,))
async def get_languages(call: Call[None, Span]) -> Answer:
    """See who came, by language and by day: sessions, interviews, completed sessions."""
    history, days = _history(call), call.query.days
    languages, by_day = await _unless_away(_languages(history, call.pool, days))
    return Answer(Languages(call.pool, days, languages, by_day))


@operation("GET", "/v1/analytics/durations", Access.KEY, answers={200: Durations}, errors=(503,))
async def get_durations(call: Call[None, Span]) -> Answer:
    """See how long interviews and completed sessions took: mean, median, p90 and the longest, by language."""
    rows = await _unless_away(_history(call).durations(call.pool, call.query.days))
    return Answer(Durations(call.pool, call.query.days, rows))


@operation("GET", "/v1/analytics/peak-hours", Access.KEY, answers={200: PeakHours}, errors=(503,))
async def get_peak_hours(call: Call[None, Span]) -> Answer:
    """See who came, hour by hour."""
    rows = await _unless_away(_history(call).peak_hours(call.pool, call.query.days))
    hours = [Hour(iso(row.hour_ms), row.sessions, row.interviews) for row in rows]
    busiest = max(hours, key=lambda hour: hour.sessions, default=None)
    return Answer(PeakHours(call.pool, call.query.days, busiest, hours))


@operation("GET", "/v1/analytics/concurrency", Access.KEY, answers={200: Concurrency}, errors=(503,))
async def get_concurrency(call: Call[None, Span]) -> Answer:
    """See how many interviews ran at the same time, hour by hour."""
    rows = await _unless_away(_history(call).concurrency(call.pool, call.query.days))
    hours = [ConcurrentHour(iso(row.hour_ms), row.most, row.average) for row in rows]
    most = max((hour.most for hour in hours), default=0)
    return Answer(Concurrency(call.pool, call.query.days, most, hours))


@operation("GET", "/v1/analytics/waits", Access.KEY, answers={200: Waits}, errors=(503,))
async def get_waits(call: Call[None, Span]) -> Answer:
    """See how long those waited who got in (median, p90 and the longest), and how many gave up, by language."""
    rows = await _unless_away(_history(call).waits(call.pool, call.query.days))
    return Answer(Waits(call.pool, call.query.days, rows))


@operation("GET", "/v1/analytics/endings", Access.KEY, answers={200: Endings}, errors=(503,))
async def get_endings(call: Call[None, Span]) -> Answer:
    """See why sessions ended."""
    rows = await _unless_away(_history(call).endings(call.pool, call.query.days))
    return Answer(Endings(call.pool, call.query.days, rows))


OPERATIONS: tuple[Operation, ...] = (
    get_languages,
    get_durations,
    get_peak_hours,
    get_concurrency,
    get_waits,
    get_endings,
)


async def _languages(
    history: Analytics, pool: str, days: int
) -> tuple[list[LanguageRow], list[LanguageDayRow]]:
    return await history.languages(pool, days), await history.language_days(pool, days)


def _history(call: AnyCall) -> Analytics:
    if call.node.analytics is None:
        raise HistoryAwayError(NO_HISTORY)
    return call.node.analytics


async def _unless_away(asking: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout(QUESTION_WITHIN_S):
            return await asking
    except POSTGRES_AWAY as error:
        raise HistoryAwayError(NO_ANSWER) from error
