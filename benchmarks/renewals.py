"""What it costs to keep sessions present, since every node does it for each of them every 5 s."""

from __future__ import annotations

import time

from benchmarks.ground import POOL, Ground
from benchmarks.load import STORE_CALLS_AT_ONCE, each, open_sessions
from benchmarks.table import Row, at_most
from server.live.verbs import Connect, Renewal

SESSIONS = 5000
BATCH = 500
ROUNDS = 20


async def measure(ground: Ground) -> list[Row]:
    """CPU µs per renewal, in Redis and in the node that asks."""
    async with ground.store() as store:
        opened = await open_sessions(store, ground.sized(SESSIONS))
        items = [Connect(session_id=one.session_id, node="benchmark") for one in opened]
        connected = await each(items, lambda item: store.connect(POOL, item), STORE_CALLS_AT_ONCE)
        held = [(one.record.session_id, one.connection_id) for one in connected]
        batches = [held[start : start + BATCH] for start in range(0, len(held), BATCH)]
        redis, node = await ground.redis_cpu_us(store), time.process_time()
        for _ in range(ROUNDS):
            for batch in batches:
                outcomes = await store.renew(POOL, batch)
                if set(outcomes) != {Renewal.RENEWED}:
                    raise RuntimeError("a renewal was refused")
        node_us = (time.process_time() - node) * 1e6
        redis_us = await ground.redis_cpu_us(store) - redis
    renewals = ROUNDS * len(held)
    return [
        Row("renewal, in Redis", redis_us / renewals, "µs CPU", at_most(5)),
        Row("renewal, in the node", node_us / renewals, "µs CPU"),
    ]
