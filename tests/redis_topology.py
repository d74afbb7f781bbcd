"""Redis as several processes: a cluster, a replica, a Sentinel, and a door that leads to one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.crc import key_slot

from server.embedded import EmbeddedRedis
from server.embedded.child import LOOPBACK, Child, Identity, free_port

SLOTS = 16384
PATIENCE_S, POLL_S = 20.0, 0.02
MASTER_NAME = "presence-master"
# Long enough for a busy machine, short enough for a test that kills a shard.
NODE_TIMEOUT_MS = 5000
SENTINEL_CONFIG = """
port {port}
bind {host}
dir {folder}
sentinel monitor {name} {host} {master} 1
sentinel down-after-milliseconds {name} 500
sentinel failover-timeout {name} 5000
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Masters without replicas; each has a third of the slots, the first the lowest."""

    masters: Sequence[EmbeddedRedis]

    @property
    def url(self) -> str:
        """Address for REDIS_URL."""
        hosts = ",".join(f"{LOOPBACK}:{master.port}" for master in self.masters)
        return f"redis+cluster://{hosts}"

    def shard_of(self, pool: str) -> EmbeddedRedis:
        """The master that has a pool's keys."""
        return self.masters[key_slot(pool.encode()) * len(self.masters) // SLOTS]

    def flush(self) -> None:
        """Empty all."""
        for master in self.masters:
            tell(master, "FLUSHALL")
            tell(master, "SCRIPT", "FLUSH")

    def until_ok(self) -> None:
        """Wait until each master sees that all slots are served, by masters that it can reach."""
        wait_until(lambda: all(_is_ok(master, len(self.masters)) for master in self.masters))


@contextmanager
def cluster(folder: Path, binary: str, *, size: int = 3) -> Iterator[Cluster]:
    """Start a cluster of so many masters. They keep who they are in `folder`, but no data."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(size)]
        masters = [
            stack.enter_context(_cluster_node(folder / f"node-{number}.conf", binary, bus))
            for number, bus in enumerate(buses)
        ]
        bounds = [number * SLOTS // size for number in range(size + 1)]
        for number, master in enumerate(masters):
            tell(master, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            tell(master, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for master, bus in zip(masters[1:], buses[1:], strict=True):
            tell(masters[0], "CLUSTER", "MEET", LOOPBACK, master.port, bus)
        made = Cluster(masters)
        made.until_ok()
        yield made


def _cluster_node(config: Path, binary: str, bus: int) -> EmbeddedRedis:
    options = {
        "--cluster-enabled": "yes",
        "--cluster-config-file": config,
        "--cluster-port": bus,
        "--cluster-node-timeout": NODE_TIMEOUT_MS,
    }
    return EmbeddedRedis.start(
        None, binary=binary, extra=[str(each) for pair in options.items() for each in pair]
    )


def _is_ok(master: EmbeddedRedis, size: int) -> bool:
    info = tell(master, "CLUSTER INFO")
    return (info["cluster_state"], info["cluster_size"]) == ("ok", str(size))


@contextmanager
def replica_of(master: EmbeddedRedis, binary: str, *, through: int | None = None) -> Iterator[EmbeddedRedis]:
    """Start a replica; `until_linked` says when it has everything. `through`: a port that leads to the master."""
    tell(master, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
    options = ("--replicaof", LOOPBACK, str(through or master.port))
    with EmbeddedRedis.start(None, binary=binary, extra=options) as replica:
        yield replica


def until_linked(replica: EmbeddedRedis) -> None:
    """Wait until a replica follows its master."""
    wait_until(lambda: tell(replica, "INFO", "replication").get("master_link_status") == "up")


def promote(replica: EmbeddedRedis) -> None:
    """Make it a master, with what it has."""
    tell(replica, "REPLICAOF", "NO", "ONE")


def demote(master: EmbeddedRedis, new: EmbeddedRedis) -> None:
    """Make it the replica of another."""
    tell(master, "REPLICAOF", LOOPBACK, new.port)


def until_replicated(master: EmbeddedRedis) -> None:
    """Wait until the replica has all that was written so far."""
    assert tell(master, "WAIT", 1, round(PATIENCE_S * 1000)) == 1


class Sentinel:
    """A Sentinel process that alone decides who is the master."""

    def __init__(self, folder: Path, binary: str, master: EmbeddedRedis) -> None:
        folder.mkdir()
        self.port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            SENTINEL_CONFIG.format(
                port=self.port, host=LOOPBACK, folder=folder, name=MASTER_NAME, master=master.port
            )
        )
        self._child = Child(
            [binary, str(config), "--sentinel"],
            folder=folder,
            log=folder / "sentinel.log",
            farewell=signal.SIGTERM,
            identity=Identity.ours(),
        )
        self._child.wait_until(self._knows_a_replica, "sentinel")

    @property
    def url(self) -> str:
        """Address for REDIS_URL."""
        return f"redis+sentinel://{LOOPBACK}:{self.port}/{MASTER_NAME}"

    def stop(self) -> None:
        """End it."""
        self._child.stop()

    def _knows_a_replica(self) -> bool:
        """Else there would be nobody to promote."""
        with suppress(Exception), Redis(host=LOOPBACK, port=self.port) as client:
            return len(client.execute_command("SENTINEL", "REPLICAS", MASTER_NAME)) == 1
        return False


class Door:
    """A TCP port that leads to one server at a time, as the name or address of a master does.

    A connection that was made through it stays where it is until one of its ends closes it.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._leads_to = port
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Address for REDIS_URL."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def lead_to(self, port: int) -> None:
        """From now on new connections go there."""
        self._leads_to = port

    def cut(self) -> None:
        """Forward nothing any more, and close nothing."""
        self._flows.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen while this is entered; then everything is closed."""
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._leads_to)
            ways = [(reader, far_writer), (far_reader, writer)]
            both = [asyncio.create_task(self._forward(source, sink)) for source, sink in ways]
            try:  # an end that is closed closes the other
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                far_writer.transport.abort()
        writer.transport.abort()

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()


def tell(server: EmbeddedRedis, *command: str | int) -> Any:  # noqa: ANN401 - replies are what they are
    """Run one command on a server itself."""
    with Redis(host=LOOPBACK, port=server.port, decode_responses=True) as client:
        return client.execute_command(*command)


def freeze(server: EmbeddedRedis) -> None:
    """Stop it in its tracks; `thaw` lets it go on."""
    os.kill(server.pid, signal.SIGSTOP)


def thaw(server: EmbeddedRedis) -> None:
    """Let it go on."""
    os.kill(server.pid, signal.SIGCONT)


def wait_until(ready: Callable[[], bool]) -> None:
    """Return when `ready()`; AssertionError if that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(POLL_S)
