"""Server-Sent Events on the wire: each message is encoded once, for however many readers. Pure."""

from __future__ import annotations

import msgspec

from server.domain.events import Event, view

RETRY_MS = 2000
_encode = msgspec.json.Encoder().encode


def message(name: str, body: object) -> bytes:
    """A message without an id: it is made of how things stand, and can't be asked for again."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode(body))


def event_message(event: Event) -> bytes:
    """An event of the stream, under its id there."""
    return b"id: %s\n%s" % ((event.id or "").encode(), message(event.type, view(event)))


def place(last_id: str) -> bytes:
    """Tells a reader where it is, though nothing came: browsers dispatch no event for it, but resume from there."""
    return f"id: {last_id}\n\n".encode()


def opening(last_id: str) -> bytes:
    """The first bytes: they open the stream in every proxy, and say after how long to come back."""
    return f": presence events\nretry: {RETRY_MS}\n".encode() + place(last_id)


def alive(last_id: str) -> bytes:
    """A comment that keeps proxies from closing a silent stream."""
    return b": alive\n" + place(last_id)
