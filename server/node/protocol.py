"""uvicorn's WebSocket protocol, with sends that never wait and an end that never lingers."""

from __future__ import annotations

import asyncio
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog
from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import OPEN

log = structlog.get_logger(__name__)

TRANSPORT = "presence.transport"  # our ASGI extension: the `Transport` of a connection

MAX_UNSENT_BYTES = 32 * 1024
MAX_FRAGMENTS = 64
CLOSE_WITHIN_S = 2.0

TIMEOUT = "timeout"
TOO_SLOW = "too_slow"


class Transport(Protocol):
    """What a connection may do besides ASGI's `receive` and `send`, in one step and without waiting.

    `on_text` is asked first about each text message; True: it is dealt with, and `receive` does not give it.
    """

    on_text: Callable[[bytes], bool] | None

    def send_text(self, text: str) -> bool:
        """Send a message; False, and nothing is sent, when too much is unsent already."""

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; a peer that does not answer within 2 s is cut off."""

    def abort(self, reason: str) -> None:
        """Cut the connection off now; the next message received is the disconnect with this reason."""


class PresenceProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection below ASGI.

    What differs from uvicorn's own: a ping that times out aborts at once (a polite close waits for TCP to give
    up); every close ends within `CLOSE_WITHIN_S`; a refused message is read to its end, so that the close code
    arrives; what is unsent has a bound; the handshake's headers are forgotten once it is done.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.asgi_version = config.asgi_version
        self.on_text: Callable[[bytes], bool] | None = None

    # What the application may do.

    def send_text(self, text: str) -> bool:
        """See `Transport`. After a close there is nobody to send to, which is no failure."""
        if self.close_sent or self.conn.state is not OPEN or self.transport.is_closing():
            return True
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return False
        self.conn.send_text(text.encode())
        self._flush()
        return True

    def close(self, code: int, reason: str = "") -> None:
        """See `Transport`."""
        if self.close_sent or self.transport.is_closing():
            return
        self._disconnect(code, reason)
        self.conn.send_close(code, reason)
        self._flush()
        self._read_on()
        self._abort_later()

    def abort(self, reason: str) -> None:
        """See `Transport`."""
        if not self.close_sent:
            self._disconnect(CloseCode.ABNORMAL_CLOSURE, reason)
        self.transport.abort()

    async def send(self, message: ASGISendEvent) -> None:
        """ASGI's `send`."""
        if message["type"] == "websocket.close" and self.handshake_complete:
            self.close(message.get("code", CloseCode.NORMAL_CLOSURE), message.get("reason") or "")
            return
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._forget_handshake()
        elif message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # uvicorn would call it incomplete, and log an error

    # What comes from the network.

    def connection_made(self, transport: BaseTransport) -> None:
        """Part the HTTP protocol before us from its parser: they refer to each other, and would keep the transport."""
        before: Any = cast("asyncio.Transport", transport).get_protocol()
        before.parser = None
        super().connection_made(transport)

    def handle_connect(self, event: Request) -> None:
        """Offer our extension to the application, whose task has not run yet."""
        super().handle_connect(event)
        if not self.handshake_complete:
            cast("dict[str, Any]", self.scope["extensions"])[TRANSPORT] = self

    def data_received(self, data: bytes) -> None:
        """Parse and dispatch; after a refused message nothing is listened to."""
        if self.conn.parser_exc is None:
            super().data_received(data)

    def handle_cont(self, event: Frame) -> None:
        """Bound the number of fragments; `ws_max_size` bounds their sum, which empty ones do not raise."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self._refuse(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand on a message; a queue and a task's wake-up cost more than answering a heartbeat does."""
        if self._is_dealt_with():
            self.frames = []
        else:
            super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping, unless the answers pile up."""
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.abort(TOO_SLOW)
        else:
            super().handle_ping()

    def handle_close(self, event: Frame) -> None:
        """The peer closes, or answers our close."""
        super().handle_close(event)
        self._abort_later()

    def handle_parser_exception(self) -> None:
        """Say why, half-close and read on: closing on unread data would reset the connection, code and all."""
        refused_with = self.conn.close_sent
        if refused_with is None:
            self.abort("broken handshake")
            return
        address = self.client[0] if self.client else ""
        log.warning("connection_refused", close=refused_with.code, error=refused_with.reason, address=address)
        self._disconnect(refused_with.code, refused_with.reason)
        self._flush()
        self.transport.write_eof()
        self._read_on()
        self._abort_later()

    def keepalive_timeout(self) -> None:
        """The pong did not come: the peer is gone, and a close frame would wait for it in vain."""
        self.pong_timer = None
        if not self.close_sent and not self.transport.is_closing():
            self.abort(TIMEOUT)

    def shutdown(self) -> None:
        """The server stops."""
        super().shutdown()
        self._abort_later()

    # Steps.

    def _is_dealt_with(self) -> bool:
        is_whole_text = len(self.frames) == 1 and self.curr_msg_data_type == "text" and not self.close_sent
        return is_whole_text and self.on_text is not None and self.on_text(self.frames[0])

    def _refuse(self, code: CloseCode, reason: str) -> None:
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def _disconnect(self, code: int, reason: str) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.close_sent = True
        self.stop_keepalive()

    def _flush(self) -> None:
        data = b"".join(self.conn.data_to_send())
        # One that the peer has reset is closed before we are told so, and uvloop raises when it is written to.
        if not self.transport.is_closing():
            self.transport.write(data)

    def _read_on(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _abort_later(self) -> None:
        """Cut off a peer that does not close; `connection_lost` cancels this."""
        if self.close_timer is None and not self.disconnected:
            self.close_timer = self.loop.call_later(CLOSE_WITHIN_S, self.transport.abort)

    def _forget_handshake(self) -> None:
        """Free the headers, some KB of them; the objects stay, since the parser holds on to them."""
        self.request.headers.clear()
        self.response.headers.clear()
        cast("dict[str, Any]", self.scope).clear()
