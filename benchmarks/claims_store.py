"""Claims straight through the store: what one Redis can decide, without HTTP in the way."""

from __future__ import annotations

import time

from benchmarks.ground import POOL, Ground
from benchmarks.load import STORE_CALLS_AT_ONCE, each, open_sessions
from benchmarks.table import Row
from server.domain.pool import PoolChanges
from server.live.verbs import Claim

CLAIMS = 10_000


async def measure(ground: Ground) -> list[Row]:
    """Claims per second of one process with hundreds under way, and CPU µs per claim in Redis and in the process."""
    number = ground.sized(CLAIMS)
    async with ground.store(PoolChanges(limit=number // 2, max_line=1_000_000, offer_s=0)) as store:
        items = [Claim(session_id=one.session_id) for one in await open_sessions(store, number)]
        redis, node, began = await ground.redis_cpu_us(store), time.process_time(), time.perf_counter()
        await each(items, lambda item: store.claim(POOL, item), STORE_CALLS_AT_ONCE)
        took, node_us = time.perf_counter() - began, (time.process_time() - node) * 1e6
        redis_us = await ground.redis_cpu_us(store) - redis
    return [
        Row("claims through the store", number / took, "/s"),
        Row("claim, in Redis", redis_us / number, "µs CPU"),
        Row("claim, in the node", node_us / number, "µs CPU"),
    ]
