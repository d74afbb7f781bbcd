"""Counts and times every request, by the template of its route: what clients make up never becomes a label."""

from __future__ import annotations

import time
from collections.abc import Iterable

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.measure.measured import Requests

# Where there is nothing of ours.
UNMATCHED = "unmatched"
SIGN_IN = "/dashboard/sign-in"
FIRST_FAILURE, ABORTED = 400, 499


class CountedRequests:
    """An ASGI application around another one, whose `routes` are the labels that there are."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute], requests: Requests) -> None:
        self._app = app
        self._templates: dict[object, str] = {
            route.endpoint: route.path for route in routes if isinstance(route, Route)
        }
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; what counts is when its answer begins, since a stream may last for hours."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        # What a client gets that left before there was an answer.
        status, took = ABORTED, 0.0

        async def watch(message: Message) -> None:
            nonlocal status, took
            if message["type"] == "http.response.start":
                status, took = message["status"], time.perf_counter() - began
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            self._count(scope, status, took or time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._templates.get(scope.get("endpoint"), UNMATCHED)
        self._requests.answered(scope["method"], route, status, seconds)
        if problem := scope.get("state", {}).get("problem"):
            self._requests.problems.at(problem).add()
        if route == SIGN_IN and scope["method"] == "POST" and status >= FIRST_FAILURE:
            self._requests.sign_in_failures.at().add()
