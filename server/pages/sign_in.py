"""Signing in to the dashboard: an API key in a form becomes a cookie that no script can read."""

from __future__ import annotations

import html
import time
from collections.abc import Awaitable, Callable
from functools import cache, cached_property
from importlib.resources import files
from ipaddress import IPv6Address, ip_address
from urllib.parse import parse_qs

import structlog
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from server.domain.errors import BadTokenError
from server.domain.origins import Origins
from server.domain.sign_in import SIGN_IN_TTL_S
from server.http.addresses import asked_url, client_address
from server.http.auth import COOKIE, is_one_of, sign_ins
from server.node.node import Node
from server.settings import Settings

DASHBOARD = "/dashboard"
TRIES_PER_MINUTE = 10
FORM_MAX_BYTES = 8192
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    # Not no-referrer: with that, a browser hides from us that a form was our own (Origin: null).
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# How the browser says where a request comes from: from this very page, or from the address bar.
_OWN_SITES = (None, "same-origin", "none")

_log = structlog.get_logger(__name__)


class Doorkeeper:
    """Counts the tries of each client address. `wait_s` says how long one must wait before the next."""

    def __init__(self) -> None:
        self._limit = RateLimitItemPerMinute(TRIES_PER_MINUTE)

    @cached_property
    def _limiter(self) -> MovingWindowRateLimiter:
        """Made when somebody first tries: its storage starts a thread."""
        return MovingWindowRateLimiter(MemoryStorage())

    def wait_s(self, address: str) -> int:
        """Count a try. 0 if it may be made, else the seconds until the next may be."""
        subscriber = _subscriber(address)
        if self._limiter.hit(self._limit, subscriber):
            return 0
        opens_at = self._limiter.get_window_stats(self._limit, subscriber).reset_time
        return max(1, round(opens_at - time.time()))


def is_signed_in(request: Request) -> bool:
    """Whether the request carries a cookie that opens the page. What the page asks for is checked anew."""
    cookie, node = request.cookies.get(COOKIE), _node(request)
    if cookie is None:
        return False
    try:
        sign_ins(node.settings).check(cookie, time.time())
    except BadTokenError:
        return False
    return True


def sign_in_with(doorkeeper: Doorkeeper) -> Callable[[Request], Awaitable[Response]]:
    """The handler of the form."""

    async def sign_in(request: Request) -> Response:
        settings = _node(request).settings
        if not _is_from_our_page(request, settings):
            return sign_in_page("This form was sent by another site, so nothing was done.", 403)
        address = client_address(request, settings)
        if wait_s := doorkeeper.wait_s(address):
            _log.warning("sign_in_refused", address=address, reason="too_many")
            sentence = f"That was tried too often. Please wait {wait_s} seconds."
            return sign_in_page(sentence, 429, {"Retry-After": str(wait_s)})
        api_key = await _given_key(request)
        if not is_one_of(api_key, settings.api_key):
            _log.warning("sign_in_refused", address=address, reason="wrong_key")
            return sign_in_page("That is not an API key of this server.", 401, _CHALLENGE)
        _log.info("signed_in", address=address)
        return _let_in(sign_ins(settings).issue(api_key, time.time()), request)

    return sign_in


async def sign_out(request: Request) -> Response:
    """Take the cookie back."""
    settings = _node(request).settings
    if not _is_from_our_page(request, settings):
        return sign_in_page("This form was sent by another site, so nothing was done.", 403)
    response = RedirectResponse(DASHBOARD, 303, PAGE_HEADERS)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_https(request, settings))
    return response


def sign_in_page(
    problem: str | None = None, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The form, with what went wrong. It works without JavaScript."""
    said = (
        "" if problem is None else f'<p class="problem" id="problem" role="alert">{html.escape(problem)}</p>'
    )
    page = _form().replace("<!-- problem -->", said)
    return Response(page, status, {**PAGE_HEADERS, **(headers or {})}, media_type="text/html")


_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="presence"'}


@cache
def _form() -> str:
    return (files("server.pages") / "files" / "dashboard" / "sign_in.html").read_text(encoding="utf-8")


def _let_in(value: str, request: Request) -> Response:
    response = RedirectResponse(DASHBOARD, 303, PAGE_HEADERS)
    response.set_cookie(
        COOKIE,
        value,
        max_age=int(SIGN_IN_TTL_S),
        httponly=True,
        samesite="strict",
        secure=_is_https(request, _node(request).settings),
    )
    return response


def _is_https(request: Request, settings: Settings) -> bool:
    """Whether the browser came over https. A proxy that isn't trusted can't say so; the public address can."""
    asked = asked_url(request, settings)
    public = settings.public_url or ""
    return asked.startswith("https:") or public.removeprefix("https://").rstrip("/") == asked.removeprefix(
        "http://"
    )


def _is_from_our_page(request: Request, settings: Settings) -> bool:
    """Whether no other site's page sent the form. What says nothing of where it comes from is no browser."""
    if request.headers.get("sec-fetch-site") not in _OWN_SITES:
        return False
    host = asked_url(request, settings).partition("://")[2]
    return Origins((), settings.public_url).allows(request.headers.get("origin"), host)


async def _given_key(request: Request) -> str:
    """The field `api_key` of the form; empty if there is none."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_MAX_BYTES:
                return ""
    except ClientDisconnect:
        return ""
    fields = parse_qs(body.decode("latin-1"), encoding="utf-8", errors="replace")
    return fields.get("api_key", [""])[0].strip()


def _subscriber(address: str) -> str:
    """Who counts as one: an IPv6 client commands a whole /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return address


def _node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node
