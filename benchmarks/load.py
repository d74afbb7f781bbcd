"""The load: many things at once, sessions by the thousand, and browsers that are light enough not to disturb."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import Any, TypeVar

import msgspec
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.ground import POOL
from server.domain.messages import SUBPROTOCOL, Hello
from server.domain.token import TokenClaims, Tokens
from server.live.store import Store
from server.live.verbs import Open, Opened

Item = TypeVar("Item")
Result = TypeVar("Result")

STORE_CALLS_AT_ONCE = 500
ANSWER_WITHIN_S = 30.0
# What a browser sends along with its handshake.
HEADERS = {
    "Sec-WebSocket-Protocol": SUBPROTOCOL,
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36",
    "Accept-Language": "de-DE,de;q=0.9,en;q=0.8",
    "Cache-Control": "no-cache",
}
_numbers = count(1)


async def each(items: Iterable[Item], act: Callable[[Item], Awaitable[Result]], at_once: int) -> list[Result]:
    """Do it for each item, `at_once` of them at any time; the results in the order in which they came."""
    results: list[Result] = []
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            results.append(await act(item))  # noqa: PERF401 - the workers share the iterator

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return results


async def open_sessions(store: Store, number: int) -> list[Opened]:
    """So many new sessions, each of a user of its own."""

    def new() -> Iterable[Open]:
        for _ in range(number):
            name = f"session-{next(_numbers):07}"
            yield Open(session_id=name, user_id=f"user-of-{name}", language_code="de", current_page="home")

    return await each(new(), lambda item: store.open(POOL, item), STORE_CALLS_AT_ONCE)


def hello(opened: Opened, tokens: Tokens) -> bytes:
    """The first message of the session's browser."""
    record = opened.record
    claims = TokenClaims(
        session_id=record.session_id,
        pool=POOL,
        user_id=record.user_id,
        started_at=record.started_at,
        language_code=record.language_code,
    )
    token = tokens.issue(claims, time.time())
    return msgspec.json.encode(Hello(token=token, tab=f"tab-{record.session_id}", page="home", visible=True))


class Browser(WSListener):
    """A WebSocket that waits for one message at a time, told by what is in it."""

    def __init__(self) -> None:
        self._transport: WSTransport | None = None
        self._awaited: asyncio.Future[float] | None = None
        self._mark = b""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """See picows."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002 - picows' signature
        """See picows."""
        if self._awaited is None or self._awaited.done() or frame.msg_type != WSMsgType.TEXT:
            return
        if self._mark in frame.get_payload_as_bytes():
            self._awaited.set_result(time.perf_counter())

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002 - picows' signature
        """See picows."""
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(ConnectionError("the server closed a connection"))

    def expect(self, mark: bytes) -> asyncio.Future[float]:
        """When (by time.perf_counter) the next message comes that has `mark` in it."""
        self._mark = mark
        self._awaited = asyncio.get_running_loop().create_future()
        return self._awaited

    def send(self, text: bytes) -> None:
        """Send a message."""
        self._connected.send(WSMsgType.TEXT, text)

    async def ask(self, text: bytes, mark: bytes) -> float:
        """Send, and wait for the answer with `mark` in it."""
        answer = self.expect(mark)
        self.send(text)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await answer

    def close(self) -> None:
        """Close as a tab does."""
        self._connected.send_close(WSCloseCode.GOING_AWAY)
        self._connected.disconnect()

    @property
    def _connected(self) -> WSTransport:
        if self._transport is None:
            raise ConnectionError("not connected")
        return self._transport


async def connect(url: str) -> Browser:
    """A browser whose handshake is done."""
    _, browser = await ws_connect(
        Browser, url, extra_headers=HEADERS, websocket_handshake_timeout=ANSWER_WITHIN_S
    )
    if not isinstance(browser, Browser):
        raise TypeError(browser)
    return browser


def percentile(values: list[float], part: float) -> float:
    """The value below which `part` (0 to 1) of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def frame(**fields: Any) -> bytes:  # noqa: ANN401 - whatever the message has
    """A message to the server."""
    return msgspec.json.encode(fields)
