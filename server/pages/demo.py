"""The demo at `/demo`, for development only: it opens sessions without an API key."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.domain.interview import InterviewState
from server.domain.pool import DEFAULT_POOL, Capacity, Limit, PoolChanges
from server.domain.session import Id, LanguageCode, Status, new_session_id
from server.http.auth import Access
from server.http.problems import InvalidError
from server.http.routing import JSON, Answer, Call, Input, Operation, operation, routes_of
from server.http.tokens import token_for
from server.live.verbs import Open, Seen

ACTOR = "demo"
SHOWN_AT_MOST = 200
FIRST_PAGE = "home"
_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class NewParticipant(Input, frozen=True):
    """Who joins from a tab of the demo. `user_id`: as somebody who is here already."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    language_code: LanguageCode
    user_id: Id | None = None


class NewLimit(Input, frozen=True):
    """How many may be in an interview at once."""

    limit: Limit


class Joined(msgspec.Struct, frozen=True):
    """What the tab needs to connect."""

    session_id: str
    user_id: str
    token: str


class Participant(msgspec.Struct, frozen=True):
    """Somebody who is here, or whose place or ticket is still kept. `joined_at` is wall-clock ms."""

    session_id: str
    name: str
    language_code: str | None
    page: str | None
    online: bool
    state: InterviewState
    position: int | None
    joined_at: int


class Room(msgspec.Struct, frozen=True):
    """Everything that the demo shows."""

    participants: list[Participant]
    capacity: Capacity


@operation("POST", "/demo/sessions", Access.ANYONE, answers={201: Joined})
async def join(call: Call[NewParticipant, None]) -> Answer:
    """Open a session for a tab: a participant of its own, whatever the name, unless it says whom it comes as."""
    _check_that_a_script_asks(call.request)
    name = call.body.name.strip() or "Guest"
    item = Open(
        session_id=new_session_id(),
        user_id=call.body.user_id or user_id_for(name),
        language_code=call.body.language_code,
        current_page=FIRST_PAGE,
        metadata=msgspec.json.encode({"name": name}).decode(),
    )
    opened = await call.node.store.open(DEFAULT_POOL, item)
    token = token_for(call.node, opened.record, opened.admission)
    return Answer(Joined(opened.session_id, item.user_id, token), 201)


@operation("GET", "/demo/state", Access.ANYONE, answers={200: Room})
async def look_around(call: Call[None, None]) -> Answer:
    """Who is here, who is in, who waits, and how full it is."""
    store = call.node.store
    sessions = await store.sessions(DEFAULT_POOL, before=None, limit=SHOWN_AT_MOST)
    state = await store.state(DEFAULT_POOL)
    return Answer(
        Room(
            [_participant(each) for each in sessions if _is_shown(each)],
            call.node.hub.pool(DEFAULT_POOL).capacity(state),
        )
    )


@operation("POST", "/demo/limit", Access.ANYONE, answers={204: None})
async def set_limit(call: Call[NewLimit, None]) -> Answer:
    """Change the limit of the pool, for all nodes and at once."""
    _check_that_a_script_asks(call.request)
    await call.node.store.configure(DEFAULT_POOL, PoolChanges(limit=call.body.limit), actor=ACTOR)
    return Answer(status=204)


def routes() -> list[Route]:
    """The demo's routes, to be mounted in development only."""
    pages = [Route("/demo", _file("demo.html"))]
    pages += [Route(f"/demo/{name}", _file(name)) for name in ("demo.css", "demo.js", "room.js")]
    return pages + routes_of(OPERATIONS)


OPERATIONS: tuple[Operation, ...] = (join, look_around, set_limit)


def user_id_for(name: str) -> str:
    """An id that tells who it is and is nobody else's, e.g. `anna-3f9a1c`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "guest"
    return f"{slug}-{secrets.token_hex(3)}"


def _check_that_a_script_asks(request: Request) -> None:
    """These routes ask for no key, so no form on somebody else's page may reach them: JSON makes browsers ask first."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise InvalidError(f"Content-Type must be {JSON}.")


def _is_shown(seen: Seen) -> bool:
    is_kept = seen.admission.state is not InterviewState.NONE
    return seen.record.status is Status.ACTIVE and (seen.online or is_kept)


def _participant(seen: Seen) -> Participant:
    record = seen.record
    metadata = {} if record.metadata is None else msgspec.json.decode(record.metadata)
    return Participant(
        session_id=record.session_id,
        name=str(metadata.get("name") or record.user_id),
        language_code=record.language_code,
        page=record.current_page,
        online=seen.online,
        state=seen.admission.state,
        position=seen.admission.position,
        joined_at=record.started_at,
    )


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("server.pages") / "files" / name).read_bytes()
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]

    async def serve(_: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=media_type)

    return serve
