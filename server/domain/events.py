"""Events: what happened in a pool, as the scripts write it to the pool's stream."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from server.domain.times import iso


class EventType(StrEnum):
    """Every kind of event."""

    SESSION_STARTED = "session_started"
    SESSION_RESUMED = "session_resumed"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    OFFLINE = "offline"
    PAGE = "page"
    WAITING = "waiting"
    OFFERED = "offered"
    OFFER_MISSED = "offer_missed"
    GRANTED = "granted"
    GRACE = "grace"
    RELEASED = "released"
    TAKEN_OVER = "taken_over"
    LEFT_LINE = "left_line"
    COMPLETED = "completed"
    ABANDONED = "abandoned"
    KICKED = "kicked"
    POOL_CHANGED = "pool_changed"
    RECOVERY_STARTED = "recovery_started"
    RECOVERY_ENDED = "recovery_ended"


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event. `seq` counts up from 1 in each `epoch` without gaps; `at` is wall-clock ms.

    `cause` says why (`closed`, `timeout`, `max_length`, ...); `connection_id` and `tab` name the connection
    of `connected` and `disconnected`; `actor` is who changed the pool; `id` is where it stands in the stream.
    """

    type: EventType
    seq: int
    epoch: str
    at: int
    session_id: str | None = None
    user_id: str | None = None
    fence: int | None = None
    ticket: int | None = None
    cause: str | None = None
    connection_id: str | None = None
    tab: str | None = None
    actor: str | None = None
    id: str | None = None


class EventView(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as the outside sees it: `at` is ISO 8601 UTC."""

    type: EventType
    seq: int
    epoch: str
    at: str
    session_id: str | None = None
    user_id: str | None = None
    fence: int | None = None
    ticket: int | None = None
    cause: str | None = None
    connection_id: str | None = None
    tab: str | None = None
    actor: str | None = None


def view(event: Event) -> EventView:
    """The view of `event`."""
    fields = {name: getattr(event, name) for name in EventView.__struct_fields__}
    return EventView(**{**fields, "at": iso(event.at)})
