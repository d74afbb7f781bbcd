"""One supervised server process: a lock on its folder, a log, an orderly end, and death with its parent."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

LAUNCHER = Path(__file__).with_name("launch.py")
LOOPBACK = "127.0.0.1"
ADDRESS_TAKEN = "Address already in use"
START_S = 30.0
STOP_S = 20.0
LOCK_S = 15.0
POLL_S = 0.02
LOG_TAIL_LINES = 8
LOG_MAX_BYTES = 4_000_000
ATTEMPTS = 3

Started = TypeVar("Started")


class EmbeddedError(Exception):
    """An embedded server did not start; the message says why in a line or a few."""


class FolderLock:
    """An exclusive lock that the server inherits: it is free only when each of its processes is gone."""

    def __init__(self, path: Path, patience_s: float = LOCK_S) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while not self._try():
            if time.monotonic() > deadline:
                self.release()
                raise EmbeddedError(f"{path.parent} is in use by another process")
            time.sleep(POLL_S)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Close our handle; the lock itself ends with the last process that holds one."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a child runs as; `reach`: it must pass through folders that are closed to that user."""

    uid: int
    reach: bool = False

    @classmethod
    def ours(cls) -> Identity:
        """The user of this process."""
        return cls(os.getuid())

    def wrap(self, command: Sequence[str], farewell: signal.Signals) -> list[str]:
        """The command line that becomes `command` under this identity, and gets `farewell` when we die."""
        reach = "reach" if self.reach else "-"
        prefix = [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCHER),
            str(os.getpid()),
            str(int(farewell)),
            str(self.uid),
            reach,
        ]
        return [*prefix, *command]


class Child:
    """A running server process.

    Start it from a thread that lives on: to Linux, the parent of the death signal is a thread.
    """

    def __init__(
        self, command: Sequence[str], *, folder: Path, log: Path, farewell: signal.Signals, identity: Identity
    ) -> None:
        self._farewell = farewell
        self._log = log
        lock = FolderLock(folder / "lock")
        try:
            if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
                log.unlink()
            with log.open("ab") as sink:
                # A session of its own: Ctrl-C in the terminal reaches us, and we end our children in order.
                self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                    identity.wrap(command, farewell),
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    pass_fds=(lock.fd,),
                    start_new_session=True,
                    cwd=folder,
                )
        finally:
            lock.release()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Return when `ready()`; raise EmbeddedError with the end of the log if it ends or takes too long."""
        deadline = time.monotonic() + START_S
        while not ready():
            if not self.running:
                raise EmbeddedError(f"{what} did not start:\n{self._tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise EmbeddedError(f"{what} was not ready within {START_S:g} s:\n{self._tail()}")
            time.sleep(POLL_S)

    def _tail(self) -> str:
        with self._log.open(encoding="utf-8", errors="replace") as lines:
            return "".join(deque(lines, LOG_TAIL_LINES)).rstrip()

    def stop(self) -> None:
        """End it in order, or by force if that takes too long. Does nothing if it has ended."""
        if self.running:
            self._process.send_signal(self._farewell)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_S)


class Server(ABC):
    """A server that runs as a child of ours; leaving its `with` block ends it."""

    port: int
    _child: Child

    @abstractmethod
    def _launch(self) -> Child:
        """Start it on its port and data, and return when it can be used."""

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the server has not ended."""
        return self._child.running

    def stop(self) -> None:
        """End it in order, breaking off its clients; its data is on disk then."""
        self._child.stop()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; `restart` brings it back."""
        self._child.kill()

    def restart(self) -> None:
        """Start it again on the same port and data, after `stop` or `kill` or from running."""
        self._child.stop()
        self._child = self._launch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_on(port: int, start: Callable[[int], Started]) -> Started:
    """What `start` makes on `port`; 0: on any free one."""
    for _ in range(ATTEMPTS - 1):
        try:
            return start(port or free_port())
        except EmbeddedError as error:
            # Somebody may have taken the free port between our look and the server's bind.
            if port or ADDRESS_TAKEN not in str(error):
                raise
    return start(port or free_port())


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
