"""Redis is wiped again and again in the middle of the flush, at random: the table ends as what Redis knows, exactly."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed

from tests import ledger, witness
from tests.conftest import Serve, ServedNode
from tests.node_api import NodeApi
from tests.visitor import Visitor

VISITORS, STRANGERS, WIPES = 24, 5, 3
ABANDON_AFTER_S = 1.0
WITHIN_S = 30.0


class People:
    """Who is connected, and what each said last."""

    def __init__(self, visitors: list[Visitor]) -> None:
        self.visitors = visitors
        self.pages: dict[str, str] = {}

    async def live(self, seed: int) -> None:
        """Turn pages, enter and leave, for ever."""
        rng = random.Random(seed)
        while True:
            visitor = rng.choice(self.visitors)
            with suppress(ConnectionClosed):
                await self._do_something(visitor, rng)
            await asyncio.sleep(rng.uniform(0, 0.02))

    async def _do_something(self, visitor: Visitor, rng: random.Random) -> None:
        kind = rng.choice(["page", "page", "enter", "leave"])
        if kind == "page":
            await self.turn(visitor, f"page-{rng.randint(1, 10**9)}")
        else:
            await visitor.say(kind)

    async def turn(self, visitor: Visitor, page: str) -> None:
        """Say which page is shown now."""
        await visitor.say("page", page=page)
        self.pages[visitor.session_id] = page


@pytest.fixture
async def nodes(serve: Serve, redis_url: str, database_url: str) -> list[ServedNode]:
    settings: dict[str, Any] = {
        "recovery_s": 0.5,
        "flush_s": 0.2,
        "offer_s": 0,
        "abandon_after_s": ABANDON_AFTER_S,
    }
    return [await serve(redis_url=redis_url, database_url=database_url, **settings) for _ in range(2)]


@pytest.fixture
async def apis(nodes: list[ServedNode]) -> AsyncIterator[list[NodeApi]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(NodeApi(node.url)) for node in nodes]


async def until_ready(apis: list[NodeApi]) -> None:
    async with asyncio.timeout(WITHIN_S):
        for api in apis:
            while (await api.ready())[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_however_often_redis_is_wiped_the_table_ends_as_the_truth(
    nodes: list[ServedNode], apis: list[NodeApi], redis_url: str, database_url: str
) -> None:
    await wiped_for(0, 7, nodes=nodes, apis=apis, redis_url=redis_url, database_url=database_url)


async def wiped_for(
    seconds: float,
    seed: int,
    *,
    nodes: list[ServedNode],
    apis: list[NodeApi],
    redis_url: str,
    database_url: str,
) -> None:
    """A few wipes, and as many as there is time for."""
    connection = await asyncpg.connect(database_url)
    await until_ready(apis)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(witness.client(redis_url))
        finished = [(await apis[0].open(f"finished-{n}"))["session_id"] for n in range(STRANGERS)]
        for session_id in finished:
            await apis[0].complete(session_id)
        strangers = [(await apis[0].open(f"stranger-{n}"))["session_id"] for n in range(STRANGERS)]
        sockets = [node.ws_url for node in nodes]
        people = People(
            [
                await stack.enter_async_context(Visitor(sockets, await apis[n % 2].open(f"u{n}"), first=n))
                for n in range(VISITORS)
            ]
        )
        await ledger.until_written(redis)
        await storm(people, apis, redis, seconds, seed)
        for visitor in people.visitors:
            await people.turn(visitor, f"last-{visitor.session_id}")
        await until_true(connection, redis, nodes)
        table = await ledger.rows(connection)
        for visitor in people.visitors:
            row = table[visitor.session_id]
            assert (row["status"], row["current_page"]) == ("active", people.pages[visitor.session_id])
            assert row["is_in_interview"] == (visitor.state == "granted")
        assert {table[session_id]["status"] for session_id in finished} == {"completed"}
        assert {table[session_id]["status"] for session_id in strangers} == {"abandoned"}
    await connection.close()


async def storm(people: People, apis: list[NodeApi], redis: object, seconds: float, seed: int) -> None:
    """Traffic, and wipes in its midst; each time until all are ready again."""
    rng, until, wipes = random.Random(seed), time.monotonic() + seconds, 0
    living = asyncio.create_task(people.live(seed))
    while wipes < WIPES or time.monotonic() < until:
        await asyncio.sleep(rng.uniform(0.1, 1.0))
        await redis.flushall()  # type: ignore[attr-defined]
        wipes += 1
        await until_ready(apis)
        assert not living.done()
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    print(f"\n{wipes} wipes")


async def until_true(connection: ledger.Connection, redis: object, nodes: list[ServedNode]) -> None:
    """Wait for a moment at which the table and Redis are the same, whoever is touched; the lost are swept by then."""
    wrong: list[str] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            while wrong := await ledger.differences(connection, redis):
                for node in nodes:
                    assert node.node.flusher is not None
                    node.node.flusher.sweep_soon()
                await asyncio.sleep(0.1)
    except TimeoutError:
        assert wrong == []
