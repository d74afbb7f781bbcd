"""The messages of the WebSocket protocol `presence.v1`, as types that validate them, and its close codes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, cast

import msgspec
from msgspec.inspect import StructType, type_info

from server.domain.interview import Interview
from server.domain.pool import Capacity
from server.domain.session import Page

SUBPROTOCOL = "presence.v1"
MAX_MESSAGE_BYTES = 4096
HELLO_WITHIN_S = 5.0

TabId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Attempt = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]


class Close(IntEnum):
    """Close codes. 4000-4099, and when something broke here: come back; all others: stay away."""

    BINARY = 1003
    TOO_LARGE = 1009
    INTERNAL = 1011
    SUPERSEDED = 4000
    TOO_SLOW = 4008
    TOO_MANY_MESSAGES = 4029
    TOO_MANY_CONNECTIONS = 4030
    REDIS_AWAY = 4031
    BAD_MESSAGE = 4400
    BAD_TOKEN = 4401
    NO_HELLO = 4408
    TAKEN_OVER = 4409
    ENDED = 4410
    NO_PROTOCOL = 4426

    @property
    def comes_back(self) -> bool:
        """Whether a client that is closed with this code connects again by itself."""
        return self is Close.INTERNAL or 4000 <= self.value < 4100  # noqa: PLR2004 - the range is the protocol's


# For the protocol's page.
MEANINGS: Mapping[Close, str] = {
    Close.BINARY: "a binary frame: messages are text",
    Close.TOO_LARGE: f"a message over {MAX_MESSAGE_BYTES // 1024} KiB, or in too many fragments",
    Close.INTERNAL: "something broke in the server",
    Close.SUPERSEDED: "the node stops (after `drain`), or a newer attempt of the same tab has connected",
    Close.TOO_SLOW: "the client reads too slowly, and too much is unsent",
    Close.TOO_MANY_MESSAGES: "more messages in a second than are allowed",
    Close.TOO_MANY_CONNECTIONS: "this node, or this client address, has as many connections as it may",
    Close.REDIS_AWAY: "Redis does not answer, so nobody can be let in now",
    Close.BAD_MESSAGE: "no JSON, an unknown `type`, a wrong field, or a first message that is no `hello`",
    Close.BAD_TOKEN: "the token is bad, expired, or its session unknown: get a new one",
    Close.NO_HELLO: f"no `hello` within {HELLO_WITHIN_S:g} s",
    Close.TAKEN_OVER: "another tab has the session now",
    Close.ENDED: "the session has ended; the reason is its `end_reason`",
    Close.NO_PROTOCOL: f"the subprotocol {SUBPROTOCOL} was not offered",
}

# A drained client and one whose attempt was superseded are told the same: come back.
DRAIN = Close.SUPERSEDED


class _FromBrowser(msgspec.Struct, frozen=True, tag_field="type"):
    """A message from the browser. Unknown fields are ignored, so that old servers take newer clients."""


class Hello(_FromBrowser, frozen=True, tag="hello"):
    """The first message, within 5 s. `attempt` rises with each connection that a tab makes."""

    token: Token
    tab: TabId | None = None
    attempt: Attempt = 0
    page: Page | None = None
    visible: bool | None = None


class Heartbeat(_FromBrowser, frozen=True, tag="heartbeat"):
    """A sign of life of the page's script, answered by `ack` with the same `seq`."""

    seq: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    visible: bool | None = None


class PageChanged(_FromBrowser, frozen=True, tag="page"):
    """The participant is on another page."""

    page: Page


class Visible(_FromBrowser, frozen=True, tag="visible"):
    """The page was shown or hidden."""

    visible: bool


class Enter(_FromBrowser, frozen=True, tag="enter"):
    """Claim a permit or a place in the line."""

    takeover: bool = False


class Accept(_FromBrowser, frozen=True, tag="accept"):
    """Accept the offered permit."""


class Leave(_FromBrowser, frozen=True, tag="leave"):
    """Give back the permit, or leave the line."""


class Complete(_FromBrowser, frozen=True, tag="complete"):
    """The interview is finished: the session ends as completed."""


class Watch(_FromBrowser, frozen=True, tag="watch"):
    """Send `capacity` whenever it changes."""


class Unwatch(_FromBrowser, frozen=True, tag="unwatch"):
    """Send no more `capacity`."""


FromBrowser = Hello | Heartbeat | PageChanged | Visible | Enter | Accept | Leave | Complete | Watch | Unwatch


class _ToBrowser(msgspec.Struct, frozen=True, tag_field="type"):
    """A message to the browser."""


class Welcome(_ToBrowser, frozen=True, tag="welcome"):
    """The answer to `hello`. `resumed`: the session had been connected before."""

    session_id: str
    connection_id: str
    resumed: bool
    heartbeat_s: float
    interview: Interview
    capacity: Capacity


class Ack(_ToBrowser, frozen=True, tag="ack"):
    """The answer to the heartbeat of the same `seq`."""

    seq: int


class TokenMessage(_ToBrowser, frozen=True, tag="token"):
    """A newer token: on grant, on joining the line, and before the old one expires."""

    token: str


class Drain(_ToBrowser, frozen=True, tag="drain"):
    """This node stops: connect anew after so many ms, then close this socket."""

    reconnect_in_ms: int


class ErrorMessage(_ToBrowser, frozen=True, tag="error", omit_defaults=True):
    """Something went wrong; a close may follow. `code` is for programs, `message` for people."""

    code: str
    message: str
    retry_in_ms: int | None = None


ToBrowser = Welcome | Ack | TokenMessage | Drain | ErrorMessage | Interview | Capacity

_encode = msgspec.json.Encoder().encode
# Untagged in HTTP.
_UNTAGGED: dict[type, str] = {Interview: "interview", Capacity: "capacity"}
_PREFIX = {kind: f'{{"type":"{name}",'.encode() for kind, name in _UNTAGGED.items()}


def type_of(kind: type) -> str:
    """The `type` of the messages of this kind."""
    return _UNTAGGED.get(kind) or str(cast("StructType", type_info(kind)).tag)


def encode(message: ToBrowser) -> str:
    """The text frame for `message`. The interview and capacity objects, untagged in HTTP, get their `type` here."""
    body = _encode(message)
    prefix = _PREFIX.get(type(message))
    return (body if prefix is None else prefix + body[1:]).decode()
