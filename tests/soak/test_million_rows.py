"""A history of a million sessions: the flush stays as quick as on an empty table, and so do its readers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from persistence.connect import connect
from persistence.repository import Repository
from persistence.rows import PresenceRow
from tests.contract.persistence_model import START_MS, ended, lines, row

ROWS = 1_000_000
USERS = 5000
BATCH = 2000
PAGE = 1000
READ_WITHIN_S = 0.25

pytestmark = pytest.mark.soak


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    pool = await connect(database_url)
    yield pool
    await pool.close()


def batches() -> Iterator[list[PresenceRow]]:
    """A session a second; all have ended but the last thousand."""
    for start in range(0, ROWS, BATCH):
        yield [session(number) for number in range(start, start + BATCH)]


def session(number: int) -> PresenceRow:
    at_ms = START_MS + number * 1000
    make = row if number >= ROWS - PAGE else ended
    return make(f"s{number:07}", user_id=f"u{number % USERS}", started_at_ms=at_ms, last_seen_ms=at_ms)


async def test_a_million_rows_slow_nobody_down(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    repository = Repository(pool)
    took = []
    for batch in batches():
        began = time.perf_counter()
        await repository.write(lines(batch))
        took.append(time.perf_counter() - began)
    assert await pool.fetchval("select count(*) from presence") == ROWS

    tenth = len(took) // 10
    first, last = sorted(took[:tenth])[tenth // 2], sorted(took[-tenth:])[tenth // 2]
    assert last < 3 * first, (first, last)

    await pool.execute("analyze presence")  # as autovacuum does within a minute
    before = None
    for _ in range(5):
        began = time.perf_counter()
        page = await repository.sessions("main", before=before, limit=PAGE)
        assert time.perf_counter() - began < READ_WITHIN_S
        before = (page[-1].started_at_ms, page[-1].session_id)
    assert before == (START_MS + (ROWS - 5 * PAGE) * 1000, f"s{ROWS - 5 * PAGE:07}")

    for number in range(10):  # more often than Postgres takes to settle on one plan for all
        began = time.perf_counter()
        assert len(await repository.sessions("main", user_id=f"u{number}", limit=PAGE)) == ROWS // USERS
        assert time.perf_counter() - began < READ_WITHIN_S

    began = time.perf_counter()
    assert len(await repository.stale(0, limit=ROWS)) == PAGE
    assert time.perf_counter() - began < READ_WITHIN_S
