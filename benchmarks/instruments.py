"""What it costs to count and time: with instruments and without, in turns, so that a busy machine is fair to both."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace

from benchmarks.ground import POOL, Ground
from benchmarks.load import STORE_CALLS_AT_ONCE, each, open_sessions
from benchmarks.table import Row, at_most
from server.domain.messages import Heartbeat
from server.domain.pool import PoolChanges
from server.live.store import Store
from server.live.verbs import Claim, Connect, Opened
from server.measure.exposition import Shared
from server.measure.measured import Measured
from server.node.incoming import type_of

SESSIONS = 2048
RENEWED_AT_ONCE = 256
TURNS = 20
TIMES = 200_000
# How much more CPU one of them may cost for being measured, in µs.
GOAL_US = 1.0


async def measure(ground: Ground) -> list[Row]:
    """CPU µs that the instruments add to a heartbeat, a renewal and a claim, and to each second of a worker."""
    heartbeat, message = _of_a_message(ground.sized(TIMES))
    async with ground.store(PoolChanges(limit=100_000, offer_s=0)) as store:
        opened = await open_sessions(store, ground.sized(SESSIONS))
        renewal = await _of_a_renewal(store, opened)
        claim = await _of_a_claim(store, opened)
    return [
        Row("heartbeat, its instruments", heartbeat, "µs CPU", at_most(GOAL_US)),
        Row("another message, its instruments", message, "µs CPU", at_most(GOAL_US)),
        Row("renewal, its instruments", max(0.0, renewal), "µs CPU", at_most(GOAL_US)),
        Row("claim, its instruments", max(0.0, claim), "µs CPU", at_most(GOAL_US)),
        Row("a worker's numbers for the others, each second", _of_sharing(), "µs CPU"),
    ]


def _of_a_message(times: int) -> tuple[float, float]:
    """What stands in `Connection` for a heartbeat without news, and for any other message."""
    node = SimpleNamespace(measured=Measured())
    connection, said = SimpleNamespace(_node=node), Heartbeat(seq=1)

    def nothing() -> None:
        for _ in range(times):
            pass

    def heartbeat() -> None:
        for _ in range(times):
            connection._node.measured.connections.heartbeats.value += 1  # noqa: SLF001 - as it stands there

    def message() -> None:
        for _ in range(times):
            connection._node.measured.connections.messages.at(type_of(said)).add()  # noqa: SLF001

    loop, *costs = (min(_cpu_us(run) for _ in range(5)) / times for run in (nothing, heartbeat, message))
    return max(0.0, costs[0] - loop), max(0.0, costs[1] - loop)


async def _of_a_renewal(store: Store, opened: list[Opened]) -> float:
    items = [Connect(session_id=one.session_id, node="benchmark") for one in opened]
    connected = await each(items, lambda item: store.connect(POOL, item), STORE_CALLS_AT_ONCE)
    held = [(one.record.session_id, one.connection_id) for one in connected]
    batches = [held[start : start + RENEWED_AT_ONCE] for start in range(0, len(held), RENEWED_AT_ONCE)]

    async def renew(measured: Measured | None) -> None:
        for batch in batches:
            outcomes = await store.renew(POOL, batch)
            if measured is not None:
                measured.connections.renewed(len(outcomes), 0)

    return await _difference(store, renew, len(held))


async def _of_a_claim(store: Store, opened: list[Opened]) -> float:
    items = [Claim(session_id=one.session_id) for one in opened]

    async def claim(measured: Measured | None) -> None:
        async def one(item: Claim) -> None:
            began = time.perf_counter()
            admission = await store.claim(POOL, item)
            if measured is not None:
                measured.admissions.claimed(admission.state.value, began)

        await each(items, one, STORE_CALLS_AT_ONCE)

    return await _difference(store, claim, len(items))


async def _difference(store: Store, run: Callable[[Measured | None], Awaitable[None]], number: int) -> float:
    """By how much a turn with instruments costs more than one without, divided by `number`."""
    measured, more = Measured(), []
    for _ in range(TURNS):
        store.scripts.observer = None
        bare = await _cpu_us_of(run(None))
        store.scripts.observer = measured.dependencies
        more.append(await _cpu_us_of(run(measured)) - bare)
    store.scripts.observer = None
    return median(more) / number


def _of_sharing() -> float:
    """Twice a second every number that has changed: here all of them."""
    measured = Measured()
    with tempfile.TemporaryDirectory() as folder:
        shared = Shared(Path(folder), "0")
        shared.write(measured)

        def change_and_write() -> None:
            for instrument in (measured.connections.messages, measured.connections.renewals):
                for cell in instrument.cells.values():
                    cell.add()
            for histogram in (measured.admissions.claims, measured.dependencies.redis_calls):
                for buckets in histogram.cells.values():
                    buckets.observe(0.003)
            shared.write(measured)

        cost = min(_cpu_us(change_and_write) for _ in range(20))
        shared.close()
    return 2 * cost


def _cpu_us(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return (time.process_time() - began) * 1e6


async def _cpu_us_of(work: Awaitable[None]) -> float:
    began = time.process_time()
    await work
    return (time.process_time() - began) * 1e6
