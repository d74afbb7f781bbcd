"""Minutes of traffic while nodes are killed and stopped and Postgres goes and comes: the table ends as the truth."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from server.embedded import EmbeddedPostgres
from tests import witness
from tests.conftest import SpawnedServer, SpawnServer
from tests.e2e.test_cluster import LIMIT, StartCluster, goings
from tests.e2e.test_cluster import start_cluster as start_cluster  # noqa: PLC0414 - the fixture
from tests.e2e.test_outage import StartServer, outage, prepare, settle, until_postgres, visited
from tests.e2e.test_outage import start as start  # noqa: PLC0414 - the fixture
from tests.node_api import NodeApi
from tests.postgres_faults import frozen
from tests.traffic import Traffic

pytestmark = pytest.mark.soak

CHAOS_S = 240.0
PAUSE_S = (1.0, 6.0)
FROZEN_S = 40.0
SAID_WITHIN_S = 15.0


@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_however_the_holders_go_no_place_idles_and_none_is_given_twice(
    start_cluster: StartCluster, redis_url: str, seed: int
) -> None:
    cluster = await start_cluster(PRESENCE_MAX_CONCURRENT=str(LIMIT))
    await cluster.apis[0].configure(grace_s=0.2, permit_grace_min_s=0.2, permit_grace_max_s=5)
    visitors = await cluster.visitors([f"user-{n}" for n in range(200)])
    story, watch = await goings(cluster, visitors, redis_url, rounds=45, seed=seed)
    assert story.most == watch.most == LIMIT
    print(f"\n{story.grants} grants, {watch.looks} looks")


async def test_postgres_may_be_away_for_a_minute(
    start: StartServer, own_postgres: EmbeddedPostgres, redis_url: str
) -> None:
    await outage(start, own_postgres, redis_url, 60)


async def test_a_postgres_that_takes_everything_and_answers_nothing_holds_up_nobody(
    start: StartServer, own_postgres: EmbeddedPostgres, redis_url: str
) -> None:
    await prepare(own_postgres.url)
    server, api = await start(own_postgres.url)
    async with visited([server.ws_url], api):
        traffic = Traffic([api], seed=6)
        async with traffic.flowing():
            await traffic.until_more(100)
            with frozen(own_postgres):
                since, slowest_s, said_after_s = time.monotonic(), 0.0, None
                while time.monotonic() < since + FROZEN_S:
                    asked = time.monotonic()
                    status, ready = await api.ready()
                    assert status == 200
                    slowest_s = max(slowest_s, time.monotonic() - asked)
                    if said_after_s is None and ready["postgres"] == "down":
                        said_after_s = time.monotonic() - since
                    await traffic.until_more(10)
                _, ready = await api.ready()
                assert ready["postgres"] == "down"
                assert ready["flush_lag_s"] > FROZEN_S / 2
            assert said_after_s is not None
            assert said_after_s < SAID_WITHIN_S
            assert slowest_s < 2
            await until_postgres(api, "ok")
            await traffic.until_more(50)
        connection = await asyncpg.connect(own_postgres.url)
        await settle(connection, redis_url, server, traffic.expected)
    await connection.close()


class Stage:
    """Two nodes and a Postgres, and what can happen to them."""

    def __init__(
        self, spawn: SpawnServer, postgres: EmbeddedPostgres, rng: random.Random, **environment: str
    ) -> None:
        self.servers: list[SpawnedServer] = []
        self.apis: list[NodeApi] = []
        self.sockets: list[str] = []
        self.happened: list[str] = []
        self._retired: list[NodeApi] = []
        self._spawn = spawn
        self._postgres = postgres
        self._rng = rng
        self._environment = {
            "DATABASE_URL": postgres.url,
            "PRESENCE_FLUSH_S": "0.5",
            "PRESENCE_OFFER_S": "0",
            "PRESENCE_MAX_CONCURRENT": str(LIMIT),
            **environment,
        }

    async def set_up(self) -> None:
        for _ in range(2):
            server = await asyncio.to_thread(lambda: self._spawn(**self._environment))
            self.servers.append(server)
            self.apis.append(NodeApi(server.url))
            self.sockets.append(server.ws_url)

    async def something_happens(self) -> None:
        deed = self._rng.choice(
            [
                self.node_is_killed,
                self.node_is_killed,
                self.node_stops,
                self.postgres_stops,
                self.postgres_is_killed,
            ]
        )
        self.happened.append(deed.__name__)
        await deed()

    async def node_is_killed(self) -> None:
        which = self._rng.randrange(2)
        await asyncio.to_thread(self.servers[which].kill)
        await self._replace(which)

    async def node_stops(self) -> None:
        which = self._rng.randrange(2)
        assert await asyncio.to_thread(self.servers[which].stop) == 0
        await self._replace(which)

    async def postgres_stops(self) -> None:
        await asyncio.to_thread(self._postgres.stop)
        await self._come_back()

    async def postgres_is_killed(self) -> None:
        await asyncio.to_thread(self._postgres.kill)
        await self._come_back()

    async def _come_back(self) -> None:
        await asyncio.sleep(self._rng.uniform(*PAUSE_S))
        self._postgres.restart()

    async def _replace(self, which: int) -> None:
        await asyncio.sleep(self._rng.uniform(0, 1))
        server = await asyncio.to_thread(lambda: self._spawn(**self._environment))
        self.servers[which], self.sockets[which] = server, server.ws_url
        self._retired.append(self.apis[which])
        self.apis[which] = NodeApi(server.url)

    async def tear_down(self) -> None:
        for api in self.apis + self._retired:
            await api.close()


@pytest.fixture
async def stage(
    spawn_server: SpawnServer, own_postgres: EmbeddedPostgres, request: pytest.FixtureRequest
) -> AsyncIterator[Stage]:
    await prepare(own_postgres.url)
    stage = Stage(spawn_server, own_postgres, random.Random(21))
    await stage.set_up()
    yield stage
    await stage.tear_down()


async def test_whatever_dies_the_limit_holds_and_the_table_ends_as_the_truth(
    stage: Stage, own_postgres: EmbeddedPostgres, redis_url: str
) -> None:
    rng, until = random.Random(22), time.monotonic() + CHAOS_S
    traffic = Traffic(stage.apis, seed=23)
    async with visited(stage.sockets, stage.apis[0]), witness.watching(redis_url, LIMIT, 0.01) as watch:
        async with traffic.flowing():
            while time.monotonic() < until:
                await stage.something_happens()
                await asyncio.sleep(rng.uniform(*PAUSE_S))
            await traffic.until_more(50)
        assert await asyncio.to_thread(stage.servers[0].stop) == 0
        connection = await asyncpg.connect(own_postgres.url)
        await settle(connection, redis_url, stage.servers[1], traffic.expected)
        await connection.close()
    assert watch.most == LIMIT
    print(f"{len(stage.happened)} accidents, {traffic.answers} answers, {traffic.retries} asked again")
