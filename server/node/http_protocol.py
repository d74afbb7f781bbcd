"""uvicorn's HTTP protocol, with a bound on what may come before a request: its size and its time."""

from __future__ import annotations

import asyncio
from asyncio.transports import BaseTransport
from typing import Any, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger(__name__)

ABORT = "presence.abort"  # our ASGI extension: disconnects the client at once, whatever it has yet to take
MAX_HEAD_BYTES = 16 * 1024
HEAD_WITHIN_S = 10.0

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PresenceHttpProtocol(HttpToolsProtocol):
    """One HTTP connection below ASGI, which becomes a WebSocket after its handshake.

    Without these bounds a head of any size is kept in memory, and a connection that never sends one stays for ever,
    before any limit of ours counts it.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: BaseTransport) -> None:
        """Expect a head."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Parse; what is not parsed into a whole head by then counts against the bound."""
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(_TOO_LARGE)
                self._give_up("head_too_large")

    def on_message_begin(self) -> None:
        """Another request on the same connection."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {ABORT: self.transport.abort}
        self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._forget_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._forget_timer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._give_up, "no_request")

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self, why: str) -> None:
        self._forget_timer()
        address: Any = self.client[0] if self.client else ""
        log.info("connection_refused", error=why, address=address)
        self.transport.close()
