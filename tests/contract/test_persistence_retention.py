"""Retention: what ended long ago goes, in batches, by whoever flushes; what runs, or ended lately, stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg
import pytest

from persistence.analytics import Analytics
from persistence.connect import connect
from persistence.flusher import Flusher
from persistence.forgetting import Erased, Forgetting
from persistence.repository import Repository
from persistence.retention import BATCHES_AT_ONCE, INTERVAL_S, Retention
from tests.contract.persistence_model import LiveModel
from tests.contract.persistence_scale import questions

INSERT = """
insert into presence (session_id, user_id, pool, status, started_at, last_seen)
select $1 || number, 'anna', $2, $3, now() - ($4::float8 + 0.1) * interval '1 day',
       now() - $4::float8 * interval '1 day'
from generate_series(1, $5) as number
"""


class Clock:
    """Seconds, moved by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    pool = await connect(database_url)
    yield pool
    await pool.close()


async def add(
    pool: asyncpg.Pool[asyncpg.Record],
    name: str,
    *,
    age_days: float,
    status: str = "completed",
    in_pool: str = "main",
    count: int = 1,
) -> None:
    await pool.execute(INSERT, name, in_pool, status, age_days, count)


async def left(pool: asyncpg.Pool[asyncpg.Record]) -> list[str]:
    return [row["session_id"] for row in await pool.fetch("select session_id from presence order by 1")]


async def test_only_what_ended_longer_ago_goes_in_every_pool(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await add(pool, "old", age_days=31)
    await add(pool, "given-up", age_days=31, status="abandoned")
    await add(pool, "of-a-pool-that-redis-forgot", age_days=400, in_pool="study-2019")
    await add(pool, "young", age_days=29.95)
    await add(pool, "runs", age_days=31, status="active")
    assert await Retention(pool, days=30).delete_if_due() == 3
    assert await left(pool) == ["runs1", "young1"]


async def test_nothing_goes_unless_it_was_asked_for(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await add(pool, "old", age_days=4000)
    assert await Retention(pool).delete_if_due() == 0
    assert await left(pool) == ["old1"]


async def test_it_happens_at_the_start_and_then_daily(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    clock = Clock()
    retention = Retention(pool, days=30, clock=clock)
    for hours, expected in ((0, 1), (1, 0), (23.9, 0), (24, 1)):
        clock.now = hours * 3600
        await add(pool, f"old-{hours}-", age_days=31)
        deleted = await retention.delete_if_due()
        assert bool(deleted) is bool(expected), hours
    assert await left(pool) == []
    assert INTERVAL_S == 86_400


async def test_a_large_backlog_goes_in_bounded_steps_without_waiting_for_the_next_day(
    pool: asyncpg.Pool[asyncpg.Record],
) -> None:
    await add(pool, "old", age_days=31, count=10 * BATCHES_AT_ONCE + 5)
    retention = Retention(pool, days=30, batch=10, clock=Clock())
    assert [await retention.delete_if_due() for _ in range(3)] == [10 * BATCHES_AT_ONCE, 5, 0]


async def test_a_row_that_somebody_works_on_is_left_for_the_next_time(
    pool: asyncpg.Pool[asyncpg.Record],
) -> None:
    await add(pool, "old", age_days=31, count=3)
    async with pool.acquire() as other, other.transaction():
        await other.execute("select from presence where session_id = 'old2' for update")
        assert await Retention(pool, days=30).delete_if_due() == 2
    assert await left(pool) == ["old2"]


async def test_whoever_has_the_lease_does_it_and_nobody_else(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await add(pool, "old", age_days=31)
    live = LiveModel()
    live.leases["main"] = "another-node"
    flusher = Flusher(live, Repository(pool), holder="node-1", retention=Retention(pool, days=30))
    assert await flusher.flush_once()
    assert await left(pool) == ["old1"]
    live.leases.clear()
    assert await flusher.flush_once()
    assert await left(pool) == []


async def test_marks_of_the_forgotten_go_after_a_day(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await pool.execute(
        "insert into presence_forgotten (session_id, version, forgotten_at)"
        " values ('s1', 1, now() - interval '25 hours'), ('s2', 1, now() - interval '23 hours')"
    )
    await Retention(pool).delete_if_due()
    assert [row["session_id"] for row in await pool.fetch("select session_id from presence_forgotten")] == [
        "s2"
    ]


async def test_the_servers_own_role_may_do_all_that_the_history_asks_of_it(database_url: str) -> None:
    """Retention, forgetting and analytics need no owner: here with the rights of `presence_server`."""
    async with asyncpg.create_pool(
        database_url, min_size=0, server_settings={"role": "presence_server"}
    ) as pool:
        await add(pool, "old", age_days=31)
        assert await Retention(pool, days=30).delete_if_due() == 1
        await add(pool, "annas", age_days=1)
        assert await Forgetting(pool).forget("anna", nobody_live) == 1
        assert await left(pool) == []
        for ask in questions(Analytics(pool)).values():
            await ask


async def nobody_live(past: Mapping[str, Sequence[str]]) -> Erased:
    assert past == {"main": ["annas1"]}
    return Erased([], 7)
