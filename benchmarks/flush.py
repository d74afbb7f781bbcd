"""How fast the history is written, since that bounds the sessions one Postgres can follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from statistics import median

import asyncpg
import psutil

from benchmarks.ground import POOL, Ground
from benchmarks.load import STORE_CALLS_AT_ONCE, each, open_sessions
from benchmarks.table import Row, at_least, at_most
from persistence.drain import BATCH
from persistence.flusher import Flusher
from persistence.lines import line_of
from persistence.repository import Repository
from persistence.rows import PresenceRow
from server.live.dirty import StoreDirtySessions
from server.live.store import Store
from server.live.verbs import Connect, Renewal, Update

ROWS = 40_000
SESSIONS = 20_000
BACKLOG = 200_000
HEARTBEATS = 1000
ROUNDS = 5
SAMPLE_S = 0.02
# What the system before this one did for each heartbeat, at its best: prepared, on one warm connection.
ONE_HEARTBEAT = """
insert into presence (session_id, user_id, language_code, current_page, last_seen, is_in_interview, status)
values ($1, $2, $3, $4, now(), $5, $6)
on conflict (session_id) do update
set current_page = excluded.current_page, last_seen = excluded.last_seen,
    is_in_interview = excluded.is_in_interview, status = excluded.status
"""
# Sessions like the one there is, so many.
MANY_MORE = """
local fields = redis.call('HGETALL', ARGV[1] .. ARGV[2])
local rest = string.match(redis.call('HGET', KEYS[3], ARGV[2]), '\\31[^\\31]*(\\31.*)')
local at
for i = 1, #fields, 2 do
  at = fields[i] == 'session_id' and i + 1 or at
end
for number = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  fields[at] = string.format('waiting-%09d', number)
  redis.call('HSET', ARGV[1] .. fields[at], unpack(fields))
  redis.call('ZADD', KEYS[2], number, fields[at])
  redis.call('HSET', KEYS[3], fields[at], number .. '\\31' .. fields[at] .. rest)
end
"""
MORE_PER_CALL = 5000


async def measure(ground: Ground) -> list[Row]:
    """Rows per second: new ones, newer states of known ones, and the whole way from Redis with its confirmation."""
    async with ground.table() as pool:
        repository = Repository(pool)
        rows = [_row(number) for number in range(ground.sized(ROWS))]
        newer = [row._replace(version=2, last_seen_ms=row.last_seen_ms + 1) for row in rows]
        inserted = await _write(repository, rows)
        updated = await _write(repository, newer)
    # Before and after, since a machine is not as fast at any time.
    old_ones = [await _heartbeats(ground) for _ in range(ROUNDS)]
    whole = await _whole_flush(ground)
    old = median(old_ones + [await _heartbeats(ground) for _ in range(ROUNDS)])
    return [
        Row("the old way: an upsert for each heartbeat", old, "/s"),
        Row(f"new rows, {BATCH:,} a batch", inserted, "/s", at_least(50_000)),
        Row(f"newer rows, {BATCH:,} a batch", updated, "/s", at_least(50_000)),
        *(_speed(kind, cost, old) for kind, cost in whole.items()),
        *(row for kind, cost in whole.items() for row in _cpu(kind, cost)),
    ]


@dataclass(slots=True, frozen=True)
class _Cost:
    """Of one row of a flush, in µs: of the clock on the wall, and of CPU by who used it."""

    wall: float
    redis: float
    postgres: float
    node: float


def _speed(kind: str, cost: _Cost, old: float) -> Row:
    """Rows per second from Redis to Postgres and back; the floor is the old way's."""
    return Row(
        f"whole flush of {kind} sessions: Redis, Postgres, Redis",
        1e6 / cost.wall,
        "/s",
        at_least(50_000),
        old,
    )


def _cpu(kind: str, cost: _Cost) -> list[Row]:
    parts = {"Redis": cost.redis, "Postgres": cost.postgres, "the node": cost.node}
    return [Row(f"flush of a {kind} session, in {part}", used, "µs CPU") for part, used in parts.items()]


async def _heartbeats(ground: Ground) -> float:
    number = ground.sized(HEARTBEATS)
    async with ground.table() as pool, pool.acquire() as connection:
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
    lines = [line_of(row) for row in rows]
    began = time.perf_counter()
    for start in range(0, len(lines), BATCH):
        await repository.write(lines[start : start + BATCH])
    return len(rows) / (time.perf_counter() - began)


async def _whole_flush(ground: Ground) -> dict[str, _Cost]:
    """New sessions, then the same ones each with a change, then as they are most of the time: present, and no more."""
    number = ground.sized(SESSIONS)
    async with ground.table() as pool, ground.store() as store:
        connected = await _come(store, number)
        flush = _Flush(ground, store, pool, number)
        new = await flush.measured()
        if await pool.fetchval("select count(*) from presence") != number:
            raise RuntimeError("not everybody was written")
        changed, present = [], []
        for _ in range(ROUNDS):
            await _renew(store, connected)
            await flush.change()
            changed.append(await flush.measured())
        for _ in range(ROUNDS):
            await _renew(store, connected)
            began = await pool.fetchval("select min(last_seen) from presence")
            present.append(await flush.measured())
            if await pool.fetchval("select count(*) from presence where last_seen <= $1", began):
                raise RuntimeError("not everybody was seen again")
    return {"new": new, "changed": _typical(changed), "present": _typical(present)}


async def _come(store: Store, number: int) -> list[tuple[str, str]]:
    """So many connected sessions, as renewals name them."""
    opened = await open_sessions(store, number)
    items = [Connect(session_id=one.session_id, node="benchmark") for one in opened]
    connected = await each(items, lambda item: store.connect(POOL, item), STORE_CALLS_AT_ONCE)
    return [(one.record.session_id, one.connection_id) for one in connected]


async def _renew(store: Store, connected: list[tuple[str, str]]) -> None:
    for start in range(0, len(connected), STORE_CALLS_AT_ONCE):
        outcomes = await store.renew(POOL, connected[start : start + STORE_CALLS_AT_ONCE])
        if set(outcomes) != {Renewal.RENEWED}:
            raise RuntimeError("a renewal was refused")


def _typical(costs: list[_Cost]) -> _Cost:
    """The median of each."""
    return _Cost(*(median(getattr(cost, part.name) for cost in costs) for part in fields(_Cost)))


class _Flush:
    """Flushes so many sessions and says what it cost."""

    def __init__(self, ground: Ground, store: Store, pool: asyncpg.Pool[asyncpg.Record], number: int) -> None:
        self._ground = ground
        self._store = store
        self._pool = pool
        self._number = number
        self._page = 0
        self._flusher = Flusher(StoreDirtySessions(store), Repository(pool), holder="benchmark")

    async def change(self) -> None:
        """Everybody turns a page."""
        self._page += 1
        sessions = await self._store.scripts.command("ZRANGE", self._store.keys(POOL).sessions, 0, -1)
        changes = [
            Update(session_id=session_id.decode(), page=f"page-{self._page}") for session_id in sessions
        ]
        await each(changes, lambda item: self._store.update(POOL, item), STORE_CALLS_AT_ONCE)

    async def measured(self) -> _Cost:
        before = await self._used_us()
        wall = await _flush(self._flusher) * 1e6
        used = [after - ago for after, ago in zip(await self._used_us(), before, strict=True)]
        return _Cost(*(each / self._number for each in (wall, *used)))

    async def _used_us(self) -> tuple[float, float, float]:
        redis = await self._ground.redis_cpu_us(self._store)
        server = psutil.Process(await self._pool.fetchval("select pg_backend_pid()")).parent()
        if server is None:
            raise RuntimeError("Postgres ended")
        ended = server.cpu_times()
        running = [process.cpu_times() for process in (server, *server.children())]
        postgres = sum(
            (each.user + each.system for each in running), ended.children_user + ended.children_system
        )
        return redis, postgres * 1e6, time.process_time() * 1e6


async def _flush(flusher: Flusher) -> float:
    """How many seconds a flush of everything takes."""
    began = time.perf_counter()
    if not await flusher.flush_once() or flusher.status.backlog:
        raise RuntimeError("the flush failed")
    return time.perf_counter() - began


async def measure_backlog(ground: Ground) -> list[Row]:
    """By how much this process grows while it flushes a long backlog, once it is warm."""
    number = ground.sized(BACKLOG)
    async with ground.table() as pool, ground.store() as store:
        flusher = Flusher(StoreDirtySessions(store), Repository(pool), holder="benchmark")
        await _wait(store, 0, ground.sized(SESSIONS))
        await _flush(flusher)
        await _wait(store, ground.sized(SESSIONS), number)
        async with _growth() as grown:
            await _flush(flusher)
    return [Row(f"memory more while {number:,} sessions wait", max(grown) / 2**20, "MB", at_most(30))]


async def _wait(store: Store, first: int, last: int) -> None:
    """Sessions from number `first` to `last` wait to be flushed."""
    keys = store.keys(POOL)
    (opened,) = await open_sessions(store, 1)
    for start in range(first, last, MORE_PER_CALL):
        end = min(start + MORE_PER_CALL, last) - 1
        arguments = (keys.session(""), opened.record.session_id, start, end)
        await store.scripts.command("EVAL", MANY_MORE, 3, keys.sessions, keys.dirty, keys.rows, *arguments)


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
