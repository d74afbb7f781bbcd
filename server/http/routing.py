"""Operations, declared with the types that validate them; the OpenAPI document is made of the same declarations."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, Generic, TypeVar, get_args, get_type_hints

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from server.domain.errors import RedisAwayError, UnknownSessionError
from server.domain.pool import DEFAULT_POOL
from server.domain.session import Id
from server.http.auth import Access, ApiKeyPrincipal, Principal, SessionPrincipal, admit
from server.http.problems import ForbiddenError, MethodNotAllowedError, problem_response
from server.http.validation import check_path, decoded, query_of, read_body
from server.node.node import Node

# Another node may need a second to notice that Redis lost its memory, and to tell it of its own sessions.
RECOVERY_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 0.8)
JSON = "application/json"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Body = TypeVar("Body")
Query = TypeVar("Query")


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query without parameters, and the base of all others."""


class PoolParams(Params, frozen=True):
    """The query of most operations."""

    pool: Annotated[Id | None, msgspec.Meta(description="The pool; `main` if it is left out.")] = None


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the request bodies."""


@dataclass(slots=True, frozen=True)
class Call(Generic[Body, Query]):
    """One request, validated: what a handler gets. A type of None: there is none, or it is not looked at."""

    request: Request
    node: Node
    principal: Principal
    body: Body
    query: Query

    @property
    def session_id(self) -> str:
        """The session that the path names."""
        return str(self.request.path_params["session_id"])

    @property
    def pool(self) -> str:
        """The pool that is meant: the path's, the token's, the query's, or the default one."""
        if isinstance(self.principal, SessionPrincipal):
            return self.principal.verified.claims.pool
        named = self.request.path_params.get("pool") or getattr(self.query, "pool", None)
        return DEFAULT_POOL if named is None else str(named)

    @property
    def is_recovering(self) -> bool:
        """Whether Redis lost its memory of the pool a moment ago."""
        pool = self.node.hub.pools.get(self.pool)
        return pool is not None and (pool.recovering or not pool.settled.is_set())

    @property
    def is_settled(self) -> bool:
        """Whether this node has told Redis all that it remembers of the pool."""
        pool = self.node.hub.pools.get(self.pool)
        return pool is None or pool.settled.is_set()

    @property
    def by_key(self) -> bool:
        """Whether a server or an operator calls, and not the browser."""
        return isinstance(self.principal, ApiKeyPrincipal)


@dataclass(slots=True, frozen=True)
class Answer:
    """What a handler gives back. The body is a struct, bytes of the operation's media type, or None; or a response
    that is ready, e.g. one that streams, which gets our headers but keeps its status and media type."""

    body: msgspec.Struct | bytes | Response | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


AnyCall = Call[Any, Any]
Handler = Callable[[AnyCall], Awaitable[Answer]]


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers`: status to type of body; `errors`: the problems that are its own.

    A body is JSON, whatever the request calls it; `takes` are the media types that it goes by.
    """

    method: str
    path: str
    access: Access
    handler: Handler
    answers: Mapping[int, Any]
    errors: tuple[int, ...]
    media_type: str
    takes: tuple[str, ...]

    @cached_property
    def types(self) -> tuple[Any, Any]:
        """The types of body and query, as the handler's signature names them."""
        return get_args(get_type_hints(self.handler)["call"])[:2]

    @cached_property
    def summary(self) -> str:
        """The first sentence of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n\n")[0]

    @cached_property
    def description(self) -> str:
        """The rest of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n\n")[2]

    @cached_property
    def _body(self) -> msgspec.json.Decoder[Any] | None:
        return None if self.types[0] is type(None) else msgspec.json.Decoder(self.types[0])

    async def serve(self, request: Request) -> Response:
        """Admit, validate, call the handler, encode its answer."""
        node: Node = request.app.state.node
        principal = admit(request, node, self.access)
        check_path(request)
        query = None if self.types[1] is type(None) else query_of(request, self.types[1])
        _check_pool(principal, getattr(query, "pool", None))
        body = None if self._body is None else decoded(self._body, await read_body(request))
        return self._response(await self._handle(Call(request, node, principal, body, query)))

    async def _handle(self, call: AnyCall) -> Answer:
        """Call the handler; again, if it asked for a session a Redis that lost its memory and has yet to be told of it.

        All operations on one session may be repeated.
        """
        if "session_id" not in call.request.path_params:
            return await self.handler(call)
        for pause_s in RECOVERY_PAUSES_S:
            try:
                answer = await self.handler(call)
            except UnknownSessionError:
                if not call.is_recovering:
                    raise
            else:
                if call.is_settled:
                    return answer
            await asyncio.sleep(pause_s)
        raise RedisAwayError(
            "Redis has lost its memory and does not know the session again yet; try again soon."
        )

    def _response(self, answer: Answer) -> Response:
        if isinstance(answer.body, Response):
            answer.body.headers.update({**_HEADERS, **answer.headers})
            return answer.body
        body = msgspec.json.encode(answer.body) if isinstance(answer.body, msgspec.Struct) else answer.body
        media_type = None if body is None else self.media_type
        return Response(body, answer.status, {**_HEADERS, **answer.headers}, media_type=media_type)


def operation(
    method: str,
    path: str,
    access: Access,
    *,
    answers: Mapping[int, Any],
    errors: tuple[int, ...] = (),
    media_type: str = JSON,
    takes: tuple[str, ...] = (JSON,),
) -> Callable[[Handler], Operation]:
    """Declare a handler as an operation. Its one argument is `call: Call[body type, query type]`."""

    def declare(handler: Handler) -> Operation:
        return Operation(method, path, access, handler, answers, errors, media_type, takes)

    return declare


class Endpoint:
    """All operations of one path, as an ASGI application. GET answers HEAD too."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_method = {each.method: each for each in operations}
        if "GET" in self._by_method:
            self._by_method["HEAD"] = self._by_method["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; whatever goes wrong becomes a problem."""
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            chosen = self._by_method.get(request.method)
            if chosen is None:
                raise MethodNotAllowedError(", ".join(sorted(self._by_method)))
            return await chosen.serve(request)
        except Exception as error:  # noqa: BLE001 - the last resort: no traceback may reach the outside
            return problem_response(error, request)


def routes_of(operations: Iterable[Operation]) -> list[Route]:
    """Starlette's routes for `operations`, one a path."""
    by_path = groupby(sorted(operations, key=lambda each: each.path), key=lambda each: each.path)
    return [Route(path, Endpoint(group)) for path, group in by_path]


def _check_pool(principal: Principal, named: str | None) -> None:
    if isinstance(principal, SessionPrincipal) and named not in (None, principal.verified.claims.pool):
        raise ForbiddenError("A session token opens its own pool only.")
