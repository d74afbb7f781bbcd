"""A browser as the server sees it: a WebSocket that speaks `presence.v1`, and a network that can be cut."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE_S = 8.0
_attempts = itertools.count(1)


class Browser:
    """One WebSocket. Messages are read in order; `next` skips those of other types."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    @classmethod
    async def open(cls, ws_url: str, **options: Any) -> Self:  # noqa: ANN401 - they are `connect`'s
        """Connect, without a hello."""
        settings: dict[str, Any] = {
            "subprotocols": ["presence.v1"],
            "proxy": None,
            "ping_interval": None,
            "close_timeout": 1,
        }
        return cls(await connect(ws_url, **{**settings, **options}))

    @classmethod
    async def join(cls, ws_url: str, token: str, tab: str = "tab", **hello: object) -> Self:
        """Connect, say hello and wait for the welcome."""
        browser = await cls.open(ws_url)
        await browser.say("hello", token=token, tab=tab, **{"attempt": next(_attempts), **hello})
        browser.welcome = await browser.next("welcome")
        return browser

    welcome: dict[str, Any]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.socket.close()

    async def say(self, kind: str, **fields: object) -> None:
        """Send a message."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self, kind: str, **expected: object) -> dict[str, Any]:
        """The next message of this type, and with these values."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if message["type"] == kind and expected.items() <= message.items():
                    return message

    async def closed(self) -> tuple[int, list[dict[str, Any]]]:
        """The close code, and the messages that came before it."""
        messages = []
        with suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    messages.append(json.loads(await self.socket.recv()))
        code = self.socket.close_code
        assert code is not None
        return code, messages


class Network:
    """A TCP proxy that can stop forwarding, as a lost network does: no data gets through, and no closing either."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    def cut(self) -> None:
        """Forward nothing any more."""
        self._flows.clear()

    def restore(self) -> None:
        """Forward again, first what has waited."""
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, far_writer]
        self._tasks.append(asyncio.create_task(self._forward(reader, far_writer)))
        self._tasks.append(asyncio.create_task(self._forward(far_reader, writer)))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data)
        await self._flows.wait()
        sink.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen while this is entered; then everything is closed."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.transport.abort()
                with suppress(ConnectionError):
                    await writer.wait_closed()
