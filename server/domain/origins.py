"""Which web origins may talk to this server: for CORS and for the WebSocket handshake."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

ANY = "*"

# `*` in a host stands for one or more whole or partial DNS labels, as a port for any port or none.
_LABELS = r"[a-z0-9-]+(?:\.[a-z0-9-]+)*"
_PATTERN = re.compile(r"^[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9.*-]+)(?::(?:\d+|\*))?$")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Origins:
    """The allow-list. ValueError for a pattern that is no origin, such as one without a scheme."""

    def __init__(self, allowed: Sequence[str], public_url: str | None = None) -> None:
        patterns = [pattern.lower().rstrip("/") for pattern in allowed]
        self._any = ANY in patterns
        self._patterns = [_compiled(pattern) for pattern in patterns if pattern != ANY]
        self._own_address = None if public_url is None else _address(public_url)

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Whether a request from `origin` to `host` may pass. Without an Origin header it is no browser's."""
        if origin is None or self._any:
            return True
        origin = origin.lower()
        if any(pattern.fullmatch(origin) for pattern in self._patterns):
            return True
        return self._is_our_own(origin, host)

    def _is_our_own(self, origin: str, host: str | None) -> bool:
        address = _address(origin)
        if address is None:
            return False
        scheme = origin.partition("://")[0]
        here = None if host is None else _address(f"{scheme}://{host}")
        return address in (here, self._own_address)


def _compiled(pattern: str) -> re.Pattern[str]:
    if not _PATTERN.match(pattern):
        raise ValueError(f"{pattern!r} is no origin: write https://app.example, or https://*.app.example")
    any_port = pattern.endswith(":*")
    host = re.escape(pattern.removesuffix(":*")).replace(r"\*", _LABELS)
    return re.compile(host + (r"(?::\d+)?" if any_port else ""))


def _address(url: str) -> tuple[str, str] | None:
    """Host and port of `url`; None if it has none, as the origin `null` of a sandboxed page."""
    try:
        parts = urlsplit(url.lower())
        port = str(parts.port) if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return None if parts.hostname is None or port is None else (parts.hostname, port)
