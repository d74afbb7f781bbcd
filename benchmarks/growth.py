"""Whether a claim costs the same however many there are, since a study may grow and Redis has one core."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.ground import POOL, Ground
from benchmarks.load import STORE_CALLS_AT_ONCE, each, open_sessions
from benchmarks.table import Row
from server.domain.pool import PoolChanges
from server.live.store import Store
from server.live.verbs import Claim, Opened, Release

FEW_SESSIONS, MANY_SESSIONS = 100, 100_000
FEW_WAITING, MANY_WAITING = 10, 10_000
CLAIMANTS = 50
PARTS = 9
ROUNDS = 20
# The stream of events is full from then on, and trimmed by each new one: in a small pool too.
WARM_UP_ROUNDS = 100


async def measure(ground: Ground) -> list[Row]:
    """CPU µs in Redis for a claim that joins the line and leaves it, in a small and a large pool."""
    async with ground.store(PoolChanges(limit=0, max_line=1_000_000)) as store:
        claimants = await open_sessions(store, CLAIMANTS)
        crowd = await open_sessions(store, FEW_SESSIONS - CLAIMANTS)
        await _queue_up(store, crowd[:FEW_WAITING])
        small = await _claim_us(ground, store, claimants)
        crowd += await open_sessions(store, ground.sized(MANY_SESSIONS) - FEW_SESSIONS)
        many_sessions = await _claim_us(ground, store, claimants)
        await _queue_up(store, crowd[FEW_WAITING : ground.sized(MANY_WAITING)])
        many_waiting = await _claim_us(ground, store, claimants)
    return [
        Row(
            "claim and leave, of 100,000 sessions (floor: of 100)", many_sessions, "µs Redis CPU", None, small
        ),
        Row("claim and leave, 10,000 waiting (floor: 10)", many_waiting, "µs Redis CPU", None, many_sessions),
    ]


async def _queue_up(store: Store, crowd: Sequence[Opened]) -> None:
    items = [Claim(session_id=one.session_id) for one in crowd]
    await each(items, lambda item: store.claim(POOL, item), STORE_CALLS_AT_ONCE)


async def _claim_us(ground: Ground, store: Store, claimants: Sequence[Opened]) -> float:
    await _rounds(store, claimants, ground.sized(WARM_UP_ROUNDS))
    rounds = max(1, round(ROUNDS * ground.scale))
    parts = []
    for _ in range(PARTS):
        before = await ground.redis_cpu_us(store)
        await _rounds(store, claimants, rounds)
        parts.append((await ground.redis_cpu_us(store) - before) / (rounds * len(claimants)))
    return median(parts)


async def _rounds(store: Store, claimants: Sequence[Opened], times: int) -> None:
    releases = [Release(session_id=one.session_id) for one in claimants]
    for _ in range(times):
        await _queue_up(store, claimants)
        await each(releases, lambda item: store.release(POOL, item), STORE_CALLS_AT_ONCE)
