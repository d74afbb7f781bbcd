"""All of the history in the oldest Postgres that is supported (Debian's): directly, pooled, and over its own TLS."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from persistence.connect import connect, connect_once
from persistence.flusher import Flusher
from persistence.migrations import MIN_POSTGRES, bring_up_to_date, migrate
from persistence.plan.history import Arrivals
from persistence.repository import Repository
from persistence.statements import migrations
from server.embedded import EmbeddedPostgres
from tests.certificates import make_ca, sign
from tests.contract.persistence_model import LiveModel, ended, row
from tests.pgbouncer import UNPRIVILEGED_UID, PgBouncer
from tests.prerequisites import demand

HOST = "localhost"
ALL = [step.name for step in migrations("public")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oldest")


@pytest.fixture(scope="module")
def oldest(folder: Path) -> Iterator[EmbeddedPostgres]:
    """Postgres 15, run as the embedded one is, with a certificate for localhost."""
    binaries = Path(demand(f"postgres-{MIN_POSTGRES}")).parent
    certificate = sign(make_ca(folder, "ca"), HOST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.embedded.postgres.binaries", lambda: binaries)
        with EmbeddedPostgres.start(folder / "data", durable=False) as server:
            _use(server, folder / "data" / "cluster", certificate.file, certificate.key)
            yield server


def _use(server: EmbeddedPostgres, cluster: Path, *files: Path) -> None:
    """Have it speak TLS with the certificate and key."""
    for file, name in zip(files, ("server.crt", "server.key"), strict=True):
        own = Path(shutil.copy(file, cluster / name))
        own.chmod(0o600)
        if os.getuid() == 0:
            os.chown(own, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    with (cluster / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write("ssl = on\n")
    server.restart()


@pytest.fixture(params=["direct", "transaction", "tls"])
async def url(request: pytest.FixtureRequest, oldest: EmbeddedPostgres, folder: Path) -> AsyncIterator[str]:
    """Address of an empty database, by three ways."""
    connection = await connect_once(oldest.url)
    await connection.execute(f"create database {request.param}_way")
    plain = oldest.url_of(f"{request.param}_way")
    if request.param == "direct":
        yield plain
    elif request.param == "tls":
        yield f"{plain.replace('127.0.0.1', HOST)}?sslmode=verify-full&sslrootcert={folder / 'ca.crt'}"
    else:
        with PgBouncer.start(folder / "pgbouncer", oldest, "transaction") as pooler:
            yield f"{pooler.url_of(plain)}?pgbouncer=true"
    await connection.execute(f"drop database {request.param}_way with (force)")
    await connection.close()


async def test_the_oldest_postgres_does_all_of_the_history(url: str) -> None:
    assert (await bring_up_to_date(url, dry_run=True)).applied == ALL
    assert (await migrate(url), await migrate(url)) == (ALL, [])
    live = LiveModel()
    for number in range(25):
        live.change((row if number % 2 else ended)(f"s{number:02d}", metadata="{}"))
    async with await connect(url) as pool:
        assert major(await pool.fetchval("show server_version_num")) == MIN_POSTGRES
        assert await Flusher(live, Repository(pool), holder="node-1", batch=10).flush_once()
        assert len(await Repository(pool).sessions("main")) == 25
        await Arrivals(pool).demand("main", 7)
    assert not live.dirty


def major(number: str) -> int:
    return int(number) // 10_000


async def test_its_own_tls_is_verified(oldest: EmbeddedPostgres, folder: Path) -> None:
    url = f"{oldest.url.replace('127.0.0.1', HOST)}?sslmode=verify-full"
    connection: asyncpg.Connection[asyncpg.Record] = await connect_once(url, ca=str(folder / "ca.crt"))
    own = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    assert await connection.fetchval(own) is True
    await connection.close()
    make_ca(folder, "another-ca")
    with pytest.raises(ConnectionError, match="was not signed by the CA in"):
        await connect_once(url, ca=str(folder / "another-ca.crt"))
