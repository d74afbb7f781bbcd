"""How a browser reaches this server: what was configured, else what the request was sent to."""

from __future__ import annotations

import re

from starlette.requests import Request

from server.domain.addresses import TrustedProxies
from server.settings import Settings

_HOST = re.compile(r"^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$")
_SCHEMES = ("http", "https")


def public_url(request: Request, settings: Settings) -> str:
    """The base address without a trailing slash. Only a trusted proxy may say that it differs from the request's."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    return asked_url(request, settings)


def asked_url(request: Request, settings: Settings) -> str:
    """The base address that the browser asked, whatever is configured; a trusted proxy tells it if it changed it."""
    scheme, host = request.url.scheme, request.headers.get("host", "")
    if request.client is not None and TrustedProxies(settings.trusted_proxies).trusts(request.client.host):
        scheme = _forwarded(request, "x-forwarded-proto") or scheme
        host = _forwarded(request, "x-forwarded-host") or host
    if scheme not in _SCHEMES or not _HOST.match(host):
        return str(request.base_url).rstrip("/")
    return f"{scheme}://{host}"


def client_address(request: Request, settings: Settings) -> str:
    """The client's address, as far as trusted proxies tell it."""
    peer = "" if request.client is None else request.client.host
    return TrustedProxies(settings.trusted_proxies).client(peer, request.headers.getlist("x-forwarded-for"))


def websocket_url(base: str) -> str:
    """Where the browser's WebSocket goes, for a server at `base`."""
    return f"ws{base.removeprefix('http')}/ws"


def _forwarded(request: Request, header: str) -> str:
    """What the nearest proxy said; those before it may have been forged."""
    return request.headers.get(header, "").rpartition(",")[2].strip()
