"""How fast the history is written, since that bounds the sessions one Postgres can follow."""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks.ground import Ground
from benchmarks.load import open_sessions
from benchmarks.table import Row, at_least
from persistence.flusher import BATCH, Flusher
from persistence.repository import Repository
from persistence.rows import PresenceRow
from server.live.dirty import StoreDirtySessions

ROWS = 40_000
SESSIONS = 20_000
LARGE_BATCH = 2000


async def measure(ground: Ground) -> list[Row]:
    """Rows per second: new ones, newer states of known ones, and the whole way from Redis with its confirmation."""
    async with ground.table() as pool:
        repository = Repository(pool)
        rows = [_row(number) for number in range(ground.sized(ROWS))]
        newer = [replace(row, version=2, last_seen_ms=row.last_seen_ms + 1) for row in rows]
        inserted = await _write(repository, rows, LARGE_BATCH)
        updated = await _write(repository, newer, LARGE_BATCH)
    async with ground.table() as pool:
        small = await _write(Repository(pool), rows, BATCH)
    return [
        Row(f"new rows, {LARGE_BATCH:,} a batch", inserted, "/s", at_least(50_000)),
        Row(f"newer rows, {LARGE_BATCH:,} a batch", updated, "/s", at_least(50_000)),
        Row(f"new rows, {BATCH} a batch", small, "/s", at_least(50_000)),
        Row("whole flush: Redis, Postgres, confirmation", await _whole_flush(ground), "/s"),
    ]


async def _write(repository: Repository, rows: list[PresenceRow], batch: int) -> float:
    began = time.perf_counter()
    for start in range(0, len(rows), batch):
        await repository.write(rows[start : start + batch])
    return len(rows) / (time.perf_counter() - began)


async def _whole_flush(ground: Ground) -> float:
    async with ground.table() as pool, ground.store() as store:
        await open_sessions(store, ground.sized(SESSIONS))
        flusher = Flusher(StoreDirtySessions(store), Repository(pool), holder="benchmark")
        began = time.perf_counter()
        if not await flusher.flush_once():
            raise RuntimeError("the flush failed")
        took = time.perf_counter() - began
        return float(await pool.fetchval("select count(*) from presence")) / took


def _row(number: int) -> PresenceRow:
    started_at_ms = 1_760_000_000_000 + number
    return PresenceRow(
        session_id=f"session-{number:07}",
        user_id=f"user-{number:07}",
        pool="main",
        status="active",
        version=1,
        started_at_ms=started_at_ms,
        last_seen_ms=started_at_ms + 60_000,
        is_in_interview=True,
        language_code="de",
        current_page="learning",
        interview_started_at_ms=started_at_ms + 30_000,
        waited_s=30.0,
        metadata='{"study": "a"}',
    )
