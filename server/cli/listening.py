"""Where the server listens: which host and port, and the socket itself."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

from server.cli.errors import MISUSED, CommandError
from server.settings import Settings

DEFAULT_PORT = 8000
LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - a host that sets $PORT wants to be reached
BACKLOG = 2048
NEXT_PORTS = 100


@dataclass(frozen=True, slots=True)
class Place:
    """A host and port; `asked`: somebody named the port, so no other will do."""

    host: str
    port: int
    asked: bool


def choose(settings: Settings) -> Place:
    """`--port` or PRESENCE_PORT (both in the settings), else $PORT, else 8000; a $PORT also opens the host."""
    from_host = _port_of_hosting()
    port = settings.port if settings.port is not None else from_host
    host = settings.host or (LOOPBACK if from_host is None else EVERYWHERE)
    return Place(host, DEFAULT_PORT if port is None else port, asked=port is not None)


def _port_of_hosting() -> int | None:
    text = os.environ.get("PORT")
    if not text:
        return None
    if not text.isdecimal() or int(text) > 65_535:  # noqa: PLR2004 - the largest port there is
        raise CommandError("PORT must be a number from 0 to 65535", exit_code=MISUSED)
    return int(text)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; OSError if that can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    created = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # Made anew it knows that it is TCP, which asyncio asks before it turns off the delay that costs 40 ms an answer.
    return socket.socket(fileno=created.detach())


def listen_at(place: Place) -> socket.socket:
    """A socket at exactly this place; a CommandError says why not."""
    try:
        return listen(place.host, place.port)
    except OSError as error:
        reason = (
            "is taken" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror or error}"
        )
        raise CommandError(f"port {place.port} on {place.host} {reason}", exit_code=MISUSED) from None


def listen_near(place: Place) -> socket.socket:
    """A socket at this place or, if its port is taken and nobody asked for it, at the next free one."""
    if place.asked:
        return listen_at(place)
    for port in range(place.port, place.port + NEXT_PORTS):
        try:
            return listen(place.host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                break
    return listen_at(place)


def url_of(sock: socket.socket) -> str:
    """How to reach the socket from this machine."""
    host, port = sock.getsockname()[:2]
    shown = {EVERYWHERE: LOOPBACK, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
