"""Connections to Postgres or Supabase: what the pooler between bears, TLS to other machines, a small pool."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any
from urllib.parse import urlencode

import asyncpg

from persistence.address import DIRECT_HOST_SUFFIX, DatabaseUrlError, Mode, Target, Tls, understand
from persistence.errors import PersistenceError

__all__ = ["DatabaseConnectionError", "DatabaseUrlError", "Mode", "Target", "Tls", "connect", "connect_once"]
__all__ += ["options", "understand"]

APPLICATION_NAME = "interview-presence"
CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0
IDLE_LIFETIME_S = 60.0
# As asyncpg words it; it has no class of its own for it.
_NO_TLS = "rejected SSL upgrade"
_WRONG_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
_SUPABASE_CA = "download it in the project's database settings, SSL configuration"


class DatabaseConnectionError(PersistenceError, ConnectionError):
    """No connection, for a reason that a person can mend; the text says how. One of `POSTGRES_AWAY`."""


def options(database_url: str, *, ca: str | None = None) -> dict[str, Any]:
    """Arguments for `asyncpg.connect`. Raises DatabaseUrlError for a URL or certificates that can't be used.

    `ca`: file with the CA certificate that the server's must be signed with; else one of the system's.
    """
    target = understand(database_url)
    arguments: dict[str, Any] = {
        "host": [host for host, _ in target.hosts],
        "port": [port for _, port in target.hosts],
        "user": target.user,
        "password": target.password,
        "database": target.database,
        "ssl": _tls_context(target, ca) or "disable",
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": COMMAND_TIMEOUT_S,
        # The one start-up parameter of ours, and one that every pooler knows.
        "server_settings": {"application_name": APPLICATION_NAME},
    }
    if target.parameters:
        arguments["dsn"] = f"postgresql://?{urlencode(target.parameters)}"
    if target.mode is Mode.TRANSACTION_POOLER:
        # The next transaction may run on another server connection, without our prepared statements.
        arguments["statement_cache_size"] = 0
    return arguments


def _tls_context(target: Target, ca: str | None) -> ssl.SSLContext | None:
    if target.tls is Tls.OFF:
        return None
    root = ca or target.certificates.get("sslrootcert")
    try:
        context = ssl.create_default_context(cafile=None if root == "system" else root)
        if "sslcert" in target.certificates:
            context.load_cert_chain(target.certificates["sslcert"], target.certificates.get("sslkey"))
    except OSError as error:
        # Of PRESENCE_DATABASE_CA, sslrootcert, sslcert or sslkey.
        raise DatabaseUrlError(f"has certificates that can't be read: {error}") from error
    context.check_hostname = target.tls is Tls.VERIFIED
    if target.tls is Tls.UNVERIFIED:
        context.verify_mode = ssl.CERT_NONE
    return context


async def connect_once(
    database_url: str,
    *,
    ca: str | None = None,
    **changed: Any,  # noqa: ANN401 - asyncpg's
) -> asyncpg.Connection[asyncpg.Record]:
    """One connection, for a command; `changed`: what is to be other than `options`.

    Raises DatabaseUrlError, or one of `persistence.errors.POSTGRES_AWAY`.
    """
    return await _Door(understand(database_url), ca).open(**{**options(database_url, ca=ca), **changed})


async def connect(
    database_url: str, *, ca: str | None = None, max_size: int = 4
) -> asyncpg.Pool[asyncpg.Record]:
    """A small pool. It connects when first used, so that the server starts while Postgres is away.

    Raises DatabaseUrlError at once; its connections raise what `persistence.errors.POSTGRES_AWAY` lists.
    """
    return await asyncpg.create_pool(
        **options(database_url, ca=ca),
        min_size=0,
        max_size=max_size,
        max_inactive_connection_lifetime=IDLE_LIFETIME_S,
        connect=_Door(understand(database_url), ca).open,
        reset=_nothing_to_reset,
    )


class _Door:
    """Opens connections to one target, and says in words why one that a person must mend does not open."""

    def __init__(self, target: Target, ca: str | None) -> None:
        self._target = target
        self._ca = ca

    async def open(self, *args: Any, **arguments: Any) -> asyncpg.Connection[asyncpg.Record]:  # noqa: ANN401
        try:
            return await asyncpg.connect(*args, **arguments)
        except OSError as error:
            sentence = self._sentence(error)
            if sentence is None:
                raise
            raise DatabaseConnectionError(sentence) from error

    def _sentence(self, error: OSError) -> str | None:
        host = self._target.host
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._about_certificate(error)
        if _NO_TLS in str(error):
            return (
                f"{host} offers no TLS: turn it on there, or add tls=off to DATABASE_URL if you trust all "
                "that lies between."
            )
        if self._is_direct_supabase() and (isinstance(error, socket.gaierror) or error.errno in _NO_WAY):
            return (
                f"{host} can't be reached ({error}): Supabase gives direct connections IPv6 addresses only, so "
                "without IPv6 here use the address of its session pooler."
            )
        return None

    def _is_direct_supabase(self) -> bool:
        return self._target.mode is Mode.DIRECT and self._target.host.endswith(DIRECT_HOST_SUFFIX)

    def _about_certificate(self, error: ssl.SSLCertVerificationError) -> str:
        trouble = f"The certificate of {self._target.host} is not trusted ({error.verify_message}): "
        if error.verify_code in _WRONG_NAME:
            return f"{trouble}connect by a name that it was made for."
        if self._ca is not None:
            return f"{trouble}it was not signed by the CA in {self._ca}, the file of PRESENCE_DATABASE_CA."
        where = f" ({_SUPABASE_CA})" if ".supabase.co" in self._target.host else ""
        return f"{trouble}set PRESENCE_DATABASE_CA to a file with the CA certificate that signed it{where}."


async def _nothing_to_reset(_: object) -> None:
    """We never change a session's state; asyncpg's own reset costs a round trip and irritates poolers."""
