"""The last hours from the history, counted by hand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from persistence.connect import connect
from persistence.recent import Recent
from persistence.statements import statements
from tests.contract.persistence_scale import BY_START, fill, indexes, plan, reads_all

INSERT = """
insert into presence (
  session_id, user_id, pool, status, started_at, last_seen, completed_at, is_in_interview, interview_started_at,
  interview_ended_at, waited_s, end_reason
) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
# Ten minutes ago and before, so that nobody of them counts as still here.
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=70)
FIRST_MS = round(BEGAN.timestamp() * 1000)
MINUTE_MS = 60_000


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    made = await connect(database_url)
    yield made
    await made.close()


def minute(number: float | None) -> datetime | None:
    return None if number is None else BEGAN + timedelta(minutes=number)


async def session(
    pool: asyncpg.Pool[asyncpg.Record],
    name: str,
    came: float,
    seen: float,
    *,
    user: str | None = None,
    in_pool: str = "main",
    status: str = "abandoned",
    interview: tuple[float, float | None] | None = None,
    waited_s: float | None = None,
) -> None:
    """A session from one minute to another, with an interview between two others."""
    began, ended = interview or (None, None)
    is_in = status == "active" and began is not None and ended is None
    completed = minute(seen) if status == "completed" else None
    times = (minute(came), minute(seen), completed, is_in, minute(began), minute(ended))
    await pool.execute(
        INSERT, name, user or name, in_pool, status, *times, waited_s, None if status == "active" else status
    )


async def test_each_moment_has_who_was_there_then(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await session(pool, "a", -30, 3.5, status="completed", interview=(-10, 3.5), waited_s=60)
    await session(pool, "b", 0.5, 5, interview=(4, 5), waited_s=150)
    await session(pool, "gave-up", 1, 3, waited_s=60)
    await session(pool, "between", 1.2, 1.8)
    await session(pool, "later", 30, 40, interview=(31, 32))
    await session(pool, "elsewhere", 0, 5, in_pool="lab", interview=(0, 5))
    levels = await Recent(pool).levels("main", FIRST_MS, MINUTE_MS, 7)
    assert [level.online for level in levels] == [1, 3, 3, 2, 1, 0, 0]
    assert [level.in_interview for level in levels] == [1, 1, 1, 1, 1, 0, 0]
    assert [level.waiting for level in levels] == [0, 0, 2, 1, 0, 0, 0]


async def test_an_interview_that_was_taken_over_is_one(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await session(pool, "a1", 0, 2, user="anna", interview=(1, 2))
    await session(pool, "a2", 2, 4, user="anna", interview=(1, 4), status="completed")
    levels = await Recent(pool).levels("main", FIRST_MS, MINUTE_MS, 5)
    assert [level.in_interview for level in levels] == [0, 1, 1, 1, 0]


async def test_who_was_seen_a_moment_ago_is_still_here(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    a_moment_ago = (time.time() * 1000 - FIRST_MS) / MINUTE_MS - 0.1
    await session(pool, "here", 0, a_moment_ago, status="active", interview=(1, None), waited_s=0)
    await session(pool, "silent", 0, 5, status="active", interview=(1, None))
    levels = await Recent(pool).levels("main", FIRST_MS, 10 * MINUTE_MS, 9)
    assert [tuple(level) for level in levels] == [(2, 0, 0), *[(1, 1, 0)] * 8]


async def test_the_last_hours_are_read_by_an_index(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await fill(pool, 20_000)
    sql = statements("public", "recent.sql")["recent"]
    made = await plan(pool, sql, "main", FIRST_MS, MINUTE_MS, 240)
    assert BY_START in indexes(made)
    assert not reads_all(made)
    assert len(await Recent(pool).levels("main", FIRST_MS, MINUTE_MS, 240)) == 240
