"""Postgres directly and through a real PgBouncer in both its modes, with server connections swapped and cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest

from persistence.connect import Mode, connect, connect_once, understand
from persistence.flusher import Flusher
from persistence.migrations import bring_up_to_date, migrate
from persistence.plan.history import Arrivals
from persistence.port import Touched
from persistence.repository import Repository
from persistence.rows import PoolRow, PresenceRow
from persistence.statements import migrations
from server.embedded import EmbeddedPostgres
from tests.contract.persistence_model import LiveModel, ended, lines, row
from tests.pgbouncer import PgBouncer

ALL = [step.name for step in migrations("public")]
SERVERS = 3
ROUNDS = 12
WITNESSES = """
create table witnesses (pid integer primary key);
create function witness() returns trigger language plpgsql as $$
begin
  insert into public.witnesses values (pg_backend_pid()) on conflict do nothing;
  return null;
end
$$;
create trigger witness after insert on presence for each statement execute function witness();
"""
Through = Callable[[str], str]


@pytest.fixture(scope="module")
def poolers(
    postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, PgBouncer]]:
    folder = tmp_path_factory.mktemp("pgbouncer")
    with (
        PgBouncer.start(folder / "t", postgres_server, "transaction", pool_size=SERVERS) as transaction,
        PgBouncer.start(folder / "s", postgres_server, "session") as session,
    ):
        yield {"transaction": transaction, "session": session}


@pytest.fixture
def swapping(poolers: dict[str, PgBouncer]) -> Through:
    """Make an address into that of the same database through the transaction pooler."""
    return lambda url: f"{poolers['transaction'].url_of(url)}?pgbouncer=true"


@pytest.fixture(params=["plain", "session", "transaction"])
def through(request: pytest.FixtureRequest) -> Through:
    """Make an address into that of the same database by each of the three ways."""
    if request.param == "plain":
        return lambda url: url
    poolers: dict[str, PgBouncer] = request.getfixturevalue("poolers")
    if request.param == "session":
        return poolers["session"].url_of
    swapping: Through = request.getfixturevalue("swapping")
    return swapping


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with await connect(url) as pool:
        yield pool


async def open_all(url: str) -> set[int]:
    """Have the pooler open as many connections to Postgres as it may; returns the processes behind them."""
    async with AsyncExitStack() as stack:
        pids = set()
        for _ in range(SERVERS):
            connection = await connect_once(url)
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())
            pids.add(await connection.fetchval("select pg_backend_pid()"))
    return pids


async def direct(url: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await connect_once(url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def fetch_repeatedly(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    async with pool.acquire() as connection:
        for _ in range(2 * SERVERS):
            await connection.fetch("select $1::int", 1)


async def script(url: str, statements: str) -> None:
    connection = await connect_once(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def test_the_pooler_of_these_tests_swaps_connections_as_supabases_does(
    swapping: Through, database_url: str
) -> None:
    url = swapping(database_url)
    assert len(await open_all(url)) == SERVERS
    connection = await connect_once(url)
    pids = []
    for _ in range(SERVERS):
        async with connection.transaction():
            pids.append(await connection.fetchval("select pg_backend_pid()"))
    await connection.close()
    assert len(set(pids)) == SERVERS


async def test_without_our_settings_the_transaction_pooler_breaks_prepared_statements(
    swapping: Through, database_url: str
) -> None:
    """The proof that the other tests would notice: asyncpg as it comes fails here."""
    url = swapping(database_url)
    await open_all(url)
    async with asyncpg.create_pool(url.partition("?")[0], min_size=1, max_size=1) as pool:
        with pytest.raises((asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)):
            await fetch_repeatedly(pool)


async def test_migrating_works_once_again_and_dry(through: Through, empty_database_url: str) -> None:
    url = through(empty_database_url)
    assert (await bring_up_to_date(url, dry_run=True)).applied == ALL
    assert await migrate(url) == ALL
    assert await migrate(url) == []


async def test_of_several_that_migrate_at_once_one_does_it_and_no_lock_stays(
    through: Through, empty_database_url: str
) -> None:
    url = through(empty_database_url)
    done = await asyncio.gather(*(migrate(url) for _ in range(SERVERS)))
    assert sorted(done, key=len) == [[], [], ALL]
    assert await direct(empty_database_url, "select * from pg_locks where locktype = 'advisory'") == []


async def test_the_repository_does_all_that_it_does_on_swapped_connections(
    through: Through, database_url: str
) -> None:
    url = through(database_url)
    await open_all(url)
    done = ended("done", metadata="{}")
    async with pool_of(url) as pool:
        repository = Repository(pool)
        for _ in range(SERVERS):
            await repository.write(lines([row("s1"), done]))
            await repository.write_pools([PoolRow("main", 3, "open")])
            await repository.ping()
            assert await repository.session("done") == done
            seen = row("s1").last_seen_ms
            assert await repository.move(Touched(["part"], ["s1", "done"], [1, 9], [seen, seen], None)) == [
                "done"
            ]
            assert len(await repository.sessions("main", status="active", limit=5)) == 1
            assert await repository.stale(0.0) == [("s1", "main")]
            await Arrivals(pool).demand("main", 7)
        assert await repository.abandon(["s1", "done"], 0.0) == ["s1"]


async def test_a_flush_is_exact_while_connections_are_swapped_under_it(
    through: Through, database_url: str
) -> None:
    await script(database_url, WITNESSES)
    url = through(database_url)
    await open_all(url)
    traffic = Traffic(LiveModel())
    async with pool_of(url) as pool:
        flusher = Flusher(traffic.live, Repository(pool), holder="node-1", batch=5)
        for _ in range(ROUNDS):
            traffic.go_on()
            assert await flusher.flush_once()
        await traffic.assert_is_in(Repository(pool))
    writers = len(await direct(database_url, "select pid from witnesses"))
    if understand(url).mode is Mode.TRANSACTION_POOLER:
        assert writers == SERVERS


async def test_a_flush_is_exact_in_the_end_though_server_connections_are_cut(
    through: Through, database_url: str
) -> None:
    url = through(database_url)
    traffic = Traffic(LiveModel())
    async with pool_of(url) as pool:
        flusher = Flusher(traffic.live, Repository(pool), holder="node-1", batch=5)
        for _ in range(ROUNDS):
            traffic.go_on()
            cut = asyncio.create_task(cut_all(database_url))
            await flusher.flush_once()  # some fail: what they left is dirty still
            await cut
        while not await flusher.flush_once():  # noqa: ASYNC110 - the pooler finds the dead ones by and by
            await asyncio.sleep(0.05)
        await traffic.assert_is_in(Repository(pool))


async def test_nothing_of_ours_stays_behind_on_a_server_connection(
    swapping: Through, database_url: str
) -> None:
    url = swapping(database_url)
    await open_all(url)
    async with pool_of(url) as pool:
        live = LiveModel()
        live.change(row())
        flusher = Flusher(live, Repository(pool), holder="node-1")
        for _ in range(2 * SERVERS):
            live.now_ms += 1
            assert await flusher.flush_once()
        assert len(live.acked_touches) == 2 * SERVERS - 1
    await migrate(url)
    connection = await connect_once(url)
    for _ in range(SERVERS):
        async with connection.transaction():
            assert await connection.fetchval("select count(*) from pg_prepared_statements") == 0
            assert await connection.fetchval("show statement_timeout") == "0"
            assert await connection.fetchval("show lock_timeout") == "0"
            assert await connection.fetchval("show client_min_messages") == "notice"
            assert await connection.fetchval("show enable_seqscan") == "on"
            assert await connection.fetchval("show enable_hashjoin") == "on"
            assert await connection.fetchval("show jit") == await default_of(database_url, "jit")
    await connection.close()


async def default_of(url: str, setting: str) -> str:
    return str((await direct(url, "select reset_val from pg_settings where name = $1", setting))[0][0])


async def cut_all(url: str) -> None:
    """Break off every connection to this database but the one that does it."""
    others = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
    await direct(url, f"{others} and pid <> pg_backend_pid()")


@dataclass
class Traffic:
    """Sessions that come, move and complete at random; keeps what must be in the table in the end."""

    live: LiveModel
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    completed: dict[str, PresenceRow] = field(default_factory=dict)

    def go_on(self) -> None:
        self.live.now_ms += 10_000
        for _ in range(20):
            name = f"s{self.chance.randrange(60):02d}"
            if name not in self.completed:
                self._change(name)

    def _change(self, name: str) -> None:
        if self.chance.random() < 0.2:
            self.live.change(ended(name, metadata="{}", last_seen_ms=self.live.now_ms))
            self.completed[name] = self.live.sessions[name]
        else:
            page = f"page-{self.chance.random():.3f}"
            self.live.change(row(name, metadata="{}", current_page=page, last_seen_ms=self.live.now_ms))

    async def assert_is_in(self, repository: Repository) -> None:
        assert not self.live.dirty
        stored = {each.session_id: each for each in await repository.sessions("main", limit=1000)}
        assert stored == {**self.live.sessions, **self.completed}
        assert len(self.completed) > 10
