"""`presence serve`: production. Settings must be right; each worker process is a node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import structlog

from server import logs
from server.cli.errors import MISUSED, CommandError
from server.cli.listening import choose, listen_at, url_of
from server.embedded.child import Identity
from server.measure.exposition import DIRECTORY, WORKER, forget_worker
from server.serve import run
from server.settings import ProductionSettings, SettingsError

log = structlog.get_logger(__name__)

NO_HISTORY = "DATABASE_URL is not set: there is no history, and nothing is kept of ended sessions"
POLL_S = 0.2
RESTART_PAUSE_S = 1.0


def serve(port: int | None, fd: int | None) -> None:
    """Check the settings, listen, and serve until told to stop. `fd`: a socket that a parent listens on."""
    settings = _settings(port)
    workers = worker_count()
    place = choose(settings)
    logs.configure(settings.log_level, settings.log_format)
    if fd is not None:
        return _serve(settings, socket.socket(fileno=fd))
    if settings.database_url is None:
        log.warning("no_history", hint=NO_HISTORY)
    with listen_at(place) as sock:
        log.info("listening", url=url_of(sock), workers=workers)
        if workers == 1:
            return _serve(settings, sock)
        return Workers(sock, workers).supervise()


def _serve(settings: ProductionSettings, sock: socket.socket) -> None:
    try:
        run(settings, sock)
    except SettingsError as error:
        raise CommandError(*error.problems, exit_code=MISUSED) from None


def _settings(port: int | None) -> ProductionSettings:
    try:
        return ProductionSettings.read(**({} if port is None else {"port": port}))
    except SettingsError as error:
        raise CommandError(*error.problems, exit_code=MISUSED) from None


def worker_count() -> int:
    """How many processes WEB_CONCURRENCY asks for. CommandError if it is no such number."""
    text = os.environ.get("WEB_CONCURRENCY") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise CommandError("WEB_CONCURRENCY must be a whole number from 1", exit_code=MISUSED)
    return int(text)


class Workers:
    """Worker processes on one listening socket. One that dies is replaced; they all end with us.

    Each has a number, from 0, under which it leaves what it measured in a folder for the others.
    """

    def __init__(self, sock: socket.socket, count: int) -> None:
        self._sock = sock
        self._stopping = self._misused = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._count = count
        self._numbers: dict[int, int] = {}
        self._measured = ""

    def supervise(self) -> None:
        """Return when all have ended after a SIGTERM or SIGINT."""
        with TemporaryDirectory(prefix="interview-presence-") as self._measured:
            self._supervise()

    def _supervise(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stopping:
            self._fill()
            time.sleep(POLL_S)
        # Not in the signal's handler: it may run while a worker is started that is in no list yet.
        self._tell()
        for process in self._processes:
            process.wait()
        if self._misused:
            raise CommandError("the workers refuse the settings, as said above", exit_code=MISUSED)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping:
            self._tell()  # told a second time they stop at once
        self._stopping = True

    def _tell(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    def _fill(self) -> None:
        ended = [process for process in self._processes if process.poll() is not None]
        for process in ended:
            log.error("worker_ended", pid=process.pid, exit_code=process.returncode)
            self._processes.remove(process)
            forget_worker(self._measured, self._numbers.pop(process.pid))
            self._misused = self._misused or process.returncode == MISUSED
        if self._misused:
            self._stopping = True
        elif ended:
            time.sleep(RESTART_PAUSE_S)  # a worker that can't start must not keep the machine busy
        while len(self._processes) < self._count and not self._stopping:
            self._processes.append(self._start())

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "server.cli", "serve", "--fd", str(self._sock.fileno())]
        number = min(set(range(self._count)) - set(self._numbers.values()))
        process = subprocess.Popen(  # noqa: S603 - the command is our own
            Identity.ours().wrap(command, signal.SIGTERM),
            pass_fds=(self._sock.fileno(),),
            start_new_session=True,  # Ctrl-C reaches us, and we tell them
            cwd=Path.cwd(),
            env={**os.environ, DIRECTORY: self._measured, WORKER: str(number)},
        )
        self._numbers[process.pid] = number
        return process
