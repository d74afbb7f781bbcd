"""A store on each kind of Redis, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from server.domain.interview import Admission
from server.domain.pool import PoolChanges, PoolConfig
from server.domain.session import EndReason
from server.live.store import NodeTimings, Store
from server.live.verbs import Claim, Connect, Connected, Drop, Finish, Look, Open, Opened, Release, Seen

CLOCK_KEY = "test:clock"
# Takes the place of clock.lua.
TEST_CLOCK = f"""
local function read_clock()
  return tonumber(redis.call('GET', '{CLOCK_KEY}'))
end
"""
START_MS = 1_800_000_000_000
POOL = "main"


class Bench:
    """A store under test with its Redis and its clock; the verbs in their shortest form."""

    def __init__(self, redis: Redis, store: Store) -> None:
        self.redis: Any = redis
        self.store = store
        self.wall_ms = START_MS

    async def set_clock(self, wall_ms: int) -> None:
        self.wall_ms = wall_ms
        await self.redis.set(CLOCK_KEY, wall_ms)

    async def pass_time(self, seconds: float, *, renewing: list[Connected] = ()) -> None:  # type: ignore[assignment]
        """Let time pass as it does in life: a tick each second, a renewal of those connections every five."""
        for second in range(1, round(seconds) + 1):
            await self.set_clock(self.wall_ms + 1000)
            if second % 5 == 0 and renewing:
                await self.store.renew(POOL, [(c.record.session_id, c.connection_id) for c in renewing])
            await self.store.tick(POOL)

    async def configure(self, **changes: object) -> PoolConfig:
        return await self.store.configure(POOL, PoolChanges(**changes), actor="test")  # type: ignore[arg-type]

    async def open(self, name: str, **fields: object) -> Opened:
        return await self.store.open(POOL, Open(session_id=f"s-{name}", user_id=name, **fields))  # type: ignore[arg-type]

    async def connect(self, name: str, **fields: object) -> Connected:
        """Open if need be, and connect a WebSocket."""
        await self.open(name, given=True)
        return await self.hello(name, **fields)

    async def hello(self, name: str, **fields: object) -> Connected:
        return await self.store.connect(POOL, Connect(session_id=f"s-{name}", node="n1", **fields))  # type: ignore[arg-type]

    async def drop(self, connected: Connected, cause: str = "closed") -> bool:
        item = Drop(
            session_id=connected.record.session_id, connection_id=connected.connection_id, cause=cause
        )
        return await self.store.drop(POOL, item)

    async def claim(self, name: str, **fields: object) -> Admission:
        return await self.store.claim(POOL, Claim(session_id=f"s-{name}", **fields))  # type: ignore[arg-type]

    async def release(self, name: str, fence: int | None = None) -> Admission:
        return await self.store.release(POOL, Release(session_id=f"s-{name}", fence=fence))

    async def finish(
        self, name: str, reason: EndReason = EndReason.COMPLETED, fence: int | None = None
    ) -> Admission:
        return await self.store.finish(POOL, Finish(session_id=f"s-{name}", reason=reason, fence=fence))

    async def look(self, name: str, *, sign_of_life: bool = False) -> Seen:
        return await self.store.look(POOL, Look(session_id=f"s-{name}", sign_of_life=sign_of_life))

    async def events(self) -> list[dict[str, str]]:
        entries = await self.redis.xrange(f"presence:{{{POOL}}}:events")
        return [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in entries]

    async def event_types(self) -> list[str]:
        return [event["type"] for event in await self.events()]


async def make_bench(url: str, *, history: bool = True, **defaults: float) -> Bench:
    defaults = {"offer_s": 0, "recovery_s": 0, **defaults}
    redis = Redis.from_url(url)
    timings = NodeTimings(alive_ttl_s=15, renew_s=5, tombstone_s=43_200, history=history)
    store = Store(
        redis, node="n1", defaults=msgspec.convert(defaults, PoolConfig), timings=timings, clock=TEST_CLOCK
    )
    bench = Bench(redis, store)
    await bench.set_clock(START_MS)
    await bench.configure()
    return bench


@pytest.fixture
async def bench(each_redis_url: str) -> AsyncIterator[Bench]:
    made = await make_bench(each_redis_url)
    yield made
    await made.redis.aclose()
