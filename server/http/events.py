"""What happens in a pool, as Server-Sent Events: live, resumable, and with how things stand beside it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Annotated

import msgspec
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from server.domain.events import EventType
from server.http.auth import Access
from server.http.problems import InvalidError
from server.http.routing import Answer, AnyCall, Call, Operation, PoolParams, operation
from server.http.views import live_view
from server.live.stream import StreamId
from server.node.http_protocol import ABORT
from server.node.reader import Reader, Wants

MEDIA_TYPE = "text/event-stream"
SEND_WITHIN_S = 30.0
_TYPES = tuple(each.value for each in EventType)
_EXTRAS = ("capacity", "sessions", "line")


class EventParams(PoolParams, frozen=True):
    """What to read: `types` of events, comma-separated (all without it); `with`: what else, of `capacity`, `sessions`
    and `line`; `last_event_id`: behind which event to go on, for those who can't send the header `Last-Event-ID`."""

    types: Annotated[
        str | None, msgspec.Meta(description="Only events of these types, comma-separated; all without it.")
    ] = None
    extras: Annotated[
        str | None,
        msgspec.Meta(description="What else: of `capacity`, `sessions` and `line`, comma-separated."),
    ] = msgspec.field(name="with", default=None)
    last_event_id: Annotated[
        str | None, msgspec.Meta(description="Go on behind this event, for who can't send `Last-Event-ID`.")
    ] = None


class EventStream(EventSourceResponse):
    """The stream of one reader. The reader keeps it alive by itself, since only it knows where it is."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader.frames(), ping=0, send_timeout=SEND_WITHIN_S)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the reader ends, leaves, or takes nothing for too long."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            self._reader.cut_off("takes_nothing")
        finally:
            self._reader.close()


@operation("GET", "/v1/events", Access.KEY, answers={200: bytes}, errors=(404, 503), media_type=MEDIA_TYPE)
async def read_events(call: Call[None, EventParams]) -> Answer:
    """Read what happens in a pool, as Server-Sent Events, from now on or behind `Last-Event-ID`.

    Each event of the stream has an `id`. With `with=` further messages without one tell how things stand: `capacity`,
    `session` and `session_gone`, `line`. `reset` says that what was missed can't be told any more.
    """
    wants, after = _wants(call.query), _after(call)
    await call.node.store.config(call.pool)  # an unknown pool has no silent stream
    if call.request.method == "HEAD":
        call.node.feed.check_room()
        return Answer(EventSourceResponse(iter(())))
    cut = call.request.scope.get("extensions", {}).get(ABORT, _nothing)
    show = partial(live_view, call.node)
    return Answer(EventStream(await call.node.feed.open(call.pool, wants, after, show=show, cut=cut)))


OPERATIONS: tuple[Operation, ...] = (read_events,)


def _wants(query: EventParams) -> Wants:
    types = None if query.types is None else _named("types", query.types, _TYPES)
    extras = _named("with", query.extras or "", _EXTRAS)
    return Wants(types, *(extra in extras for extra in _EXTRAS))


def _named(parameter: str, text: str, valid: Iterable[str]) -> frozenset[str]:
    named = frozenset(name.strip() for name in text.split(",")) - {""}
    if unknown := sorted(named.difference(valid)):
        raise InvalidError(
            f"In the query: {parameter} names {', '.join(unknown)[:100]}; valid are {', '.join(valid)}."
        )
    return named


def _after(call: AnyCall) -> StreamId | None:
    """The header first: a browser that comes back sends the newest id there, and its first one in the address."""
    text = call.request.headers.get("last-event-id") or call.query.last_event_id
    if not text:
        return None
    try:
        return StreamId.parse(text)
    except ValueError as error:
        raise InvalidError(
            "Last-Event-ID must be the id of an event, like 1732460000000-0; without it the stream begins now."
        ) from error


def _nothing() -> None:
    """Where the connection can't be cut off, it ends when the client leaves."""
