"""CORS for the allowed origins, as ASGI middleware around everything that speaks HTTP."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.domain.origins import Origins

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "7200",
}
_EXPOSED = "ETag, Retry-After, WWW-Authenticate, X-Request-ID"
_VARY = "Origin"


class Cors:
    """Lets pages of allowed origins read the answers; others get them too, but their browser keeps them back."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or add the headers to the answer of the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        is_allowed = origin is not None and self._origins.allows(origin, headers.get("host"))
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(origin if is_allowed else None)(scope, receive, send)
            return
        await self._app(scope, receive, _adding(send, origin if is_allowed else None))


def _preflight(origin: str | None) -> Response:
    if origin is None:
        return Response(status_code=403, headers={"Vary": _VARY})
    return Response(
        status_code=204, headers={"Access-Control-Allow-Origin": origin, "Vary": _VARY, **_PREFLIGHT}
    )


def _adding(send: Send, origin: str | None) -> Send:
    """`send`, with the CORS headers on the answer. What is open to everybody stays as it is."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if "access-control-allow-origin" not in headers:
                headers.add_vary_header(_VARY)
                if origin is not None:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = _EXPOSED
        await send(message)

    return send_with_headers
