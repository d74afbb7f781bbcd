"""TLS to another machine: a real TLS server with a certificate of a CA of the tests' own, and one without TLS.

The embedded Postgres is built without TLS. PgBouncer speaks the same protocol in front of it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from persistence.connect import DatabaseConnectionError, connect, connect_once, understand
from persistence.errors import POSTGRES_AWAY
from persistence.flusher import Flusher
from persistence.migrations import migrate
from persistence.repository import Repository
from server.embedded import EmbeddedPostgres
from server.embedded.child import LOOPBACK
from tests.certificates import make_ca, sign
from tests.contract.persistence_model import LiveModel, row
from tests.pgbouncer import PgBouncer

REMOTE, OTHER_NAME = "db.example.test", "other.example.test"
SUPABASE = "aws-0-eu-central-1.pooler.supabase.com"
CA, OTHER_CA = "ca.crt", "other-ca.crt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the certificates of two CAs."""
    folder = tmp_path_factory.mktemp("tls")
    make_ca(folder, "other-ca")
    return folder


@pytest.fixture(scope="module")
def with_tls(postgres_server: EmbeddedPostgres, folder: Path) -> Iterator[PgBouncer]:
    certificate = sign(make_ca(folder, "ca"), REMOTE)
    with PgBouncer.start(folder / "with", postgres_server, "session", certificate=certificate) as server:
        yield server


@pytest.fixture(scope="module")
def without_tls(postgres_server: EmbeddedPostgres, folder: Path) -> Iterator[PgBouncer]:
    with PgBouncer.start(folder / "without", postgres_server, "session") as server:
        yield server


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some names stand for this machine: by its URL, a server here is then another machine."""
    ask = socket.getaddrinfo

    def answer(host: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one
        ours = host in (REMOTE, OTHER_NAME, SUPABASE)
        return ask(LOOPBACK if ours else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


async def refusal(url: str, ca: Path | None = None) -> str:
    """Why there is no connection."""
    with pytest.raises(DatabaseConnectionError) as refused:
        await connect_once(url, ca=str(ca) if ca else None)
    assert isinstance(refused.value, POSTGRES_AWAY)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


async def is_encrypted(url: str, ca: Path | None = None) -> bool:
    connection = await connect_once(url, ca=str(ca) if ca else None)
    transport = connection._transport  # type: ignore[attr-defined]
    await connection.close()
    return transport.get_extra_info("ssl_object") is not None


async def test_with_the_right_ca_all_works(
    with_tls: PgBouncer, empty_database_url: str, folder: Path
) -> None:
    url, ca = with_tls.url_of(empty_database_url, REMOTE), str(folder / CA)
    assert await is_encrypted(url, folder / CA)
    assert await migrate(url, ca=ca)
    live = LiveModel()
    live.change(row())
    async with await connect(url, ca=ca) as pool:
        assert await Flusher(live, Repository(pool), holder="node-1").flush_once()
        assert await Repository(pool).session("s1") is not None


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
async def test_the_ca_may_stand_in_the_url(
    with_tls: PgBouncer, database_url: str, folder: Path, sslmode: str
) -> None:
    url = with_tls.url_of(database_url, REMOTE)
    assert await is_encrypted(f"{url}?sslmode={sslmode}&sslrootcert={folder / CA}")


async def test_with_the_wrong_ca_one_sentence_says_so(
    with_tls: PgBouncer, database_url: str, folder: Path
) -> None:
    wrong = folder / OTHER_CA
    assert await refusal(with_tls.url_of(database_url, REMOTE), wrong) == (
        f"The certificate of {REMOTE} is not trusted (unable to get local issuer certificate): it was not "
        f"signed by the CA in {wrong}, the file of PRESENCE_DATABASE_CA."
    )


@pytest.mark.parametrize("query", ["", "?sslmode=require", "?sslmode=verify-ca"])
async def test_without_a_ca_the_systems_are_asked_and_the_sentence_names_the_setting(
    with_tls: PgBouncer, database_url: str, query: str
) -> None:
    sentence = await refusal(with_tls.url_of(database_url, REMOTE) + query)
    assert "is not trusted" in sentence
    assert sentence.endswith("set PRESENCE_DATABASE_CA to a file with the CA certificate that signed it.")


async def test_supabases_own_ca_is_said_where_to_find(with_tls: PgBouncer, database_url: str) -> None:
    url = with_tls.url_of(database_url, SUPABASE).replace("//postgres:", "//postgres.abc:")
    assert "download it in the project's database settings, SSL configuration" in await refusal(url)


async def test_a_certificate_for_another_name_is_refused(
    with_tls: PgBouncer, database_url: str, folder: Path
) -> None:
    sentence = await refusal(with_tls.url_of(database_url, OTHER_NAME), folder / CA)
    assert sentence.startswith(f"The certificate of {OTHER_NAME} is not trusted (Hostname mismatch")
    assert sentence.endswith("connect by a name that it was made for.")


async def test_a_server_without_tls_on_another_machine_is_refused(
    without_tls: PgBouncer, database_url: str, folder: Path
) -> None:
    for ca in (None, folder / OTHER_CA):
        assert await refusal(without_tls.url_of(database_url, REMOTE), ca) == (
            f"{REMOTE} offers no TLS: turn it on there, or add tls=off to DATABASE_URL if you trust all that "
            "lies between."
        )


async def test_a_server_without_tls_is_taken_where_the_operator_says_so(
    without_tls: PgBouncer, database_url: str
) -> None:
    assert not await is_encrypted(without_tls.url_of(database_url, REMOTE) + "?tls=off")


async def test_a_server_that_nobody_verifies_is_taken_where_the_operator_says_so(
    with_tls: PgBouncer, database_url: str
) -> None:
    assert await is_encrypted(with_tls.url_of(database_url, REMOTE) + "?tls=unverified")


async def test_within_this_machine_no_tls_is_asked_for(without_tls: PgBouncer, database_url: str) -> None:
    assert not await is_encrypted(without_tls.url_of(database_url))
    assert not await is_encrypted(database_url)


async def test_a_stricter_sslmode_is_obeyed_within_this_machine(
    with_tls: PgBouncer, without_tls: PgBouncer, database_url: str, folder: Path
) -> None:
    assert "offers no TLS" in await refusal(without_tls.url_of(database_url) + "?sslmode=require")
    assert await is_encrypted(with_tls.url_of(database_url) + "?sslmode=require")
    assert await is_encrypted(with_tls.url_of(database_url) + "?sslmode=verify-ca", folder / CA)
    assert "name that it was made for" in await refusal(
        with_tls.url_of(database_url) + "?sslmode=verify-full", folder / CA
    )


async def test_a_server_whose_certificate_does_not_fit_counts_as_away_and_the_log_has_the_sentence(
    with_tls: PgBouncer, database_url: str, folder: Path
) -> None:
    async with await connect(with_tls.url_of(database_url, REMOTE), ca=str(folder / OTHER_CA)) as pool:
        flusher = Flusher(LiveModel(), Repository(pool), holder="node-1")
        with capture_logs() as logs:
            assert not await flusher.flush_once()
    assert flusher.status.postgres == "down"
    assert "PRESENCE_DATABASE_CA" in logs[0]["error"]


async def test_supabases_ipv6_is_explained_when_it_cant_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    sentence = await refusal("postgres://postgres:x@db.abcdefgh.supabase.co:5432/postgres")
    assert sentence.startswith("db.abcdefgh.supabase.co can't be reached")
    assert sentence.endswith("use the address of its session pooler.")


async def test_errors_that_explain_themselves_stay_as_they_are(database_url: str) -> None:
    wrong = database_url.replace(understand(database_url).password or "", "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect_once(wrong)
