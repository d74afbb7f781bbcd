"""A million sessions of a thousand days: each question about the last days reads those days only, by an index."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from persistence.analytics import Analytics
from persistence.connect import connect
from persistence.retention import Retention
from tests.contract.persistence_scale import WANTED, fill, indexes, plans, questions, reads_all, timed

ROWS = 1_000_000
ANSWER_WITHIN_S = 2.0

pytestmark = pytest.mark.soak


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    pool = await connect(database_url)
    yield pool
    await pool.close()


async def test_a_million_rows_are_answered_by_the_indexes_in_time(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    await fill(pool, ROWS)
    for name, plan in (await plans(pool)).items():
        print(f"{name}: {', '.join(sorted(indexes(plan)))}")
        assert WANTED[name] in indexes(plan), (name, plan)
        assert not reads_all(plan), (name, plan)
    for name, asking in questions(Analytics(pool)).items():
        took = await timed(asking)
        print(f"{name}: {took * 1000:.0f} ms")
        assert took < ANSWER_WITHIN_S, name
    retention = Retention(pool, days=970)
    deleted: list[int] = []
    while not deleted or deleted[-1]:
        deleted.append(await retention.delete_if_due())
    assert sum(deleted) == pytest.approx(ROWS * 30 / 1000, rel=0.01)
