"""What comes in by a WebSocket: the browser's messages decoded, and why a connection was lost."""

from __future__ import annotations

import re

import msgspec
from starlette.types import Message
from websockets.frames import CloseCode

from server.domain.messages import Close, FromBrowser, Heartbeat
from server.node.protocol import TOO_SLOW
from server.node.refusals import RefusedError

CLOSED = "closed"

_HEARTBEAT = b'{"type":"heartbeat"'
_QUOTED = re.compile(r"'[^']*'")
_CAUSE_OF_CLOSE = {
    Close.TOO_SLOW: TOO_SLOW,
    Close.SUPERSEDED: "drain",
    CloseCode.SERVICE_RESTART: "drain",
}

_decoder: msgspec.json.Decoder[FromBrowser] = msgspec.json.Decoder(FromBrowser)


def decode(message: Message) -> FromBrowser:
    """The message in an ASGI event. RefusedError, saying what is wrong, if it is none of ours."""
    text = message.get("text")
    if text is None:
        raise RefusedError(
            Close.BINARY, "binary", "Messages are JSON in text frames; a binary frame is none."
        )
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        # What msgspec quotes is the browser's own and may be anything, even a token.
        detail = _QUOTED.sub("'…'", str(error))
        raise RefusedError(Close.BAD_MESSAGE, "bad_message", f"Bad message: {detail}.") from error


def type_of(message: FromBrowser) -> str:
    """What the protocol calls a message."""
    return str(message.__struct_config__.tag)


def heartbeat_in(frame: bytes) -> Heartbeat | None:
    """The heartbeat that this frame plainly is; None: it is something else, or not as our client writes it."""
    if not frame.startswith(_HEARTBEAT):
        return None
    try:
        message = _decoder.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return message if isinstance(message, Heartbeat) else None


def lost_because(disconnect: Message) -> str:
    """Why a connection was lost, as `Drop.cause` says it."""
    code, reason = disconnect.get("code", CloseCode.NO_STATUS_RCVD), disconnect.get("reason")
    if code == CloseCode.ABNORMAL_CLOSURE and reason:
        return str(reason)
    return _CAUSE_OF_CLOSE.get(code, CLOSED)
