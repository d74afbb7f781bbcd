"""How fast the history is written, since that bounds the sessions one Postgres can follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import psutil

from benchmarks.ground import POOL, Ground
from benchmarks.load import open_sessions
from benchmarks.table import Row, at_least, at_most
from persistence.drain import BATCH
from persistence.flusher import Flusher
from persistence.repository import Repository
from persistence.rows import PresenceRow
from server.live.dirty import StoreDirtySessions
from server.live.store import Store

ROWS = 40_000
SESSIONS = 20_000
BACKLOG = 200_000
HEARTBEATS = 2000
SAMPLE_S = 0.02
# What the system before this one did for each heartbeat, at its best: prepared, on one warm connection.
ONE_HEARTBEAT = """
insert into presence (session_id, user_id, language_code, current_page, last_seen, is_in_interview, status)
values ($1, $2, $3, $4, now(), $5, $6)
on conflict (session_id) do update
set current_page = excluded.current_page, last_seen = excluded.last_seen,
    is_in_interview = excluded.is_in_interview, status = excluded.status
"""
# Everybody is seen again, a second later.
SEEN_AGAIN = """
for _, session_id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  redis.call('HINCRBY', ARGV[1] .. session_id, 'last_seen', 1000)
  redis.call('ZADD', KEYS[2], 'NX', 1, session_id)
end
"""
# Sessions like the one there is, so many.
MANY_MORE = """
local fields = redis.call('HGETALL', ARGV[1] .. ARGV[2])
local at
for i = 1, #fields, 2 do
  at = fields[i] == 'session_id' and i + 1 or at
end
for number = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  fields[at] = string.format('waiting-%09d', number)
  redis.call('HSET', ARGV[1] .. fields[at], unpack(fields))
  redis.call('ZADD', KEYS[2], number, fields[at])
end
"""
MORE_PER_CALL = 5000


async def measure(ground: Ground) -> list[Row]:
    """Rows per second: new ones, newer states of known ones, and the whole way from Redis with its confirmation."""
    async with ground.table() as pool:
        old = await _heartbeats(pool, ground.sized(HEARTBEATS))
    async with ground.table() as pool:
        repository = Repository(pool)
        rows = [_row(number) for number in range(ground.sized(ROWS))]
        newer = [row._replace(version=2, last_seen_ms=row.last_seen_ms + 1) for row in rows]
        inserted = await _write(repository, rows)
        updated = await _write(repository, newer)
    first, again = await _whole_flush(ground)
    return [
        Row("the old way: an upsert for each heartbeat", old, "/s"),
        Row(f"new rows, {BATCH:,} a batch", inserted, "/s", at_least(50_000)),
        Row(f"newer rows, {BATCH:,} a batch", updated, "/s", at_least(50_000)),
        Row("whole flush of new sessions: Redis, Postgres, Redis", first, "/s", at_least(50_000), floor=old),
        Row("whole flush of known sessions", again, "/s", at_least(50_000), floor=old),
        Row("whole flush, times the old way", again / old, "", at_least(10)),
        await _memory(ground),
    ]


async def _heartbeats(pool: asyncpg.Pool[asyncpg.Record], number: int) -> float:
    async with pool.acquire() as connection:
        began = time.perf_counter()
        for count in range(number):
            row = _row(count % (number // 2))
            await connection.execute(
                ONE_HEARTBEAT,
                row.session_id,
                row.user_id,
                row.language_code,
                row.current_page,
                row.is_in_interview,
                row.status,
            )
        return number / (time.perf_counter() - began)


async def _write(repository: Repository, rows: list[PresenceRow]) -> float:
    began = time.perf_counter()
    for start in range(0, len(rows), BATCH):
        await repository.write(rows[start : start + BATCH])
    return len(rows) / (time.perf_counter() - began)


async def _whole_flush(ground: Ground) -> tuple[float, float]:
    """New sessions, then the same ones seen again."""
    async with ground.table() as pool, ground.store() as store:
        number = ground.sized(SESSIONS)
        await open_sessions(store, number)
        flusher = Flusher(StoreDirtySessions(store), Repository(pool), holder="benchmark")
        first = await _flush(flusher)
        if await pool.fetchval("select count(*) from presence") != number:
            raise RuntimeError("not everybody was written")
        keys = store.keys(POOL)
        await store.scripts.command("EVAL", SEEN_AGAIN, 2, keys.sessions, keys.dirty, keys.session(""))
        again = await _flush(flusher)
        return number / first, number / again


async def _flush(flusher: Flusher) -> float:
    """How many seconds a flush of everything takes."""
    began = time.perf_counter()
    if not await flusher.flush_once() or flusher.status.backlog:
        raise RuntimeError("the flush failed")
    return time.perf_counter() - began


async def _memory(ground: Ground) -> Row:
    """By how much this process grows while it flushes a long backlog, once it is warm."""
    number = ground.sized(BACKLOG)
    async with ground.table() as pool, ground.store() as store:
        flusher = Flusher(StoreDirtySessions(store), Repository(pool), holder="benchmark")
        await _wait(store, 0, ground.sized(SESSIONS))
        await _flush(flusher)
        await _wait(store, ground.sized(SESSIONS), number)
        async with _growth() as grown:
            await _flush(flusher)
    return Row(f"memory more while {number:,} sessions wait", max(grown) / 2**20, "MB", at_most(30))


async def _wait(store: Store, first: int, last: int) -> None:
    """Sessions from number `first` to `last` wait to be flushed."""
    keys = store.keys(POOL)
    (opened,) = await open_sessions(store, 1)
    for start in range(first, last, MORE_PER_CALL):
        end = min(start + MORE_PER_CALL, last) - 1
        arguments = (keys.session(""), opened.record.session_id, start, end)
        await store.scripts.command("EVAL", MANY_MORE, 2, keys.sessions, keys.dirty, *arguments)


@asynccontextmanager
async def _growth() -> AsyncIterator[list[float]]:
    """Resident memory of this process in bytes above what it is now, sampled while this is entered."""
    process, grown = psutil.Process(), [0.0]
    before = process.memory_info().rss

    async def sample() -> None:
        while True:
            grown.append(process.memory_info().rss - before)
            await asyncio.sleep(SAMPLE_S)

    sampling = asyncio.create_task(sample())
    try:
        yield grown
    finally:
        sampling.cancel()


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
