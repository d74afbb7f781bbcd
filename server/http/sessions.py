"""Operations on sessions: open, list, look, change, kick."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, TypeVar

import msgspec

from persistence.errors import POSTGRES_AWAY
from persistence.rows import PresenceRow
from server.domain.errors import SessionEndedError, SessionIdTakenError, UnknownPoolError, UnknownSessionError
from server.domain.interview import Interview
from server.domain.pool import PoolChanges
from server.domain.session import (
    METADATA_MAX_BYTES,
    METADATA_MAX_DEPTH,
    EndReason,
    Id,
    LanguageCode,
    Metadata,
    Page,
    Status,
    new_session_id,
)
from server.http import addresses
from server.http.auth import Access
from server.http.interviews import look_at_running, standing
from server.http.listing import Filters, cursor_of, key_of, newest_first
from server.http.pools import ACTOR
from server.http.problems import HistoryAwayError, InvalidError
from server.http.routing import Answer, AnyCall, Call, Input, Operation, PoolParams, operation
from server.http.tokens import token_for
from server.http.views import SessionView, interview_view, live_view, past_view
from server.live.verbs import Finish, Look, Open, Opened, Seen, Update

HISTORY_PATIENCE_S = 5.0

Result = TypeVar("Result")


class NewSession(Input, frozen=True):
    """Who is coming. Without a `session_id`, the session that the user had is resumed, or one gets a new id."""

    user_id: Id
    language_code: LanguageCode | None = None
    current_page: Page | None = None
    session_id: Id | None = None
    metadata: Metadata | None = None


class OpenedSession(msgspec.Struct, frozen=True):
    """What the participant's browser needs, and how the session stands."""

    session_id: str
    token: str
    ws_url: str
    client_url: str
    resumed: bool
    interview: Interview


class SessionChanges(Input, frozen=True):
    """New values; what is not named stays. `metadata` is replaced as a whole."""

    current_page: Page | None = None
    metadata: Metadata | None = None


class Listing(PoolParams, frozen=True):
    """Which sessions to list."""

    status: Annotated[Status | None, msgspec.Meta(description="Only those with this status.")] = None
    online: Annotated[bool | None, msgspec.Meta(description="Only those that are here, or that are not.")] = (
        None
    )
    language_code: Annotated[
        LanguageCode | None, msgspec.Meta(description="Only those in this language.")
    ] = None
    user_id: Annotated[Id | None, msgspec.Meta(description="Only those of this person.")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000, description="How many on a page.")] = 100
    cursor: Annotated[str | None, msgspec.Meta(description="The `next_cursor` of the page before.")] = None


class SessionPage(msgspec.Struct, frozen=True):
    """One page of sessions, newest first; `next_cursor` is null on the last one."""

    sessions: list[SessionView]
    next_cursor: str | None


class NewToken(msgspec.Struct, frozen=True):
    """A session token."""

    token: str


@operation(
    "POST",
    "/v1/sessions",
    Access.KEY,
    answers={201: OpenedSession, 200: OpenedSession},
    errors=(409,),
)
async def open_session(call: Call[NewSession, PoolParams]) -> Answer:
    """Open a session, or resume the one that the user had.

    A pool that does not exist yet is created with the defaults. 409 when the `session_id` is already another user's or
    another pool's.
    """
    opened = await _open(call, call.body)
    base = addresses.public_url(call.request, call.node.settings)
    body = OpenedSession(
        session_id=opened.session_id,
        token=token_for(call.node, opened.record, opened.admission),
        ws_url=addresses.websocket_url(base),
        client_url=f"{base}/client.js",
        resumed=opened.resumed,
        interview=interview_view(call.node, opened.record, opened.admission),
    )
    return Answer(body, 200 if opened.resumed else 201)


@operation("GET", "/v1/sessions", Access.KEY, answers={200: SessionPage}, errors=(404,))
async def list_sessions(call: Call[None, Listing]) -> Answer:
    """List sessions, newest first.

    Sessions that are live come from Redis, those of the past from Postgres. With `status=active` or `online=true`
    Postgres is not needed.
    """
    query, store = call.query, call.node.store
    filters = Filters(
        status=query.status, online=query.online, language_code=query.language_code, user_id=query.user_id
    )
    after = None if query.cursor is None else key_of(query.cursor)
    await store.config(call.pool)  # an unknown pool is not an empty one
    page = await _unless_history_is_away(
        newest_first(
            lambda before, limit: store.sessions(call.pool, before=before, limit=limit),
            call.node.history,
            call.pool,
            filters,
            after=after,
            limit=query.limit,
        )
    )
    views = [_view(call, session) for session in page.sessions]
    return Answer(SessionPage(views, None if page.next is None else cursor_of(page.next)))


@operation(
    "GET",
    "/v1/sessions/{session_id}",
    Access.KEY_OR_OWN_TOKEN,
    answers={200: SessionView},
    errors=(404, 410),
)
async def get_session(call: Call[None, PoolParams]) -> Answer:
    """Look at one session, also a past one if there is a history.

    Looking is no sign of life.
    """
    try:
        return Answer(_view(call, await call.node.store.look(call.pool, Look(session_id=call.session_id))))
    except (UnknownSessionError, UnknownPoolError, SessionEndedError):
        past = await _past(call)
        if past is None:
            raise
        return Answer(_view(call, past))


@operation(
    "PATCH",
    "/v1/sessions/{session_id}",
    Access.KEY_OR_OWN_TOKEN,
    answers={200: SessionView},
    errors=(404, 410),
)
async def change_session(call: Call[SessionChanges, PoolParams]) -> Answer:
    """Change the page that the participant is on, or the metadata."""
    metadata = _metadata_text(call.body.metadata)
    item = Update(session_id=call.session_id, page=call.body.current_page, metadata=metadata)
    return Answer(_view(call, await call.node.store.update(call.pool, item)))


@operation(
    "POST",
    "/v1/sessions/{session_id}/token",
    Access.KEY,
    answers={200: NewToken},
    errors=(404, 410),
)
async def renew_token(call: Call[None, PoolParams]) -> Answer:
    """Issue a new token for the session's browser."""
    seen = await look_at_running(call)
    return Answer(NewToken(token_for(call.node, seen.record, seen.admission)))


@operation(
    "DELETE",
    "/v1/sessions/{session_id}",
    Access.KEY,
    answers={200: Interview},
    errors=(404, 410),
)
async def kick_session(call: Call[None, PoolParams]) -> Answer:
    """Throw the session out: its permit is free at once, its socket is closed, it ends as abandoned.

    Repeating it changes nothing; 410 when the session ended in another way.
    """
    item = Finish(session_id=call.session_id, reason=EndReason.KICKED)
    return standing(call, await call.node.store.finish(call.pool, item))


OPERATIONS: tuple[Operation, ...] = (
    open_session,
    list_sessions,
    get_session,
    change_session,
    renew_token,
    kick_session,
)


async def _open(call: Call[NewSession, PoolParams], wanted: NewSession) -> Opened:
    store = call.node.store
    item = Open(
        session_id=wanted.session_id or new_session_id(),
        given=wanted.session_id is not None,
        user_id=wanted.user_id,
        language_code=wanted.language_code,
        current_page=wanted.current_page,
        metadata=_metadata_text(wanted.metadata),
    )
    if item.given and await store.find_pool(item.session_id) not in (None, call.pool):
        raise SessionIdTakenError
    try:
        return await store.open(call.pool, item)
    except UnknownPoolError:
        await store.configure(call.pool, PoolChanges(), actor=ACTOR)
        return await store.open(call.pool, item)


async def _past(call: Call[None, PoolParams]) -> PresenceRow | None:
    """The session from the history, if it was in the caller's pool."""
    if call.node.history is None:
        return None
    row = await _unless_history_is_away(call.node.history.session(call.session_id))
    return row if row is not None and row.pool == call.pool else None


async def _unless_history_is_away(reading: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout(HISTORY_PATIENCE_S):
            return await reading
    except POSTGRES_AWAY as error:
        raise HistoryAwayError from error


def _view(call: AnyCall, session: Seen | PresenceRow) -> SessionView:
    if isinstance(session, Seen):
        return live_view(call.node, session)
    return past_view(session, call.node.sentences)


def _metadata_text(metadata: Metadata | None) -> str | None:
    """The metadata as JSON text; Postgres takes no NUL character, so we take none either."""
    if metadata is None:
        return None
    if _is_deeper(metadata, METADATA_MAX_DEPTH):
        raise InvalidError(f"metadata must be nested at most {METADATA_MAX_DEPTH} levels deep.")
    text = msgspec.json.encode(metadata)
    if len(text) > METADATA_MAX_BYTES:
        raise InvalidError(
            f"metadata must be at most {METADATA_MAX_BYTES} bytes of JSON, this is {len(text)}."
        )
    if b"\\u0000" in text.replace(b"\\\\", b""):
        raise InvalidError("metadata must not contain the character U+0000.")
    return text.decode()


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)
