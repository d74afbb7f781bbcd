"""Everything that this server does over HTTP, in one list."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.http import (
    analytics,
    events,
    files,
    fixed,
    health,
    interviews,
    metrics,
    openapi,
    plan,
    pools,
    protocol,
    recent,
    sessions,
    users,
)
from server.http.auth import Access
from server.http.fixed import Fixed
from server.http.problems import routing_problem
from server.http.routing import Answer, Call, Operation, operation, routes_of

# Programs may read it from any page, and ask each time whether it is still the same.
_HEADERS = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, no-cache"}


@operation("GET", "/openapi.json", Access.ANYONE, answers={200: bytes, 304: None})
async def get_openapi(call: Call[None, None]) -> Answer:
    """Get this description of the API, as OpenAPI 3.1."""
    return fixed.answer(call, _openapi(), _HEADERS)


OPERATIONS: tuple[Operation, ...] = (
    *health.OPERATIONS,
    *metrics.OPERATIONS,
    *files.OPERATIONS,
    *pools.OPERATIONS,
    *sessions.OPERATIONS,
    *interviews.OPERATIONS,
    *analytics.OPERATIONS,
    *recent.OPERATIONS,
    *events.OPERATIONS,
    *users.OPERATIONS,
    *plan.OPERATIONS,
    get_openapi,
    *protocol.OPERATIONS,
)

EXCEPTION_HANDLERS: Mapping[Any, Callable[[Request, Exception], Coroutine[Any, Any, Response]]] = {
    HTTPException: routing_problem,
    Exception: routing_problem,
}


@operation("GET", "/", Access.ANYONE, answers={307: None})
async def go_to_demo(call: Call[None, None]) -> Answer:  # noqa: ARG001 - there is nothing to look at
    """Lead a visitor to the demo."""
    return Answer(status=307, headers={"Location": "/demo"})


@operation("GET", "/", Access.ANYONE, answers={307: None})
async def go_to_dashboard(call: Call[None, None]) -> Answer:  # noqa: ARG001 - there is nothing to look at
    """Lead an operator to the dashboard."""
    return Answer(status=307, headers={"Location": "/dashboard"})


@cache
def _openapi() -> Fixed:
    return Fixed.of(msgspec.json.encode(openapi.document(OPERATIONS)))


def routes(*, development: bool = False) -> list[Route]:
    """Starlette's routes for all operations. They find the node in `app.state.node`."""
    return routes_of((*OPERATIONS, go_to_demo if development else go_to_dashboard))
