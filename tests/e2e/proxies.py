"""A proxy in front of server nodes, as operators and networks have them: it knows where WebSockets want to go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

HEAD_ENDS = b"\r\n\r\n"
SWALLOW = 0
PAGE = b"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><title>Interview</title>"

Answer = tuple[HTTPStatus, dict[str, str], bytes]


class Front:
    """Takes a browser to the first of `nodes` that answers, as a load balancer does.

    It serves two empty pages of its own, so that both are of one origin with the nodes: `/page`, and `/strict` with a
    policy that forbids WebSockets, workers and `eval`. `handshakes` has the time (`time.time`) of each WebSocket
    handshake that reached it. `refuses`: with which HTTP status it answers them; SWALLOW: never; None: it lets them
    pass.
    """

    def __init__(self, *nodes: str) -> None:
        self.nodes = list(nodes)
        self.handshakes: list[float] = []
        self.refuses: int | None = None
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen while this is entered; then everything is closed."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="front")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(HEAD_ENDS)
                own = self._own_answer(head)
                if own is not None:
                    await _answer(writer, *own)
                elif _is_handshake(head):
                    await self._upgrade(head, reader, writer)
                else:
                    await self._forward(_alone(head), reader, writer)
        finally:
            writer.transport.abort()

    def _own_answer(self, head: bytes) -> Answer | None:
        policy = f"default-src 'none'; script-src 'self'; connect-src {self.url}; img-src data:"
        pages = {"/page": {}, "/strict": {"Content-Security-Policy": policy}}
        headers = pages.get(head.split(b" ", 2)[1].decode())
        return None if headers is None else (HTTPStatus.OK, {"Content-Type": "text/html", **headers}, PAGE)

    async def _upgrade(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes.append(time.time())
        if self.refuses is None:
            await self._forward(head, reader, writer)
        elif self.refuses == SWALLOW:
            await reader.read()
        else:
            await _answer(writer, HTTPStatus(self.refuses), {}, b"")

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await self._connect()
        far_writer.write(head)
        try:
            async with asyncio.TaskGroup() as group:
                # Whoever of the two ends first ends both: the rest of the connection is of no use to anybody.
                ways = [
                    group.create_task(_pass_on(*way)) for way in ((reader, far_writer), (far_reader, writer))
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        finally:
            far_writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for node in self.nodes:
            place = urlsplit(node)
            with suppress(ConnectionError):
                return await asyncio.open_connection(place.hostname, place.port)
        raise ConnectionRefusedError


def _is_handshake(head: bytes) -> bool:
    return b"\r\nupgrade: websocket\r\n" in head.lower()


def _alone(head: bytes) -> bytes:
    """The request as the only one of its connection: what comes on the same one later would pass unseen."""
    return head.replace(b"\r\nConnection: keep-alive\r\n", b"\r\nConnection: close\r\n")


async def _answer(
    writer: asyncio.StreamWriter, status: HTTPStatus, headers: dict[str, str], body: bytes
) -> None:
    lines = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {status} {status.phrase}\r\n{head}\r\n".encode() + body)
    writer.close()
    await writer.wait_closed()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()
        await sink.wait_closed()
