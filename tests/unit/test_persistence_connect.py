"""What a database URL says about poolers and TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import pytest

from persistence.connect import Mode, options, understand

SUPABASE = "aws-0-eu-central-1.pooler.supabase.com"


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://postgres:x@db.abc.supabase.co:5432/postgres", Mode.DIRECT),
        ("postgresql://localhost/postgres", Mode.DIRECT),
        (f"postgresql://postgres.abc:x@{SUPABASE}:5432/postgres", Mode.SESSION_POOLER),
        (f"postgresql://postgres.abc:x@{SUPABASE}:6543/postgres", Mode.TRANSACTION_POOLER),
        ("postgres://u:p@db.example:6543/x", Mode.TRANSACTION_POOLER),
        ("postgres://u:p@db.example/x?pgbouncer=true", Mode.TRANSACTION_POOLER),
        ("postgres://u:p@db.example/x?pgbouncer=false", Mode.DIRECT),
        ("postgres://u:p@/x?host=db.example&port=6543", Mode.TRANSACTION_POOLER),
    ],
)
def test_the_mode_is_recognised_by_the_url(url: str, mode: Mode) -> None:
    assert understand(url).mode is mode
    assert ("statement_cache_size" in options(url)) == (mode is Mode.TRANSACTION_POOLER)


def test_parameters_for_other_clients_are_not_sent_to_the_server() -> None:
    url = (
        "postgres://u:p%40@h:6543/x?pgbouncer=true&connection_limit=1&sslmode=require&channel_binding=require"
    )
    assert understand(url).dsn == "postgres://u:p%40@h:6543/x?sslmode=require"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://localhost/x",
        "postgres://127.0.0.1:5433/x",
        "postgres://[::1]/x",
        "postgres:///x",
        "postgres:///x?host=/var/run/postgresql",
    ],
)
def test_a_connection_within_this_machine_is_not_encrypted(url: str) -> None:
    assert options(url)["ssl"] == "disable"


@pytest.mark.parametrize(
    "url", ["postgres://db.example/x", "postgres://10.0.0.5/x", "postgres:///x?host=db.example"]
)
def test_a_connection_to_another_machine_is_encrypted(url: str) -> None:
    assert options(url)["ssl"] == "require"


def test_the_urls_own_sslmode_counts() -> None:
    assert "ssl" not in options("postgres://db.internal/x?sslmode=disable")


def test_with_a_ca_the_server_is_verified() -> None:
    context = options("postgres://db.example/x?sslmode=require", ca=certifi.where())["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_missing_ca_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        options("postgres://db.example/x", ca=str(tmp_path / "none.crt"))
