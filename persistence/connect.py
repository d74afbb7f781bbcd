"""Connections to Postgres or Supabase: poolers recognised by the URL, TLS to other machines, a small pool."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

APPLICATION_NAME = "interview-presence"
CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0
IDLE_LIFETIME_S = 60.0
TRANSACTION_POOLER_PORT = 6543
POOLER_HOST_SUFFIX = ".pooler.supabase.com"
# Parameters for other clients. asyncpg would send them to the server, which refuses what it does not know.
_OTHER_CLIENTS = frozenset(
    {
        "pgbouncer",
        "connection_limit",
        "pool_timeout",
        "connect_timeout",
        "channel_binding",
        "gssencmode",
        "supa",
    }
)


class Mode(StrEnum):
    """What stands between us and the database, as far as its URL tells."""

    DIRECT = "direct"
    SESSION_POOLER = "session pooler"
    TRANSACTION_POOLER = "transaction pooler"


@dataclass(slots=True, frozen=True)
class Target:
    """A database URL, understood."""

    dsn: str
    host: str | None
    mode: Mode
    sslmode_given: bool

    @property
    def local(self) -> bool:
        """Whether the connection stays on this machine (a loopback address or a Unix socket)."""
        if self.host is None or self.host == "localhost" or self.host.startswith("/"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def understand(database_url: str) -> Target:
    """Recognise the connection mode, and drop the parameters that are meant for other clients."""
    url = urlsplit(database_url)
    parameters = parse_qsl(url.query, keep_blank_values=True)
    named = dict(parameters)
    ours = [(name, value) for name, value in parameters if name not in _OTHER_CLIENTS]
    return Target(
        dsn=urlunsplit(url._replace(query=urlencode(ours))),
        host=url.hostname or named.get("host"),
        mode=_mode(url, named),
        sslmode_given="sslmode" in named,
    )


def _mode(url: SplitResult, named: dict[str, str]) -> Mode:
    port = named.get("port") or url.port
    if str(port) == str(TRANSACTION_POOLER_PORT) or named.get("pgbouncer", "").lower() == "true":
        return Mode.TRANSACTION_POOLER
    if (url.hostname or "").endswith(POOLER_HOST_SUFFIX):
        return Mode.SESSION_POOLER
    return Mode.DIRECT


def options(database_url: str, *, ca: str | None = None) -> dict[str, Any]:
    """Arguments for `asyncpg.connect`.

    `ca`: file with the CA certificate; the server's certificate and name are then verified. Without it the
    URL's own `sslmode` counts; without that, a remote connection is encrypted but not verified.
    """
    target = understand(database_url)
    arguments: dict[str, Any] = {
        "dsn": target.dsn,
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": COMMAND_TIMEOUT_S,
        # The one start-up parameter of ours, and one that every pooler knows.
        "server_settings": {"application_name": APPLICATION_NAME},
    }
    if target.mode is Mode.TRANSACTION_POOLER:
        # The next transaction may run on another server connection, without our prepared statements.
        arguments["statement_cache_size"] = 0
    if ca is not None:
        arguments["ssl"] = ssl.create_default_context(cafile=ca)
    elif not target.sslmode_given:
        arguments["ssl"] = "disable" if target.local else "require"
    return arguments


async def connect_once(database_url: str, *, ca: str | None = None) -> asyncpg.Connection[asyncpg.Record]:
    """One connection, for a command."""
    return await asyncpg.connect(**options(database_url, ca=ca))


async def connect(
    database_url: str, *, ca: str | None = None, max_size: int = 4
) -> asyncpg.Pool[asyncpg.Record]:
    """A small pool. It connects when first used, so that the server starts while Postgres is away."""
    return await asyncpg.create_pool(
        **options(database_url, ca=ca),
        min_size=0,
        max_size=max_size,
        max_inactive_connection_lifetime=IDLE_LIFETIME_S,
        reset=_nothing_to_reset,
    )


async def _nothing_to_reset(_: object) -> None:
    """We never change a session's state; asyncpg's own reset costs a round trip and irritates poolers."""
