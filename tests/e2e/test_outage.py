"""Postgres goes away, or the server dies in the middle of a flush: the table ends as the truth, by steps forward."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from persistence.migrations import migrate
from server.embedded import EmbeddedPostgres
from tests import ledger, witness
from tests.conftest import SpawnedServer, SpawnServer
from tests.node_api import NodeApi
from tests.traffic import Traffic
from tests.visitor import Visitor

FLUSH_S = "0.5"
OUTAGE_S = 8.0
BACK_WITHIN_S = 20.0
VISITORS = 4

# A commit that takes long, as long as `slow` has a row.
SLOW_COMMIT = """
create table slow (yes boolean);
create function dawdle() returns trigger language plpgsql as $$
begin
  if exists (select from slow) then
    perform pg_sleep(1);
    delete from slow;
  end if;
  return null;
end $$;
create constraint trigger slowly after insert or update on presence
  deferrable initially deferred for each row execute function dawdle();
"""
FLUSHING = """
select count(*) from pg_stat_activity
where application_name = 'interview-presence' and wait_event_type = any($1) and state = 'active'
"""
CONNECTED = "select count(*) from pg_stat_activity where application_name = 'interview-presence'"

StartServer = Callable[[str], Awaitable[tuple[SpawnedServer, NodeApi]]]


@pytest.fixture
async def start(spawn_server: SpawnServer) -> AsyncIterator[StartServer]:
    """Start a server that flushes often to the database of this address."""
    async with AsyncExitStack() as stack:

        async def start_one(database_url: str) -> tuple[SpawnedServer, NodeApi]:
            server = spawn_server(DATABASE_URL=database_url, PRESENCE_FLUSH_S=FLUSH_S, PRESENCE_OFFER_S="0")
            return server, await stack.enter_async_context(NodeApi(server.url))

        yield start_one


@asynccontextmanager
async def visited(nodes: list[str], api: NodeApi) -> AsyncIterator[list[Visitor]]:
    """Some people who are connected all the time, so that `last_seen` moves with every flush."""
    async with AsyncExitStack() as stack:
        opened = [await api.open(f"visitor-{n}", session_id=f"visitor-{n}") for n in range(VISITORS)]
        yield [await stack.enter_async_context(Visitor(nodes, one)) for one in opened]


async def until_postgres(api: NodeApi, state: str) -> None:
    """Wait until `/readyz` says so; it must say all the time that the server is ready."""
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            status, ready = await api.ready()
            assert (status, ready["ready"]) == (200, True)
            if ready["postgres"] == state:
                return
            await asyncio.sleep(0.05)


async def until_value(connection: ledger.Connection, query: str, *arguments: object, is_zero: bool) -> None:
    """Wait until the query counts nothing, or something."""
    async with asyncio.timeout(BACK_WITHIN_S):
        while (await connection.fetchval(query, *arguments) == 0) is not is_zero:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def settle(
    connection: ledger.Connection,
    redis_url: str,
    server: SpawnedServer,
    expected: dict[str, dict[str, object]],
) -> None:
    """Stop the server in order, and hold the table against Redis, against the people, and against its own past."""
    assert await asyncio.to_thread(server.stop) == 0
    async with witness.client(redis_url) as redis:
        await ledger.assert_equal(connection, redis)
        assert await redis.zcard(f"{witness.POOL}ended") == 0
    visitors = {f"visitor-{n}": {"status": "active"} for n in range(VISITORS)}
    await ledger.assert_ends(connection, {**expected, **visitors})
    writes = await ledger.assert_only_forward(connection)
    print(f"\n{len(expected) + VISITORS} sessions, {writes} writes, each forward")


class TestPostgresAway:
    async def test_the_server_serves_and_afterwards_the_table_has_everybodys_last_state(
        self, start: StartServer, own_postgres: EmbeddedPostgres, redis_url: str
    ) -> None:
        await outage(start, own_postgres, redis_url, OUTAGE_S)

    @pytest.mark.parametrize("way", ["stop", "kill"])
    async def test_a_server_that_starts_while_postgres_is_away_catches_up(
        self, start: StartServer, own_postgres: EmbeddedPostgres, redis_url: str, way: str
    ) -> None:
        await prepare(own_postgres.url)
        await asyncio.to_thread(getattr(own_postgres, way))
        server, api = await start(own_postgres.url)
        async with visited([server.ws_url], api):
            traffic = Traffic([api], seed=5)
            async with traffic.flowing():
                await until_postgres(api, "down")
                await traffic.until_more(100)
                own_postgres.restart()
                await until_postgres(api, "ok")
                await traffic.until_more(50)
            connection = await asyncpg.connect(own_postgres.url)
            await settle(connection, redis_url, server, traffic.expected)
        await connection.close()


async def prepare(database_url: str, *more: str) -> None:
    """Make the tables, and let each write be written down."""
    await migrate(database_url, "public")
    connection = await asyncpg.connect(database_url)
    for statements in (ledger.AUDIT, *more):
        await connection.execute(statements)
    await connection.close()


async def outage(start: StartServer, postgres: EmbeddedPostgres, redis_url: str, seconds: float) -> None:
    """Stop Postgres for so long under traffic."""
    await prepare(postgres.url)
    server, api = await start(postgres.url)
    async with visited([server.ws_url], api):
        traffic = Traffic([api], seed=3)
        async with traffic.flowing():
            await traffic.until_more(100)
            await asyncio.to_thread(postgres.stop)
            await until_postgres(api, "down")
            before, until = traffic.answers, time.monotonic() + seconds
            while time.monotonic() < until:
                status, ready = await api.ready()
                assert (status, ready["ready"], ready["postgres"]) == (200, True, "down")
                await traffic.until_more(10)
            served = traffic.answers - before
            # In this thread: to Linux, the thread that starts a child is its parent.
            postgres.restart()
            returned = time.perf_counter()
            await until_postgres(api, "ok")
            caught_up_s = time.perf_counter() - returned
            await traffic.until_more(50)
        assert traffic.retries == 0
        connection = await asyncpg.connect(postgres.url)
        await settle(connection, redis_url, server, traffic.expected)
    await connection.close()
    told = [line["event"] for line in server.events()]
    assert (told.count("postgres_away"), told.count("postgres_back")) == (1, 1)
    print(
        f"{served} requests served in {seconds:g} s without Postgres, in use {caught_up_s:.1f} s after it was back"
    )


class TestAServerThatDiesInTheMiddleOfAFlush:
    async def test_before_the_commit_the_next_server_writes_what_it_could_not(
        self, start: StartServer, database_url: str, redis_url: str
    ) -> None:
        await prepare(database_url)
        connection = await asyncpg.connect(database_url)
        blocker = await asyncpg.connect(database_url)

        async def hold() -> None:
            await blocker.execute("begin; lock table presence in exclusive mode")
            await until_value(connection, FLUSHING, ["Lock"], is_zero=False)

        async def let_go() -> None:
            await blocker.close()

        await self.die_in_flush(
            start,
            database_url=database_url,
            redis_url=redis_url,
            connection=connection,
            hold=hold,
            let_go=let_go,
        )

    async def test_after_the_commit_the_next_server_writes_nothing_twice(
        self, start: StartServer, database_url: str, redis_url: str
    ) -> None:
        await prepare(database_url, SLOW_COMMIT)
        connection = await asyncpg.connect(database_url)

        async def hold() -> None:
            await connection.execute("insert into slow values (true)")
            await until_value(connection, FLUSHING, ["Timeout"], is_zero=False)

        async def let_go() -> None:
            # The server is dead, but its commit is not: the trigger's own deletion says that it was made.
            await until_value(connection, "select count(*) from slow", is_zero=True)
            async with witness.client(redis_url) as redis:
                assert await redis.zcard(f"{witness.POOL}dirty") > 0

        await self.die_in_flush(
            start,
            database_url=database_url,
            redis_url=redis_url,
            connection=connection,
            hold=hold,
            let_go=let_go,
        )

    async def die_in_flush(
        self,
        start: StartServer,
        *,
        database_url: str,
        redis_url: str,
        connection: ledger.Connection,
        hold: Callable[[], Awaitable[None]],
        let_go: Callable[[], Awaitable[None]],
    ) -> None:
        """Kill a server while `hold` has its flush, under traffic; another one takes over."""
        first, api = await start(database_url)
        nodes, sockets = [api], [first.ws_url]
        async with visited(sockets, api):
            traffic = Traffic(nodes, seed=4)
            async with traffic.flowing():
                await traffic.until_more(100)
                await hold()
                first.kill()
                await let_go()
                await until_value(connection, CONNECTED, is_zero=True)
                second, nodes[0] = await start(database_url)
                sockets[0] = second.ws_url
                await traffic.until_more(100)
                await until_postgres(nodes[0], "ok")
            await settle(connection, redis_url, second, traffic.expected)
        await connection.close()
