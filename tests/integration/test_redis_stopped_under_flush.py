"""Redis stops in the middle of the flush, between take and ack, and comes back with its data: the table is true."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from persistence.port import ALL_WRITTEN, FROM_THE_START, Taken, Touched, Written
from server.embedded import EmbeddedRedis
from server.live.dirty import StoreDirtySessions
from server.live.store import Store
from tests import ledger, witness
from tests.conftest import Serve, ServedNode
from tests.e2e.test_outage import VISITORS, visited
from tests.node_api import NodeApi
from tests.traffic import Traffic

WITHIN_S = 30.0
AFTER_TOUCH, BEFORE_ACK_TOUCH = "touched, not written", "moved, not confirmed"
AFTER_TAKE, BEFORE_ACK, AFTER_ACK = "taken, not written", "written, not confirmed", "confirmed"
MOMENTS = (AFTER_TOUCH, BEFORE_ACK_TOUCH, AFTER_TAKE, BEFORE_ACK, AFTER_ACK)
Deed = Callable[[], Awaitable[None]]


class Strike:
    """What happens to Redis the next time that a flush gets as far as it says."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self._moment = ""
        self._deed: Deed | None = None
        self._happening: asyncio.Task[None] | None = None

    def prepare(self, moment: str, deed: Deed) -> None:
        """Strike once, at that moment."""
        self.done.clear()
        self._moment, self._deed = moment, deed

    async def if_it_is(self, moment: str, concerned: object) -> None:
        """Strike if it is the moment, and any session is concerned."""
        if concerned and moment == self._moment and (deed := self._deed) is not None:
            self._deed = None
            # One of two batches at once may be given up with the other; what has begun to happen happens.
            self._happening = asyncio.create_task(self._happen(deed))
            await asyncio.shield(self._happening)

    async def _happen(self, deed: Deed) -> None:
        await deed()
        self.done.set()


class Exposed(StoreDirtySessions):
    """The flush's way to the real Redis, which can be struck at each moment that matters."""

    def __init__(self, store: Store, strike: Strike) -> None:
        super().__init__(store)
        self._strike = strike

    async def touch(self, pool: str, limit: int, cursor: int = FROM_THE_START) -> Touched:
        touched = await super().touch(pool, limit, cursor)
        await self._strike.if_it_is(AFTER_TOUCH, touched.session_ids)
        return touched

    async def ack_touch(self, pool: str, touched: Touched, missed: Sequence[str]) -> None:
        await self._strike.if_it_is(BEFORE_ACK_TOUCH, touched.session_ids)
        await super().ack_touch(pool, touched, missed)

    async def take(self, pool: str, limit: int, skip: int = 0) -> Taken:
        taken = await super().take(pool, limit, skip)
        await self._strike.if_it_is(AFTER_TAKE, taken.lines)
        return taken

    async def ack(self, pool: str, taken: Taken, written: Written = ALL_WRITTEN) -> None:
        await self._strike.if_it_is(BEFORE_ACK, taken.lines)
        await super().ack(pool, taken, written)
        await self._strike.if_it_is(AFTER_ACK, taken.lines)


class Faults:
    """What can happen to a Redis that keeps its data, and how it comes back."""

    def __init__(self, redis: EmbeddedRedis, apis: list[NodeApi]) -> None:
        self._redis = redis
        self._apis = apis

    async def kill(self) -> None:
        await asyncio.to_thread(self._redis.kill)

    async def stop(self) -> None:
        await asyncio.to_thread(self._redis.stop)

    async def freeze(self) -> None:
        """It is told what it is told, and does it when it thaws."""
        os.kill(self._redis.pid, signal.SIGSTOP)

    async def mend(self, deed: Deed) -> None:
        """Let it come back, not before the nodes have noticed."""
        await self._until_ready(all_are=False)
        if deed == self.freeze:
            os.kill(self._redis.pid, signal.SIGCONT)
        else:
            await asyncio.to_thread(self._redis.restart)
        await self._until_ready(all_are=True)

    async def _until_ready(self, *, all_are: bool) -> None:
        async with asyncio.timeout(WITHIN_S):
            for api in self._apis:
                while ((await api.ready())[0] == 200) != all_are:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch) -> Strike:
    strike = Strike()
    monkeypatch.setattr("server.app.StoreDirtySessions", lambda store: Exposed(store, strike))
    return strike


@pytest.fixture
async def nodes(
    strike: Strike, serve: Serve, own_redis: EmbeddedRedis, database_url: str
) -> list[ServedNode]:
    """Two nodes that flush often."""
    settings: dict[str, Any] = {"redis_url": own_redis.url, "flush_s": 0.2, "offer_s": 0}
    return [await serve(**settings, database_url=database_url) for _ in range(2)]


@pytest.fixture
async def apis(nodes: list[ServedNode]) -> AsyncIterator[list[NodeApi]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(NodeApi(node.url)) for node in nodes]


@dataclass(frozen=True, slots=True)
class Stage:
    """Two nodes on a Redis of their own and a Postgres, and what is going to happen."""

    redis: EmbeddedRedis
    database_url: str
    nodes: list[ServedNode]
    apis: list[NodeApi]
    strike: Strike


@pytest.fixture
def stage(
    own_redis: EmbeddedRedis, database_url: str, nodes: list[ServedNode], apis: list[NodeApi], strike: Strike
) -> Stage:
    return Stage(own_redis, database_url, nodes, apis, strike)


@pytest.mark.parametrize(
    ("fault", "moments"),
    [
        ("kill", MOMENTS),
        ("freeze", [BEFORE_ACK]),
        pytest.param("stop", MOMENTS, marks=pytest.mark.soak),
        pytest.param("freeze", MOMENTS * 3, marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
async def test_the_table_ends_as_the_truth(stage: Stage, fault: str, moments: Sequence[str]) -> None:
    apis, strike = stage.apis, stage.strike
    connection = await asyncpg.connect(stage.database_url)
    await connection.execute(ledger.AUDIT)
    faults, traffic = Faults(stage.redis, apis), Traffic(apis, seed=17)
    deed: Deed = getattr(faults, fault)
    async with visited([node.ws_url for node in stage.nodes], apis[0]), traffic.flowing():
        for moment in moments:
            await traffic.until_more(40)
            strike.prepare(moment, deed)
            async with asyncio.timeout(WITHIN_S):
                await strike.done.wait()
            await faults.mend(deed)
        await traffic.until_more(40)
    async with witness.client(stage.redis.url) as redis:
        await ledger.until_written(redis)
        await until_equal(connection, redis)
    visitors = {f"visitor-{n}": {"status": "active"} for n in range(VISITORS)}
    await ledger.assert_ends(connection, {**traffic.expected, **visitors})
    writes = await ledger.assert_only_forward(connection)
    print(f"\n{len(traffic.expected)} sessions, {writes} writes, {traffic.retries} requests asked again")
    await connection.close()


async def until_equal(connection: ledger.Connection, redis: object) -> None:
    """Wait for a moment between two touches at which the table says what Redis says."""
    wrong: list[str] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            while wrong := await ledger.differences(connection, redis):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        assert wrong == []
