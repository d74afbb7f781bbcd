"""Two server processes on one Redis: the limit holds, the line is fair, and a node may die or stop."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import pairwise

import asyncpg
import pytest

from tests import ledger, witness
from tests.conftest import SpawnedServer, SpawnServer
from tests.node_api import Ask, Json, NodeApi, at_once
from tests.visitor import Visitor

LIMIT, CROWD = 7, 200
GRANT_OUTRIGHT = {"PRESENCE_OFFER_S": "0"}
SHORT_GRACES = {"grace_s": 0.2, "permit_grace_min_s": 0.2, "permit_grace_max_s": 5}
NOT_ONLINE_WITHIN_S = 16.0


class Cluster:
    """Two nodes, and their visitors."""

    def __init__(self, servers: list[SpawnedServer], apis: list[NodeApi], stack: AsyncExitStack) -> None:
        self.servers = servers
        self.apis = apis
        self._stack = stack

    @property
    def sockets(self) -> list[str]:
        return [server.ws_url for server in self.servers]

    async def visitors(self, names: list[str]) -> list[Visitor]:
        """Open sessions and connect them, by turns at each node."""
        made = [
            Visitor(self.sockets, await self.apis[turn % 2].open(name), first=turn)
            for turn, name in enumerate(names)
        ]
        return [await self._stack.enter_async_context(visitor) for visitor in made]

    async def visitors_at(self, node: int, names: list[str]) -> list[Visitor]:
        """Open sessions and connect them, all at one node."""
        made = [Visitor(self.sockets, await self.apis[node].open(name), first=node) for name in names]
        return [await self._stack.enter_async_context(visitor) for visitor in made]


StartCluster = Callable[..., Awaitable[Cluster]]


@pytest.fixture
async def start_cluster(spawn_server: SpawnServer) -> AsyncIterator[StartCluster]:
    """Start two nodes with these settings."""
    async with AsyncExitStack() as stack:

        async def start(**environment: str) -> Cluster:
            servers = [spawn_server(**GRANT_OUTRIGHT, **environment) for _ in range(2)]
            apis = [await stack.enter_async_context(NodeApi(server.url)) for server in servers]
            return Cluster(servers, apis, stack)

        yield start


async def enter_one_after_the_other(visitors: list[Visitor]) -> None:
    for visitor in visitors:
        await visitor.say("enter")
        await visitor.until_state("granted", "waiting")


def positions(interviews: list[Json]) -> list[int]:
    return sorted(one["position"] for one in interviews if one["state"] == "waiting")


# The ways in which a holder goes, each a few times in each run.


async def is_kicked(api: NodeApi, visitor: Visitor) -> None:
    assert (await api.kick(visitor.session_id)).status_code == 200


async def completes_over_http(api: NodeApi, visitor: Visitor) -> None:
    assert (await api.complete(visitor.session_id, by=visitor.token)).status_code == 200


async def completes_in_the_page(api: NodeApi, visitor: Visitor) -> None:
    await visitor.say("complete")


async def leaves(api: NodeApi, visitor: Visitor) -> None:
    assert (await api.release(visitor.session_id, by=visitor.token)).status_code == 200


async def vanishes(api: NodeApi, visitor: Visitor) -> None:
    await visitor.vanish()


WAYS_TO_GO = (is_kicked, completes_over_http, completes_in_the_page, leaves, vanishes)


async def goings(
    cluster: Cluster, visitors: list[Visitor], redis_url: str, *, rounds: int, seed: int
) -> tuple[witness.Replayed, witness.Watch]:
    """Everybody claims at once; then half of the holders go, round after round, each in a random way."""
    rng = random.Random(seed)
    by_id = {visitor.session_id: visitor for visitor in visitors}
    async with witness.client(redis_url) as redis:
        async with witness.watching(redis_url, LIMIT) as watch:
            await asyncio.gather(*(visitor.say("enter") for visitor in visitors))
            for _ in range(rounds):
                inside = sorted(await all_inside(redis, by_id))
                for gone in rng.sample(inside, LIMIT // 2 + rng.randint(0, 1)):
                    await rng.choice(WAYS_TO_GO)(rng.choice(cluster.apis), by_id.pop(gone))
        assert not watch.broken[:5]
        story = witness.replay(await witness.events(redis))
        assert set(story.holders) == await witness.holders(redis)
        return story, watch


async def all_inside(redis: object, by_id: dict[str, Visitor]) -> set[str]:
    """Wait until every place is somebody's who is here, and each of them knows."""
    async with asyncio.timeout(10):
        while True:
            inside = await witness.holders(redis)
            if len(inside) == LIMIT and inside <= by_id.keys():
                for one in inside:
                    await by_id[one].until_state("granted")
                return inside
            await asyncio.sleep(0.02)


class TestTwoHundredClaims:
    async def test_seven_are_granted_and_the_others_wait_in_line_on_whichever_node_one_asks(
        self, start_cluster: StartCluster, redis_url: str
    ) -> None:
        cluster = await start_cluster(PRESENCE_MAX_CONCURRENT=str(LIMIT))
        urls = [cluster.servers[n % 2].url for n in range(CROWD)]
        newcomers = [{"user_id": f"user-{n}", "session_id": f"s-{n}"} for n in range(CROWD)]
        opened = await at_once(
            [Ask(url, "POST", "/v1/sessions", body=body) for url, body in zip(urls, newcomers, strict=True)]
        )
        assert {status for status, _ in opened} == {201}
        sessions = [(f"/v1/sessions/{one['session_id']}/interview", one["token"]) for _, one in opened]
        async with witness.watching(redis_url, LIMIT) as watch:
            answers = await at_once(
                [Ask(url, "POST", path, token, {}) for url, (path, token) in zip(urls, sessions, strict=True)]
            )
        statuses = [status for status, _ in answers]
        assert (statuses.count(200), statuses.count(202)) == (LIMIT, CROWD - LIMIT)
        assert positions([told for _, told in answers]) == list(range(1, CROWD - LIMIT + 1))
        told = [
            [body for _, body in await at_once([Ask(server.url, "GET", *session) for session in sessions])]
            for server in cluster.servers
        ]
        assert told[0] == told[1]
        assert [one["state"] for one in told[0]].count("granted") == LIMIT
        assert positions(told[0]) == list(range(1, CROWD - LIMIT + 1))
        assert not watch.broken
        async with witness.client(redis_url) as redis:
            story = witness.replay(await witness.events(redis))
            assert set(story.holders) == await witness.holders(redis)
        fences = sorted(one["fence"] for one in told[0] if one["state"] == "granted")
        assert fences == sorted(story.holders.values())

    async def test_while_a_random_half_of_the_holders_goes_again_and_again_no_place_idles_and_none_is_given_twice(
        self, start_cluster: StartCluster, redis_url: str
    ) -> None:
        cluster = await start_cluster(PRESENCE_MAX_CONCURRENT=str(LIMIT))
        await cluster.apis[0].configure(**SHORT_GRACES)
        visitors = await cluster.visitors([f"user-{n}" for n in range(80)])
        story, watch = await goings(cluster, visitors, redis_url, rounds=15, seed=2)
        assert story.most == LIMIT
        assert story.grants > LIMIT + 15 * 2
        print(f"\n{watch.looks} looks, never over {watch.most}, never under {watch.fewest_while_waiting}")


class TestANodeThatIsKilled:
    async def test_its_browsers_keep_their_permits_at_the_other_node_and_the_dead_are_offline_in_time(
        self, start_cluster: StartCluster, redis_url: str
    ) -> None:
        cluster = await start_cluster(PRESENCE_MAX_CONCURRENT=str(LIMIT))
        await cluster.apis[1].configure(permit_grace_min_s=1)
        visitors = await cluster.visitors_at(0, [f"user-{n}" for n in range(20)])
        await enter_one_after_the_other(visitors)
        before = {one.session_id: (one.fence, one.interview.get("position")) for one in visitors}
        dying, living = [*visitors[:2], *visitors[-2:]], visitors[2:-2]

        killed_at = time.perf_counter()
        cluster.servers[0].kill()
        await asyncio.gather(*(one.vanish() for one in dying))
        await asyncio.gather(*(one.until_welcomed(2) for one in living))
        moved_s = [one.time_of("welcome") - killed_at for one in living]
        for one in living:
            welcome = one.welcomes[-1]
            assert (one.node, one.attempt, welcome["resumed"]) == (cluster.sockets[1], one.attempt, True)
            again = welcome["interview"]
            assert (again.get("fence"), again.get("position")) == before[one.session_id]
        assert len([one for one in living if one.state == "granted"]) == LIMIT - 2

        gone_s = await self.offline(cluster.apis[1], dying, since=killed_at)
        assert max(gone_s) <= NOT_ONLINE_WITHIN_S
        for waiter in living[LIMIT - 2 : LIMIT]:
            # The places of the dead go to the next in line once their grace of a second is over.
            await waiter.until_state("granted")
        async with witness.client(redis_url) as redis:
            story = witness.replay(await witness.events(redis))
            assert story.most == LIMIT
            assert set(story.holders) == {one.session_id for one in living[:LIMIT]}
        print(
            f"\non the other node after {min(moved_s):.2f}-{max(moved_s):.2f} s, "
            f"the dead not online after {min(gone_s):.2f}-{max(gone_s):.2f} s"
        )

    async def offline(self, api: NodeApi, dying: list[Visitor], *, since: float) -> list[float]:
        """How long each was still shown as online after `since`."""
        async with asyncio.timeout(NOT_ONLINE_WITHIN_S + 4):
            gone: dict[str, float] = {}
            while len(gone) < len(dying):
                for one in dying:
                    if one.session_id not in gone and not (await api.session(one.session_id))["online"]:
                        gone[one.session_id] = time.perf_counter() - since
                await asyncio.sleep(0.05)
            return list(gone.values())


class TestAFreedPlace:
    async def test_it_reaches_the_next_browser_at_the_other_node_at_once(
        self, start_cluster: StartCluster
    ) -> None:
        cluster = await start_cluster(PRESENCE_MAX_CONCURRENT="1")
        visitors = await cluster.visitors([f"user-{n}" for n in range(21)])
        await enter_one_after_the_other(visitors)
        latencies_ms = []
        for number, (holder, waiter) in enumerate(pairwise(visitors)):
            assert holder.node != waiter.node
            freed_at = time.perf_counter()
            if number % 2:
                await cluster.apis[number // 2 % 2].complete(holder.session_id, by=holder.token)
            else:
                await holder.say("complete")
            await waiter.until_state("granted", within_s=2)
            latencies_ms.append((waiter.time_of("interview", state="granted") - freed_at) * 1000)
            await waiter.until_told("token")
        print(
            f"\nfrom complete to granted at the other node: median {statistics.median(latencies_ms):.1f} ms, "
            f"max {max(latencies_ms):.1f} ms"
        )
        assert max(latencies_ms) <= 2000


class TestANodeThatStops:
    async def test_its_browsers_move_before_it_closes_and_what_happened_is_in_the_table(
        self, start_cluster: StartCluster, redis_url: str, database_url: str
    ) -> None:
        cluster = await start_cluster(
            PRESENCE_MAX_CONCURRENT="3", DATABASE_URL=database_url, PRESENCE_FLUSH_S="60"
        )
        staying = await cluster.visitors_at(0, [f"user-{n}" for n in range(12)])
        await enter_one_after_the_other(staying)
        standing = [(one.fence, one.interview.get("position")) for one in staying]

        assert await asyncio.to_thread(cluster.servers[0].stop) == 0
        for one, (fence, position) in zip(staying, standing, strict=True):
            assert len(one.messages("drain")) == 1
            await one.until_welcomed(2)
            again = one.welcomes[-1]["interview"]
            assert (again.get("fence"), again.get("position")) == (fence, position)
            assert (one.moves, one.closes, one.node) == ([1000], [], cluster.sockets[1])

        await staying[0].say("complete")
        await staying[3].until_state("granted")
        assert await asyncio.to_thread(cluster.servers[1].stop) == 0
        for one in staying[1:]:
            # Nowhere to go: told to move, and closed in the end.
            assert len(one.messages("drain")) >= 2
            assert await one.end_of_socket() == 4000
        connection = await asyncpg.connect(database_url)
        async with witness.client(redis_url) as redis:
            await ledger.assert_equal(connection, redis)
            completed = await ledger.row(connection, staying[0].session_id)
        await connection.close()
        assert (completed["status"], completed["is_in_interview"]) == ("completed", False)
        for server in cluster.servers:
            told = [line["event"] for line in server.events()]
            assert told.count("draining") == told.count("drained") == 1

    async def test_a_node_that_stops_is_not_ready_and_takes_nobody_new(
        self, start_cluster: StartCluster
    ) -> None:
        cluster = await start_cluster()
        api = cluster.apis[0]
        # It does not move: so the node waits a while before it goes.
        stubborn = Visitor(cluster.sockets[:1], await api.open("stubborn"))
        async with stubborn:
            cluster.servers[0].process.terminate()
            await stubborn.until_told("drain")
            assert (await api.ready())[0] == 503
            newcomer = Visitor(cluster.sockets, await cluster.apis[1].open("newcomer"))
            async with newcomer:
                assert newcomer.closes[0] == 4000
                assert newcomer.node == cluster.sockets[1]
            assert await asyncio.to_thread(cluster.servers[0].process.wait, 15) == 0
