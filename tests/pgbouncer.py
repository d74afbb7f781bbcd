"""A real PgBouncer in front of a Postgres of the tests, on a free port; it dies with the test."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Literal

from server.embedded import EmbeddedPostgres
from server.embedded.child import LOOPBACK, Child, Identity, Server, start_on
from tests.certificates import Certificate
from tests.prerequisites import demand

PoolMode = Literal["transaction", "session"]
# PgBouncer refuses root; this is the same number as the embedded Postgres runs as.
UNPRIVILEGED_UID = 64_837


class PgBouncer(Server):
    """PgBouncer with every database of `upstream`; each takes `pool_size` connections of Postgres.

    In turn, not the latest again as usual: with clients enough to open them all, each transaction of a client
    runs on another one. With `certificate` it takes connections over TLS only.
    """

    def __init__(
        self,
        folder: Path,
        upstream: EmbeddedPostgres,
        mode: PoolMode,
        port: int,
        *,
        pool_size: int = 3,
        certificate: Certificate | None = None,
    ) -> None:
        self._program = demand("pgbouncer")
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._upstream = upstream
        self.port = port
        self._settings = {
            "pool_mode": mode,
            "default_pool_size": pool_size,
            "server_round_robin": 1,
            "listen_addr": LOOPBACK,
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": self._folder / "users.txt",
            "server_login_retry": 1,
            **_tls(certificate),
        }
        self._child = self._launch()

    @classmethod
    def start(
        cls,
        folder: Path,
        upstream: EmbeddedPostgres,
        mode: PoolMode,
        *,
        pool_size: int = 3,
        certificate: Certificate | None = None,
    ) -> PgBouncer:
        """Start it on a free port and wait until it takes connections."""
        return start_on(
            0,
            lambda port: cls(folder, upstream, mode, port, pool_size=pool_size, certificate=certificate),
        )

    def url_of(self, url: str, host: str = LOOPBACK) -> str:
        """Address of the database of `url`, one of the upstream's, through this PgBouncer."""
        user, password = "postgres", self._upstream.password
        return f"postgresql://{user}:{password}@{host}:{self.port}/{url.rpartition('/')[2]}"

    def _launch(self) -> Child:
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text(self._configuration(), encoding="utf-8")
        users = self._folder / "users.txt"
        users.write_text(f'"postgres" "{self._upstream.password}"\n', encoding="utf-8")
        child = Child(
            [self._program, str(configuration)],
            folder=self._folder,
            log=self._folder / "pgbouncer.log",
            farewell=signal.SIGTERM,  # at once; SIGINT would wait for the clients
            identity=Identity(UNPRIVILEGED_UID, reach=True) if os.getuid() == 0 else Identity.ours(),
        )
        child.wait_until(self._takes_connections, "PgBouncer")
        return child

    def _configuration(self) -> str:
        lines = [f"{name} = {value}" for name, value in self._settings.items()]
        databases = f"[databases]\n* = host={LOOPBACK} port={self._upstream.port}"
        return "\n".join([databases, "[pgbouncer]", *lines, ""])

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        return True


def _tls(certificate: Certificate | None) -> dict[str, object]:
    if certificate is None:
        return {}
    return {
        "client_tls_sslmode": "require",
        "client_tls_cert_file": certificate.file,
        "client_tls_key_file": certificate.key,
    }
