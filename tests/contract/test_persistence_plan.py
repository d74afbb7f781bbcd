"""What the plan reads from a real `presence` table."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from persistence.connect import connect
from persistence.plan.demand import Demand
from persistence.plan.history import Arrivals
from persistence.repository import Repository
from persistence.rows import PresenceRow
from tests.contract.persistence_model import lines, row

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NOW_MS = int(time.time() * 1000)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    pool = await connect(database_url)
    yield pool
    await pool.close()


def interview(name: str, days_ago: float, minutes: float | None = 20, **changes: object) -> PresenceRow:
    """A session with an interview that began so long ago; without `minutes` it still runs."""
    at_ms = NOW_MS - round(days_ago * DAY_MS)
    first = row(
        name,
        user_id=f"user-{name}",
        started_at_ms=at_ms - 60_000,
        interview_started_at_ms=at_ms,
        interview_ended_at_ms=None if minutes is None else at_ms + round(minutes * 60_000),
        waited_s=0.0,
    )
    return first._replace(**changes)  # type: ignore[arg-type]


async def demand(
    pool: asyncpg.Pool[asyncpg.Record], *rows: PresenceRow, days: int = 28, of: str = "main"
) -> Demand:
    await Repository(pool).write(lines(rows))
    return await Arrivals(pool).demand(of, days)


async def test_lengths_and_arrivals_come_from_the_interviews(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    found = await demand(pool, *(interview(f"s{day}", day + 0.5, 10 + day) for day in range(5)))
    assert sorted(found.lengths_s) == [600, 660, 720, 780, 840]
    assert found.arrivals == sum(map(len, found.days)) >= 4
    assert found.gave_up == 0


async def test_a_running_interview_is_an_arrival_without_a_length(
    pool: asyncpg.Pool[asyncpg.Record],
) -> None:
    found = await demand(pool, interview("old", 3.5), interview("new", 1.5, None), interview("oldest", 9.0))
    assert found.lengths_s == [1200, 1200]
    assert found.arrivals == 3


async def test_who_waited_asked_before_the_interview_began(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    early = await demand(pool, interview("s1", 0.5), interview("s2", 1.5))
    late = await demand(
        pool, interview("s1", 0.5, version=2), interview("s2", 1.5, waited_s=600.0, version=2)
    )
    (before,), (after,) = ([at for day in found.days for at in day][:1] for found in (early, late))
    assert before - after == pytest.approx(600, abs=0.01)


async def test_other_pools_older_days_and_sessions_without_interview_do_not_count(
    pool: asyncpg.Pool[asyncpg.Record],
) -> None:
    found = await demand(
        pool,
        interview("ours", 0.5),
        interview("theirs", 0.5, pool="lab"),
        interview("ancient", 10.0),
        row("looked-in", started_at_ms=NOW_MS - HOUR_MS),
        days=7,
    )
    assert found.lengths_s == [1200]
    assert len(found.days) == 7
    assert (await Arrivals(pool).demand("lab", 28)).lengths_s == [1200]


async def test_an_interview_that_was_taken_over_is_one(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    first = interview("first", 0.5, 5, user_id="anna", waited_s=30.0)
    second = interview("second", 0.5, 25, user_id="anna", waited_s=30.0)
    assert (await demand(pool, first, second)).lengths_s == [1500]


async def test_who_waited_and_never_got_in_gave_up(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    seen_ms = NOW_MS - DAY_MS
    in_vain = [
        row(
            f"left{number}",
            status="abandoned",
            started_at_ms=seen_ms - HOUR_MS,
            last_seen_ms=seen_ms,
            waited_s=60.0 * number,
        )
        for number in range(1, 7)
    ]
    found = await demand(pool, interview("s1", 5.5), *in_vain)
    assert found.gave_up == 6
    assert list(found.patience.waits_s) == [60, 120, 180, 240, 300, 360]


async def test_the_history_counts_from_its_first_session(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    found = await demand(pool, interview("s1", 2.9), interview("s2", 1.2), days=28)
    assert len(found.days[0]) == 1
    assert len(found.days) in {2, 3}


async def test_an_empty_table_is_no_demand(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    found = await demand(pool)
    assert (found.arrivals, list(found.lengths_s), len(found.days)) == (0, [], 1)


async def test_a_table_in_another_schema_is_read_there(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        await Arrivals(pool, "elsewhere").demand("main", 28)
