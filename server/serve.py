"""Runs the application on uvicorn, with a drain before the stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import HANDLED_SIGNALS

from server.app import App, create_app
from server.domain.messages import MAX_MESSAGE_BYTES
from server.node.http_protocol import PresenceHttpProtocol
from server.node.node import Node
from server.node.protocol import PresenceProtocol
from server.settings import Settings

log = structlog.get_logger(__name__)

GRACEFUL_STOP_S = 5
# Longer than clients (httpx: 5 s) and proxies (mostly 60 s) keep an idle connection: were it the server that closes it,
# a request that is just being sent would be lost.
KEEP_ALIVE_S = 75
LOOP_DIED = 1
GC_THRESHOLDS = (10_000, 50, 50)


class StartError(Exception):
    """The application did not start; the log says why."""


class Server(uvicorn.Server):
    """uvicorn's server, which drains the node when it is told to stop, and stops when the node has died.

    uvicorn's own answer to a signal closes every socket before the application hears of it.
    """

    def __init__(
        self, app: App, settings: Settings, *, was_told_to_stop: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(_config(app, settings))
        self._was_told_to_stop = was_told_to_stop
        self.node: Node = app.node
        self._up = asyncio.Event()
        self._drain_task: asyncio.Task[None] | None = None

    @property
    def node_died(self) -> bool:
        """Whether the node's loops ended by an error."""
        return self.started and bool(self.lifespan.error_occurred)

    def stop(self) -> None:
        """Drain, then stop. Told a second time, stop at once."""
        if not self.started:
            self.should_exit = True
        elif self._drain_task is None:
            self._drain_task = asyncio.create_task(self._drain(), name="drain")
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        try:
            await self.node.drain()
        finally:
            self.should_exit = True

    async def until_up(self) -> None:
        """Return when requests are taken."""
        await self._up.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen. StartError instead of uvicorn's exit; SettingsError if Redis won't do."""
        await self.node.check_redis()
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise StartError from error
        for sock in sockets or ():
            log.info("serving", address=sock.getsockname(), node=self.node.store.node)
        self._up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; streams of events would not end by themselves."""
        self.node.feed.close()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        return await super().on_tick(counter) or self.node_died

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM stop the server; what they meant before, they mean again afterwards."""
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
        for number in before:
            loop.add_signal_handler(number, self.stop)
        if self._was_told_to_stop():
            self.stop()
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


def run(
    settings: Settings,
    sock: socket.socket,
    *,
    demo: bool = False,
    was_told_to_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Serve on `sock` until a signal comes. Exits with 3 if it can't start, with 1 if a loop dies.

    `was_told_to_stop`: whether a signal came before this listens for them. SettingsError if the settings, or the Redis
    that they name, won't do.
    """
    server = Server(create_app(settings, demo=demo), settings, was_told_to_stop=was_told_to_stop)
    _spare_the_collector()
    try:
        server.run(sockets=[sock])
    except StartError:
        sys.exit(STARTUP_FAILURE)
    if server.node_died:
        sys.exit(LOOP_DIED)


def _spare_the_collector() -> None:
    """Collect cyclic garbage less often, and never look at what is here for good.

    By default a full collection comes with every few hundred joins, and stops the node for 150 ms at 4,000 sessions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@asynccontextmanager
async def serving(settings: Settings, sock: socket.socket, *, demo: bool = False) -> AsyncIterator[Server]:
    """Serve on `sock` in the running loop, without signal handlers; leaving stops at once, without a drain."""
    server = Server(create_app(settings, demo=demo), settings)
    main = asyncio.create_task(server._serve([sock]), name="serve")  # noqa: SLF001 - `serve` takes the signals
    up = asyncio.create_task(server.until_up())
    await asyncio.wait({main, up}, return_when=asyncio.FIRST_COMPLETED)
    up.cancel()
    try:
        if not main.done():
            yield server
    finally:
        server.should_exit = True
        await main


def _config(app: App, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="on",
        http=PresenceHttpProtocol,
        ws=PresenceProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=settings.ping_s,
        ws_ping_timeout=settings.ping_timeout_s,
        ws_per_message_deflate=False,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
    )
