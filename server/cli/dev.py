"""`presence dev`: everything on this machine, started and stopped together."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

import typer

from server import logs
from server.cli.errors import MISUSED, CommandError
from server.cli.listening import DEFAULT_PORT, LOOPBACK, Place, choose, listen_near, url_of
from server.cli.migrate import apply
from server.cli.running import FOLDER, NOTE, running_in
from server.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis
from server.embedded.postgres import psql_binary
from server.serve import run
from server.settings import DEV_API_KEY, DEV_SECRET, Settings, SettingsError

LOOPBACK_ORIGINS = (
    "http://localhost:*",
    "http://127.0.0.1:*",
    "http://[::1]:*",
    "https://localhost:*",
    "https://127.0.0.1:*",
)
OVERRULED = ("REDIS_URL", "DATABASE_URL", "PRESENCE_SECRET", "PRESENCE_API_KEY", "PRESENCE_HOST")


class Interrupt:
    """Answers SIGINT and SIGTERM by a KeyboardInterrupt, and remembers that it did.

    Python drops an exception that is raised while an object is finalized: then the server has to ask, or would run on.
    """

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._raise)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt


def develop(port: int | None, folder: Path = FOLDER) -> None:
    """Start Redis, Postgres and the server; return when told to stop, with everything stopped."""
    interrupt = Interrupt()
    with suppress(KeyboardInterrupt):
        _develop(port, folder, interrupt)
    typer.echo("Stopped.")


def _develop(port: int | None, folder: Path, interrupt: Interrupt) -> None:
    settings = _settings(port)
    place = choose(settings)
    with ExitStack() as stack:
        note = stack.enter_context(_alone(folder))
        # The development keys are known to everybody: only this machine may come in, whatever $PORT suggests.
        sock = stack.enter_context(listen_near(Place(LOOPBACK, place.port, asked=place.asked)))
        url = url_of(sock)
        note.write_text(json.dumps({"pid": os.getpid(), "url": url}), encoding="utf-8")
        if not place.asked and sock.getsockname()[1] != place.port:
            typer.echo(f"Port {DEFAULT_PORT} is taken; using {sock.getsockname()[1]}.")
        typer.echo("Starting Redis and Postgres …")
        redis, postgres = _start_servers(stack, folder)
        apply(postgres.url, settings)
        settings = _settings(sock.getsockname()[1], redis_url=redis.url, database_url=postgres.url)
        logs.configure(settings.log_level, settings.log_format)
        typer.echo(_welcome(url, redis, postgres, folder))
        _run(settings, sock, interrupt)


def _run(settings: Settings, sock: socket.socket, interrupt: Interrupt) -> None:
    try:
        run(settings, sock, demo=True, was_told_to_stop=lambda: interrupt.asked)
    except SettingsError as error:
        raise CommandError(*error.problems, exit_code=MISUSED) from None


def _settings(port: int | None, **embedded: str) -> Settings:
    """The user's settings, but for what development decides itself."""
    ours = {
        "secret": (DEV_SECRET,),
        "api_key": (DEV_API_KEY,),
        "host": LOOPBACK,
        "database_url": None,
        **embedded,
    }
    asked = {} if port is None else {"port": port}
    try:
        theirs = Settings.read(**{**ours, **asked})
    except SettingsError as error:
        raise CommandError(*error.problems, exit_code=MISUSED) from None
    return theirs.model_copy(update={"allowed_origins": (*LOOPBACK_ORIGINS, *theirs.allowed_origins)})


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Hold the folder; if another holds it, a CommandError says who and where."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / NOTE
    with note.open("a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(_who_runs(folder)) from None
        yield note
        note.write_text("", encoding="utf-8")


def _who_runs(folder: Path) -> str:
    running = running_in(folder)
    if running is None:
        return f"another `presence dev` is just starting on {folder.resolve()}"
    return (
        f"`presence dev` runs here already: {running.url} (process {running.pid}, data in {folder.resolve()})"
    )


def _start_servers(stack: ExitStack, folder: Path) -> tuple[EmbeddedRedis, EmbeddedPostgres]:
    try:
        redis = stack.enter_context(EmbeddedRedis.start(folder / "redis"))
        postgres = stack.enter_context(EmbeddedPostgres.start(folder / "postgres"))
    except EmbeddedError as error:
        raise CommandError(str(error)) from None
    return redis, postgres


def _welcome(url: str, redis: EmbeddedRedis, postgres: EmbeddedPostgres, folder: Path) -> str:
    psql = "psql" if shutil.which("psql") else psql_binary()
    ignored = [name for name in OVERRULED if os.environ.get(name)]
    lines = [
        "",
        f"  Open       {url}/demo",
        f"  Dashboard  {url}/dashboard    (sign in with the API key)",
        f"  API key    {DEV_API_KEY}",
        f"  Secret     {DEV_SECRET}",
        f"  Redis      redis-cli -p {redis.port}",
        f"  Postgres   {psql} {postgres.url}",
        f"  Data       {folder.resolve()}",
        *([f"  Ignored    {', '.join(ignored)} (development uses its own)"] if ignored else []),
        "  Stop       Ctrl-C",
        "",
    ]
    return "\n".join(lines)
