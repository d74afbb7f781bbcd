"""Operations on a session's interview, and the signs of life that a page can give over HTTP."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Annotated

import msgspec

from server.domain.errors import (
    SessionEndedError,
    StaleConnectionError,
    UnknownPoolError,
    UnknownSessionError,
)
from server.domain.interview import Admission, Interview, InterviewState
from server.domain.messages import Attempt, TabId, Token
from server.domain.session import ConnectionKind, EndReason, Id, Page, SessionRecord
from server.domain.token import Verified
from server.http.auth import Access, SessionPrincipal
from server.http.problems import ExpiredTokenError, ForbiddenError
from server.http.routing import JSON, Answer, AnyCall, Call, Input, Operation, PoolParams, operation
from server.http.tokens import newer_token
from server.http.views import interview_view
from server.live.verbs import Beat, Claim, Connect, Drop, Finish, Look, Release, Seen
from server.measure.measured import FAILED
from server.node.hub import Held, known_of
from server.node.node import Node

# What a heartbeat finds out: its connection, and the session as it stands.
Beaten = tuple[str, SessionRecord, Admission]

HIDDEN_WINDOW_S = 150.0

_STATUS_OF_CLAIM = {
    InterviewState.GRANTED: 200,
    InterviewState.WAITING: 202,
    InterviewState.OFFERED: 202,
    InterviewState.DENIED: 409,
}


class ClaimBody(Input, frozen=True):
    """`takeover`: from the user's other session; `wait`: a place in line will do."""

    takeover: bool = False
    wait: bool = True


class CompleteBody(Input, frozen=True):
    """With a `fence`, only if that is the session's newest permit."""

    fence: int | None = None


class FenceParams(PoolParams, frozen=True):
    """With a `fence`, only if that is the session's newest permit."""

    fence: Annotated[int | None, msgspec.Meta(description="Only if this is the newest permit's.")] = None


class HeartbeatBody(Input, frozen=True):
    """A sign of life. The first one has no `connection_id`; the answer gives it one. `attempt` as in `hello`."""

    tab: TabId
    attempt: Attempt = 0
    connection_id: Id | None = None
    visible: bool | None = None
    page: Page | None = None


class HeartbeatAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`next_s`: when the next heartbeat is due. `token`: use this one from now on."""

    connection_id: str
    interview: Interview
    next_s: float
    token: str | None = None


class ByeBody(Input, frozen=True):
    """The page that goes, as `navigator.sendBeacon` sends it: it can set no header."""

    token: Token
    connection_id: Id


@operation(
    "POST",
    "/v1/sessions/{session_id}/interview",
    Access.KEY_OR_OWN_TOKEN,
    answers={200: Interview, 202: Interview, 409: Interview},
    errors=(404,),
)
async def claim_interview(call: Call[ClaimBody, PoolParams]) -> Answer:
    """Claim a permit, or a place in line; during an offer, accept it.

    200 granted, 202 waiting or offered, 409 denied: the body is always the interview object. It may be repeated.
    """
    item = Claim(
        session_id=call.session_id,
        wait=call.body.wait,
        takeover=call.body.takeover,
        sign_of_life=call.by_key,
    )
    began, outcome = time.perf_counter(), FAILED
    try:
        admission = await call.node.store.claim(call.pool, item)
        outcome = admission.state.value
    finally:
        call.node.measured.admissions.claimed(outcome, began)
    return standing(call, admission, _STATUS_OF_CLAIM.get(admission.state, 200))


@operation(
    "GET",
    "/v1/sessions/{session_id}/interview",
    Access.KEY_OR_OWN_TOKEN,
    answers={200: Interview},
    errors=(404, 410),
)
async def get_interview(call: Call[None, PoolParams]) -> Answer:
    """See how the session stands. Claims nothing; asked with an API key it is a sign of life."""
    seen = await look_at_running(call, sign_of_life=call.by_key)
    return Answer(interview_view(call.node, seen.record, seen.admission))


@operation(
    "DELETE",
    "/v1/sessions/{session_id}/interview",
    Access.KEY_OR_OWN_TOKEN,
    answers={200: Interview},
    errors=(404, 409),
)
async def leave_interview(call: Call[None, FenceParams]) -> Answer:
    """Give back the permit, or leave the line. It may be repeated; a stale fence is answered 409."""
    item = Release(session_id=call.session_id, fence=call.query.fence)
    return standing(call, await call.node.store.release(call.pool, item))


@operation(
    "POST",
    "/v1/sessions/{session_id}/complete",
    Access.KEY_OR_OWN_TOKEN,
    answers={200: Interview},
    errors=(404, 409, 410),
)
async def complete_session(call: Call[CompleteBody, PoolParams]) -> Answer:
    """The interview is finished: the session ends as completed, its permit goes to the next in line.

    It may be repeated; 410 when the session ended in another way.
    """
    item = Finish(session_id=call.session_id, reason=EndReason.COMPLETED, fence=call.body.fence)
    return standing(call, await call.node.store.finish(call.pool, item))


@operation(
    "POST",
    "/v1/sessions/{session_id}/heartbeat",
    Access.OWN_TOKEN_EVEN_EXPIRED,
    answers={200: HeartbeatAnswer},
    errors=(404, 409, 410),
)
async def heartbeat(call: Call[HeartbeatBody, PoolParams]) -> Answer:
    """Show that the page is here, where WebSockets are blocked.

    The first one connects, also with an expired token of a session that was here a short while ago. 409 when another
    connection of the session is newer.
    """
    held = _held_token(call)
    connection_id, record, admission = await (
        _connect(call, held)
        if call.body.connection_id is None
        else _beat(call, held, call.body.connection_id)
    )
    _remember(call, connection_id, record, admission)
    return Answer(
        HeartbeatAnswer(
            connection_id=connection_id,
            interview=interview_view(call.node, record, admission),
            next_s=call.node.settings.heartbeat_s,
            token=newer_token(call.node, held, record, admission),
        )
    )


@operation(
    "POST",
    "/v1/sessions/{session_id}/bye",
    Access.ANYONE,
    answers={204: None},
    errors=(401, 403, 503),
    takes=(JSON, "text/plain"),
)
async def bye(call: Call[ByeBody, None]) -> Answer:
    """The page goes: its connection is lost, and grace starts now. The token is in the body.

    What comes too late, or from an old connection, changes nothing and is answered the same.
    """
    claims = call.node.tokens.verify(call.body.token, time.time()).claims
    if claims.session_id != call.session_id:
        raise ForbiddenError("A session token opens its own session only.")
    call.node.hub.pool(claims.pool).says_bye(call.session_id, call.body.connection_id)
    item = Drop(session_id=claims.session_id, connection_id=call.body.connection_id, cause="bye")
    with suppress(UnknownPoolError):
        await call.node.store.drop(claims.pool, item)
    return Answer(status=204)


OPERATIONS: tuple[Operation, ...] = (
    claim_interview,
    get_interview,
    leave_interview,
    complete_session,
    heartbeat,
    bye,
)


async def look_at_running(call: AnyCall, *, sign_of_life: bool = False) -> Seen:
    """The session as it stands. SessionEndedError from its end on, whether its record is still there or not."""
    seen = await call.node.store.look(call.pool, Look(session_id=call.session_id, sign_of_life=sign_of_life))
    if seen.record.end_reason is not None:
        raise SessionEndedError(seen.record.end_reason)
    return seen


def standing(call: AnyCall, admission: Admission, status: int = 200) -> Answer:
    """The interview object as an answer, with a message in the participant's language."""
    view = call.node.interview(call.pool, call.session_id, admission, admission.language_code)
    return Answer(view, status)


def _held_token(call: Call[HeartbeatBody, PoolParams]) -> Verified:
    """The token that the page holds; an expired one is good for connecting only."""
    if not isinstance(call.principal, SessionPrincipal):
        raise ForbiddenError
    held = call.principal.verified
    if held.expired and call.body.connection_id is not None:
        raise ExpiredTokenError
    return held


async def _connect(
    call: Call[HeartbeatBody, PoolParams], held: Verified, connection_id: str | None = None
) -> Beaten:
    """Connect; with a `connection_id`, register again one that Redis has forgotten."""
    item = Connect(
        connection_id=connection_id,
        known=known_of(held),
        session_id=call.session_id,
        node=call.node.store.node,
        kind=ConnectionKind.HTTP,
        tab=call.body.tab,
        attempt=call.body.attempt,
        page=call.body.page,
        visible=call.body.visible,
        token_expired=held.expired,
    )
    connected = await call.node.store.connect(call.pool, item)
    return connected.connection_id, connected.record, connected.admission


async def _beat(call: Call[HeartbeatBody, PoolParams], held: Verified, connection_id: str) -> Beaten:
    item = Beat(
        session_id=call.session_id,
        connection_id=connection_id,
        page=call.body.page,
        visible=call.body.visible,
    )
    try:
        seen = await call.node.store.beat(call.pool, item)
    except (UnknownSessionError, StaleConnectionError):
        # In a recovery window this may be the only one who remembers.
        if not call.node.hub.pool(call.pool).recovering:
            raise
        return await _connect(call, held, connection_id)
    return connection_id, seen.record, seen.admission


def _window_s(node: Node, *, visible: bool | None) -> float:
    """For how long a heartbeat counts; the timers of a hidden page are throttled."""
    window = node.settings.online_window_s
    return max(window, HIDDEN_WINDOW_S) if visible is False else window


def _remember(
    call: Call[HeartbeatBody, PoolParams], connection_id: str, record: SessionRecord, admission: Admission
) -> None:
    """Keep what registers the page again, should Redis lose its memory before the next heartbeat."""
    pool, now = call.node.hub.pool(call.pool), asyncio.get_running_loop().time()
    held = Held(
        session_id=record.session_id,
        pool=record.pool,
        user_id=record.user_id,
        language_code=record.language_code,
        started_at=record.started_at,
        connection_id=connection_id,
        tab=call.body.tab,
        attempt=call.body.attempt,
        page=record.current_page,
        visible=call.body.visible,
        token_expires_at=0.0,
        kind=ConnectionKind.HTTP,
    )
    held.remember(admission, now)
    pool.beats(held, now + _window_s(call.node, visible=call.body.visible))
