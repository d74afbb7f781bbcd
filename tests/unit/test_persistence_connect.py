"""What a database URL says about who, where, poolers and TLS, and in which words a bad one is refused."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import certifi
import pytest

from persistence.address import DatabaseUrlError, Mode, Tls, understand
from persistence.connect import DatabaseConnectionError, connect_once, options
from persistence.statements import bookkeeping, lockdown, migrations

SUPABASE = "aws-0-eu-central-1.pooler.supabase.com"
PERSISTENCE = Path(__file__).parents[2] / "persistence"
# What a transaction pooler can't keep for us: it belongs to a connection, not to a transaction.
OF_A_SESSION = (
    r"\bpg_(try_)?advisory_(lock|unlock)",
    r"\b(un)?listen\s+[\"\w]",
    r"(?m)^\s*set\s+(?!local\b)(session\s+)?[\w.]+\s*(=|\bto\b)\s*[^,]*;",
    r"\bset_config\([^)]*false",
    r"\bcreate\s+temp",
    r"\bdeclare\s+\w+\s+cursor\s+with\s+hold",
    r"\.(prepare|add_listener)\(",
    r"\b(pool|connections)\.(fetch|fetchval|fetchrow|executemany|copy_\w+)\(",
)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://postgres:x@db.abc.supabase.co:5432/postgres", Mode.DIRECT),
        ("postgresql://localhost/postgres", Mode.DIRECT),
        (f"postgresql://postgres.abc:x@{SUPABASE}:5432/postgres", Mode.SESSION_POOLER),
        (f"postgresql://postgres.abc:x@{SUPABASE}/postgres", Mode.SESSION_POOLER),
        (f"postgresql://postgres.abc:x@{SUPABASE}:6543/postgres", Mode.TRANSACTION_POOLER),
        ("postgresql://postgres:x@db.abc.supabase.co:6543/postgres", Mode.TRANSACTION_POOLER),
        ("postgres://u:p@db.example:6543/x", Mode.TRANSACTION_POOLER),
        ("postgres://u:p@db.example/x?pgbouncer=true", Mode.TRANSACTION_POOLER),
        ("postgres://u:p@db.example/x?pgbouncer=false", Mode.DIRECT),
        ("postgres://u:p@/x?host=db.example&port=6543", Mode.TRANSACTION_POOLER),
    ],
)
def test_the_mode_is_recognised_by_the_url(url: str, mode: Mode) -> None:
    assert understand(url).mode is mode
    assert options(url).get("statement_cache_size") == (0 if mode is Mode.TRANSACTION_POOLER else None)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
@pytest.mark.parametrize("password", ["p%40ss%2Fw%23rd%3F%25", "p@ss%2Fw%23rd%3F%25"])
def test_who_and_where_are_read_from_the_url(scheme: str, password: str) -> None:
    arguments = options(f"{scheme}://us%65r:{password}@db.example:5433/na%20me")
    assert (arguments["user"], arguments["password"]) == ("user", "p@ss/w#rd?%")
    assert (arguments["host"], arguments["port"]) == (["db.example"], [5433])
    assert arguments["database"] == "na me"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgres://h/x", (("h", 5432),)),
        ("postgres://u:p@[2001:db8::1]:5433/x", (("2001:db8::1", 5433),)),
        ("postgres://u:p@[::1]/x", (("::1", 5432),)),
        ("postgres://h1:1,h2:2/x", (("h1", 1), ("h2", 2))),
        ("postgres://%2Frun%2Fpg/x", (("/run/pg", 5432),)),
        ("postgres:///x?host=/run/pg&port=5", (("/run/pg", 5),)),
        ("postgres:///x?host=2001:db8::1", (("2001:db8::1", 5432),)),
    ],
)
def test_hosts_of_every_form_are_read(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    assert understand(url).hosts == hosts


def test_no_variable_of_the_environment_takes_the_place_of_what_the_url_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere.example")
    arguments = options("postgres:///x")
    assert arguments["host"][-1] == "localhost"
    assert arguments["ssl"] == "disable"


def test_the_database_may_be_a_parameter() -> None:
    assert understand("postgres://h?dbname=x").database == "x"


def test_parameters_for_other_clients_are_not_sent_to_the_server_and_others_are() -> None:
    url = "postgres://u:p@h:6543/x?pgbouncer=true&connection_limit=1&sslmode=require&channel_binding=require"
    assert "dsn" not in options(url)
    assert options(f"{url}&options=a%20b")["dsn"] == "postgresql://?options=a+b"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:secret@h/x", "must start with postgresql:// or postgres://"),
        ("secret", "must start with"),
        ("postgres://u:[YOUR-PASSWORD]@db.abc.supabase.co:5432/postgres", "still says [YOUR-PASSWORD]"),
        ("postgres://u:secret/word@h/x", "write them as %2F, %3F and %23"),
        ("postgres://u:secret#word@h/x", "write them as %2F, %3F and %23"),
        ("postgres://u:100%secret@h/x", "write it as %25"),
        ("postgres://u:secret@2001:db8::1/x", "belongs in brackets"),
        ("postgres://u:secret@2001:db8::1:5432/x", "belongs in brackets"),
        ("postgres://u:secret@[nonsense]/x", "has no good host and port"),
        ("postgres://u:secret@h:port/x", "has no good host and port"),
        ("postgres://u:secret@h:70000/x", "a number from 1 to 65535"),
        ("postgres://u:secret@h:5432", "names no database"),
        ("postgres://u:secret@h:5432/", "names no database"),
        (f"postgres://postgres:secret@{SUPABASE}/postgres", "as in postgres.abcdefgh"),
        ("postgres://u:secret@h/x?sslmode=on", "has an unknown sslmode"),
        ("postgres://u:secret@h/x?tls=no", "has an unknown tls"),
    ],
)
def test_a_url_that_cant_be_used_is_refused_in_words_without_its_password(url: str, words: str) -> None:
    with pytest.raises(DatabaseUrlError, match=re.escape(words)) as refused:
        options(url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_question_mark_in_the_password_is_told_too() -> None:
    with pytest.raises(DatabaseUrlError, match="in a password write"):
        understand("postgres://u:secret?word@h/x")


@pytest.mark.parametrize(
    "url",
    [
        "postgres://localhost/x",
        "postgres://127.0.0.1:5433/x",
        "postgres://[::1]/x",
        "postgres:///x",
        "postgres:///x?host=/var/run/postgresql",
        "postgres://localhost/x?sslmode=prefer",
    ],
)
def test_a_connection_within_this_machine_is_not_encrypted(url: str) -> None:
    assert understand(url).local
    assert options(url, ca=certifi.where())["ssl"] == "disable"


@pytest.mark.parametrize(
    ("sslmode", "tls"),
    [("require", Tls.UNVERIFIED), ("verify-ca", Tls.VERIFIED_CA), ("verify-full", Tls.VERIFIED)],
)
def test_a_stricter_sslmode_counts_within_this_machine_too(sslmode: str, tls: Tls) -> None:
    url = f"postgres://localhost/x?sslmode={sslmode}"
    assert understand(url).tls is tls
    context = options(url)["ssl"]
    assert context.check_hostname == (tls is Tls.VERIFIED)
    assert (context.verify_mode is ssl.CERT_REQUIRED) == (tls is not Tls.UNVERIFIED)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://db.example/x",
        "postgres://10.0.0.5/x",
        "postgres:///x?host=db.example",
        "postgres://localhost,db.example/x",
        "postgres://db.example/x?sslmode=require",
        "postgres://db.example/x?sslmode=verify-ca",
        "postgres://db.example/x?sslmode=verify-full&sslrootcert=system",
    ],
)
def test_another_machine_is_verified_whole_whatever_sslmode_leaves_open(url: str) -> None:
    for ca in (None, certifi.where()):
        context = options(url, ca=ca)["ssl"]
        assert isinstance(context, ssl.SSLContext)
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
def test_an_sslmode_that_lets_another_machine_be_reached_unencrypted_is_refused(sslmode: str) -> None:
    with pytest.raises(
        DatabaseUrlError, match=rf"sslmode={sslmode}, .* to db\.internal unencrypted.* tls=off"
    ):
        options(f"postgres://u:p@db.internal/x?sslmode={sslmode}")


def test_who_says_so_in_so_many_words_gets_less() -> None:
    assert options("postgres://db.internal/x?tls=off&sslmode=disable")["ssl"] == "disable"
    context = options("postgres://db.internal/x?tls=unverified")["ssl"]
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_NONE)


def test_certificates_that_cant_be_read_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUrlError, match="has certificates that can't be read"):
        options("postgres://db.example/x", ca=str(tmp_path / "none.crt"))
    empty = tmp_path / "empty.crt"
    empty.touch()
    with pytest.raises(DatabaseUrlError, match="has certificates that can't be read"):
        options(f"postgres://db.example/x?sslrootcert={empty}")


def test_a_target_says_what_it_is_without_user_and_password() -> None:
    target = understand(f"postgres://postgres.abc:secret@{SUPABASE}:6543/postgres")
    assert str(target) == f"transaction pooler at {SUPABASE}:6543, encrypted and verified"
    assert "secret" not in repr(target)
    assert str(understand("postgres://u:secret@[::1]/x")) == "direct at [::1]:5432, not encrypted"


def test_nothing_is_asked_of_postgres_that_outlives_a_transaction() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in PERSISTENCE.rglob("*.py")}
    sources |= {path.name: path.read_text(encoding="utf-8") for path in PERSISTENCE.rglob("*.sql")}
    sources |= {step.name: step.sql for step in migrations("public")}
    sources |= {"bookkeeping": bookkeeping("public"), "lockdown": lockdown("public")}
    for name, text in sources.items():
        found = [each for each in OF_A_SESSION if re.search(each, text, re.IGNORECASE)]
        assert (name, found) == (name, [])


async def test_a_direct_address_to_which_no_way_leads_points_to_the_session_pooler() -> None:
    """As on a host without IPv6; here the name leads nowhere."""
    url = "postgresql://postgres:hunter2@db.abcdefghijklmnop.supabase.co:5432/postgres"
    with pytest.raises(DatabaseConnectionError, match=r"IPv6 addresses only.*session pooler") as failure:
        await connect_once(url, host=["nowhere.invalid"])
    assert "hunter2" not in str(failure.value)
