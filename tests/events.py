"""Reads Server-Sent Events as a browser's EventSource does, and remembers the last id for coming back."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from redis import Redis

from tests.conftest import TEST_API_KEY

PATIENCE_S = 10.0
KEY = {"Authorization": f"Bearer {TEST_API_KEY}"}


@dataclass(frozen=True, slots=True)
class Message:
    """What a browser would dispatch."""

    name: str
    data: dict[str, Any]
    id: str | None


class Stream:
    """A stream that is open. `last_id` is what a browser would resume with."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self.comments = 0
        self._blocks = self._read()

    async def _read(self) -> AsyncIterator[Message | None]:
        """Each block; None for one that holds no message."""
        fields: dict[str, str] = {}
        async for line in self.response.aiter_lines():
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                fields[name] = value
            else:
                self.last_id = fields.get("id", self.last_id)
                message = (
                    Message(fields["event"], json.loads(fields["data"]), fields.get("id"))
                    if "data" in fields
                    else None
                )
                fields = {}
                yield message

    async def block(self) -> Message | None:
        """The next block, whatever it holds."""
        async with asyncio.timeout(PATIENCE_S):
            return await anext(self._blocks)

    async def next(self, *names: str) -> Message:
        """The next message, of these names if any are given; those of others are passed over."""
        while True:
            message = await self.block()
            if message is not None and (not names or message.name in names):
                return message

    async def take(self, count: int, *names: str) -> list[Message]:
        """The next messages."""
        return [await self.next(*names) for _ in range(count)]

    async def rest(self) -> list[Message]:
        """All that comes until the server ends the stream."""
        async with asyncio.timeout(PATIENCE_S):
            return [message async for message in self._blocks if message is not None]


def _message(fields: dict[str, str]) -> Message:
    return Message(fields["event"], json.loads(fields["data"]), fields.get("id"))


@asynccontextmanager
async def reading(url: str, last_id: str | None = None, **params: str) -> AsyncIterator[Stream]:
    """Read the events of a server; `params` as in the query."""
    headers = KEY if last_id is None else {**KEY, "Last-Event-ID": last_id}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False, verify=False) as http,
        http.stream("GET", f"{url}/v1/events", params=params, headers=headers) as response,
    ):
        if response.status_code != httpx.codes.OK:
            await response.aread()
        assert response.status_code == httpx.codes.OK, response.text
        yield Stream(response)


async def until(is_so: Callable[[], bool]) -> None:
    """Return when it is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def never_reading(url: str) -> socket.socket:
    """A client that asks for all events and never takes any."""
    place = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((place.hostname, place.port))
    head = f"GET /v1/events HTTP/1.1\r\nHost: presence\r\nAuthorization: Bearer {TEST_API_KEY}\r\n\r\n"
    sock.sendall(head.encode())
    return sock


def happen(redis_url: str, count: int) -> None:
    """Let so many events happen at once, as if thousands of pages moved on."""
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        config, events = "presence:{main}:config", "presence:{main}:events"
        for _ in range(count // 500):
            pipe = redis.pipeline()
            first = redis.hincrby(config, "seq", 500) - 499
            event = {"type": "page", "epoch": redis.hget(config, "epoch"), "at": 1, "cause": "x" * 4000}
            for seq in range(first, first + 500):
                pipe.xadd(events, {**event, "seq": seq})
            pipe.execute()
