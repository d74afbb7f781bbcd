"""A participant's page without a browser: it keeps its session connected as `client.js` does."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.node_api import Json

STAY_AWAY = frozenset({1003, 1009, 4400, 4401, 4408, 4409, 4410, 4426})
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.25, 2.0
PATIENCE_S = 10.0
OPTIONS: dict[str, Any] = {
    "subprotocols": ["presence.v1"],
    "proxy": None,
    "compression": None,
    "ping_interval": None,
    "max_queue": None,
    "close_timeout": 1,
}


class Visitor:
    """One tab of a participant: comes back to the next node with its newest token and a rising attempt.

    `heard` has every message with the time at which it came; `interview` is the last that was said of it;
    `closes` has the codes with which it lost a socket, `moves` those with which the old one ended on a move.
    `accepts`: an offer is accepted at once while the page is visible, as `client.js` does.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        opened: Json,
        *,
        first: int = 0,
        rng: random.Random | None = None,
        accepts: bool = False,
    ) -> None:
        self.session_id: str = opened["session_id"]
        self.token: str = opened["token"]
        self.interview: Json = opened["interview"]
        self.heard: list[tuple[float, Json]] = []
        self.closes: list[int] = []
        self.moves: list[int] = []
        self.attempt = 0
        self.node = ""
        self.visible = True
        self._accepts = accepts
        self._nodes = nodes
        self._turn = first
        self._rng = rng or random.Random(self.session_id)
        self._tab = f"tab-{self.session_id}"
        self._socket: ClientConnection | None = None
        self._news = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    # What a test does

    async def __aenter__(self) -> Self:
        await self.arrive()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave_politely()

    async def arrive(self) -> Self:
        """Connect, and stay connected until told otherwise."""
        self._life = asyncio.create_task(self._live(), name=f"visitor {self.session_id}")
        await self.until_welcomed(1)
        return self

    async def say(self, kind: str, **fields: object) -> None:
        """Send a message."""
        assert self._socket is not None
        await self._socket.send(json.dumps({"type": kind, **fields}))

    async def show(self, *, visible: bool) -> None:
        """The page comes to the foreground, or goes to the background."""
        self.visible = visible
        await self.say("visible", visible=visible)
        await self._accept_if_offered()

    async def reload(self, *, is_abrupt: bool = False) -> None:
        """Lose the socket, politely or not, and come back to the next node."""
        assert self._socket is not None
        times = len(self.welcomes)
        if is_abrupt:
            self._socket.transport.abort()
        else:
            await self._socket.close()
        await self.until(lambda: self.ended or len(self.welcomes) > times)

    async def vanish(self) -> None:
        """Be gone without a goodbye, for good: as a browser that is killed."""
        await self._stop_life()
        if self._socket is not None:
            self._socket.transport.abort()
            await self._socket.wait_closed()

    async def leave_politely(self) -> None:
        """Close the tab."""
        await self._stop_life()
        if self._socket is not None:
            await self._socket.close()

    async def end_of_socket(self) -> int:
        """The close code of the socket that it has, once that is closed."""
        assert self._socket is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._socket.wait_closed()
        return self._socket.close_code or 1006

    async def until(self, condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        """Wait until what was heard makes `condition` true."""
        async with asyncio.timeout(within_s):
            while not condition():
                if self._life is not None and self._life.done() and not self._life.cancelled():
                    self._life.result()
                self._news.clear()
                await self._news.wait()

    async def until_state(self, *states: str, within_s: float = PATIENCE_S) -> None:
        """Wait until it stands in one of these states."""
        await self.until(lambda: self.state in states, within_s)

    async def until_welcomed(self, times: int) -> None:
        """Wait until its hellos were answered so many times."""
        await self.until(lambda: len(self.welcomes) >= times)

    async def until_told(self, kind: str) -> None:
        """Wait until a message of this type has come."""
        await self.until(lambda: bool(self.messages(kind)))

    # What it knows

    @property
    def welcomes(self) -> list[Json]:
        """The answers to its hellos."""
        return self.messages("welcome")

    @property
    def state(self) -> str:
        """Where it stands."""
        return str(self.interview["state"])

    @property
    def fence(self) -> int | None:
        """The fence of its permit."""
        return self.interview.get("fence")

    @property
    def ended(self) -> bool:
        """Whether it was told to stay away."""
        return bool(self.closes) and self.closes[-1] in STAY_AWAY

    def messages(self, kind: str) -> list[Json]:
        """All messages of a type so far."""
        return [message for _, message in self.heard if message["type"] == kind]

    def time_of(self, kind: str, **expected: object) -> float:
        """When (`time.perf_counter`) the last message of this type and with these values came."""
        return next(
            at
            for at, message in reversed(self.heard)
            if message["type"] == kind and expected.items() <= message.items()
        )

    # How it lives

    async def _live(self) -> None:
        failures = 0
        while not self.ended:
            try:
                await self._serve_one()
                failures = 0
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                failures += 1
                longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**failures)
                await asyncio.sleep(self._rng.uniform(0, longest))

    async def _serve_one(self) -> None:
        """Connect, then read until the socket ends, or until it is told to move."""
        before, self.node = self._socket, self._nodes[self._turn % len(self._nodes)]
        self._turn += 1
        socket = await connect(self.node, **OPTIONS)
        try:
            await self._greet(socket)
        except BaseException:
            socket.transport.abort()
            raise
        self._socket = socket
        if before is not None:
            await before.close()  # only now: told to move, a page connects anew before it closes
            self.moves.append(before.close_code or 1006)
        await self._accept_if_offered()
        await self._read(socket)

    async def _accept_if_offered(self) -> None:
        if self._accepts and self.visible and self.state == "offered":
            await self.say("accept")

    async def _greet(self, socket: ClientConnection) -> None:
        self.attempt += 1
        hello = {"type": "hello", "token": self.token, "tab": self._tab, "attempt": self.attempt}
        known = len(self.welcomes)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await socket.send(json.dumps({**hello, "visible": self.visible}))
                while len(self.welcomes) == known:
                    self._take(json.loads(await socket.recv()))
        except ConnectionClosed:
            self._note_close(socket)
            raise

    async def _read(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await socket.recv())
                self._take(message)
                if message["type"] == "interview":
                    await self._accept_if_offered()
                if message["type"] == "drain":
                    await asyncio.sleep(message["reconnect_in_ms"] / 1000)
                    return
        self._note_close(socket)
        self._socket = None

    def _take(self, message: Json) -> None:
        self.heard.append((time.perf_counter(), message))
        if message["type"] == "welcome":
            self.interview = message["interview"]
        elif message["type"] == "interview":
            self.interview = message
        elif message["type"] == "token":
            self.token = message["token"]
        self._news.set()

    def _note_close(self, socket: ClientConnection) -> None:
        self.closes.append(socket.close_code or 1006)
        self._news.set()

    async def _stop_life(self) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
