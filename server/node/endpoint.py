"""The WebSocket endpoint: from the handshake to the welcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import structlog
from starlette.types import Receive, Scope, Send

from server.domain.addresses import TrustedProxies, is_private
from server.domain.errors import PresenceError, SessionEndedError
from server.domain.messages import DRAIN, HELLO_WITHIN_S, SUBPROTOCOL, Close, Drain, Hello, encode
from server.domain.token import Verified
from server.live.verbs import Connect, Connected
from server.node.connection import Connection
from server.node.hub import Held, known_of
from server.node.incoming import decode, type_of
from server.node.limits import ConnectionLimits, MessageRate
from server.node.node import Node
from server.node.protocol import TRANSPORT, Transport
from server.node.refusals import RefusedError, refusal, refuse, retry_in_ms

log = structlog.get_logger(__name__)

PATH = "/ws"
FORBIDDEN, NOT_FOUND = 403, 404
FORBIDDEN_ORIGIN = "forbidden_origin"

AllowsOrigin = Callable[[str | None, str | None], bool]


@dataclass(slots=True, frozen=True)
class Handshake:
    """What of a handshake matters; taken out of the ASGI scope, which the transport empties once it is done."""

    path: str
    peer: str
    origin: str | None
    host: str | None
    forwarded_for: tuple[str, ...]
    offered: tuple[str, ...]
    transport: Transport

    @classmethod
    def of(cls, scope: Scope) -> Handshake:
        """The handshake in `scope`."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        return cls(
            path=scope["path"],
            peer=scope["client"][0] if scope.get("client") else "",
            origin=next(iter(headers.get(b"origin", ())), None),
            host=next(iter(headers.get(b"host", ())), None),
            forwarded_for=tuple(headers.get(b"x-forwarded-for", ())),
            offered=tuple(scope.get("subprotocols", ())),
            transport=cast("Transport", scope["extensions"][TRANSPORT]),
        )

    @property
    def subprotocol(self) -> str | None:
        """What is echoed: ours if it is offered, else the first one, since a browser wants one of its own."""
        return SUBPROTOCOL if SUBPROTOCOL in self.offered else next(iter(self.offered), None)


class WebSocketEndpoint:
    """`/ws` as an ASGI application; it needs `PresenceProtocol` below it."""

    def __init__(self, node: Node, allows_origin: AllowsOrigin, proxies: TrustedProxies) -> None:
        settings = node.settings
        self._node = node
        self._allows_origin = allows_origin
        self._proxies = proxies
        self._limits = ConnectionLimits(settings.max_connections, settings.connections_per_ip)
        self._rate = MessageRate(settings.messages_per_s)
        self._said_unlimited = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the connection from its handshake to its end."""
        await receive()
        handshake = Handshake.of(scope)
        del scope
        address = self._proxies.client(handshake.peer, handshake.forwarded_for)
        if status := self._forbids(handshake, address):
            await _respond(send, status)
            return
        await send({"type": "websocket.accept", "subprotocol": handshake.subprotocol})
        transport, offered = handshake.transport, handshake.offered
        del handshake
        try:
            with self._counted(address):
                self._check(transport, offered)
                connection = await self._greet(receive, transport)
                if connection is not None:
                    await connection.live(receive)
        except RefusedError as refused:
            refuse(transport, refused, self._node.measured.connections.refused, address=address)

    def _forbids(self, handshake: Handshake, address: str) -> int | None:
        if handshake.path != PATH:
            return NOT_FOUND
        if self._allows_origin(handshake.origin, handshake.host):
            return None
        self._node.measured.connections.refused.at(FORBIDDEN_ORIGIN).add()
        log.warning("origin_refused", origin=handshake.origin, host=handshake.host, address=address)
        return FORBIDDEN

    def _check(self, transport: Transport, offered: tuple[str, ...]) -> None:
        if SUBPROTOCOL not in offered:
            raise RefusedError(Close.NO_PROTOCOL, "no_protocol", f"Offer the subprotocol {SUBPROTOCOL}.")
        if self._node.draining:
            transport.send_text(encode(Drain(reconnect_in_ms=retry_in_ms())))
            raise RefusedError(DRAIN, "drain", "This node is stopping.")

    @contextmanager
    def _counted(self, address: str) -> Iterator[None]:
        """Hold one of the connections that this node, and this address, may have."""
        if not self._limits.enter(address, limited=self._is_limited(address)):
            raise RefusedError(
                Close.TOO_MANY_CONNECTIONS, "too_many_connections", "Too many connections; try again later."
            )
        try:
            yield
        finally:
            self._limits.leave(address)

    def _is_limited(self, address: str) -> bool:
        """Behind a proxy that we were not told of, everybody seems to come from its one private address."""
        if self._proxies or not is_private(address):
            return True
        if not self._said_unlimited:
            self._said_unlimited = True
            log.info(
                "private_addresses_are_not_limited",
                address=address,
                mend="set PRESENCE_TRUSTED_PROXIES if a proxy stands before this server",
            )
        return False

    async def _greet(self, receive: Receive, transport: Transport) -> Connection | None:
        """The connection, registered and welcomed; None if it went away without a word."""
        hello = await self._hello(receive, transport)
        if hello is None:
            return None
        try:
            verified = self._node.tokens.verify(hello.token, time.time())
            connected = await self._node.store.connect(verified.claims.pool, self._connect(hello, verified))
        except SessionEndedError as ended:
            raise RefusedError(Close.ENDED, ended.end_reason, str(ended)) from ended
        except PresenceError as error:
            raise refusal(error) from error
        return self._welcome(hello, verified, connected, transport)

    async def _hello(self, receive: Receive, transport: Transport) -> Hello | None:
        greeting = self._node.hub.greeting
        greeting[transport] = asyncio.get_running_loop().time() + HELLO_WITHIN_S
        try:
            event = await receive()
        finally:
            del greeting[transport]
        if event["type"] != "websocket.receive":
            return None
        message = decode(event)
        self._node.measured.connections.messages.at(type_of(message)).add()
        if not isinstance(message, Hello):
            raise RefusedError(Close.BAD_MESSAGE, "bad_message", "Bad message: the first one is the hello.")
        return message

    def _connect(self, hello: Hello, verified: Verified) -> Connect:
        return Connect(
            session_id=verified.claims.session_id,
            node=self._node.store.node,
            known=known_of(verified),
            tab=hello.tab,
            attempt=hello.attempt,
            page=hello.page,
            visible=hello.visible,
            token_expired=verified.expired,
        )

    def _welcome(
        self, hello: Hello, verified: Verified, connected: Connected, transport: Transport
    ) -> Connection:
        record = connected.record
        held = Held(
            session_id=record.session_id,
            pool=verified.claims.pool,
            user_id=record.user_id,
            language_code=record.language_code,
            started_at=record.started_at,
            connection_id=connected.connection_id,
            tab=hello.tab,
            attempt=hello.attempt,
            page=hello.page,
            visible=hello.visible,
            token_expires_at=verified.expires_at,
        )
        connection = Connection(self._node, transport, held, self._rate)
        connection.welcome(connected, verified)
        self._node.measured.connections.welcomed(resumed=connected.resumed)
        self._node.hub.join(connection)
        return connection


async def _respond(send: Send, status: int) -> None:
    await send({"type": "websocket.http.response.start", "status": status, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b""})
