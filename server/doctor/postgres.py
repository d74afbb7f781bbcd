"""Checks of Postgres: reached safely, up to date, open to the server, and closed to everybody else."""

from __future__ import annotations

from collections.abc import Iterator

from persistence.connect import DatabaseUrlError, Mode, Target, Tls, understand
from persistence.errors import POSTGRES_AWAY, PersistenceError
from persistence.inspection import Inspection, Role, inspect
from persistence.migrations import SchemaVersion
from server.doctor.finding import Finding, careful, failed, ok

MIGRATE = "run `presence migrate` as the owner of the tables"
MOST_NAMES = 3


async def check_postgres(url: str, schema: str, ca: str | None) -> list[Finding]:
    """Look at the database of DATABASE_URL."""
    try:
        target = understand(url)
        found = await inspect(url, schema, ca=ca)
    except DatabaseUrlError as error:
        return [failed("postgres", f"DATABASE_URL {error}", "correct it")]
    except (*POSTGRES_AWAY, PersistenceError) as error:
        what = str(error).partition("\n")[0] or "no answer in time"
        mend = "see that it runs, and that DATABASE_URL has its host, port and password"
        return [failed("postgres", f"can't be reached: {what}", mend)]
    return [*judge_connection(target, found), *judge(found)]


def judge_connection(target: Target, found: Inspection) -> Iterator[Finding]:
    """How it is reached."""
    what = f"version {found.postgres}, {found.latency_s * 1000:.1f} ms a question"
    yield ok("postgres", what)
    yield _connection(target, found)
    if target.tls is Tls.VERIFIED or target.local:
        yield ok("postgres encryption", target.tls if not target.local else "this machine's own")
    else:
        mend = "set PRESENCE_DATABASE_CA, and take tls= out of DATABASE_URL"
        yield careful("postgres encryption", target.tls, mend)


def _connection(target: Target, found: Inspection) -> Finding:
    if found.swapped:
        what = f"{target.mode}, says DATABASE_URL, but a transaction pooler answers"
        return failed("postgres connection", what, "add ?pgbouncer=true to it")
    pooler = " (without prepared statements)" if target.mode is Mode.TRANSACTION_POOLER else ""
    return ok("postgres connection", f"{target.mode}{pooler}")


def judge(found: Inspection) -> Iterator[Finding]:
    """What stands in it, and who may do what."""
    yield _schema(found.schema)
    yield _role(found.role)
    yield _none_of("postgres grants", found.missing_privileges, "the role lacks nothing", "the role lacks {}")
    yield _none_of("postgres row security", found.tables_without_rls, "on for every table", "off for {}")
    good, bad = "none lets the public keys in", "the public keys get in by {}"
    yield _none_of("postgres policies", found.open_policies, good, bad)
    yield _none_of("postgres public grants", found.open_grants, "none", "anybody may use {}")
    yield _none_of(
        "postgres broadcast", found.published, "no table is broadcast", "the rows are broadcast: {}"
    )


def _schema(version: SchemaVersion | None) -> Finding:
    if version is None:
        what = "the role may not read which migrations there were"
        return failed("postgres schema", what, "connect as presence_server")
    if version.pending:
        return failed("postgres schema", f"lacks {_few(version.pending)}", MIGRATE)
    if version.unknown:
        what = f"made by a newer version: {_few(version.unknown)}"
        return careful("postgres schema", what, "update this program")
    return ok("postgres schema", f"up to date ({version.current})")


def _role(role: Role) -> Finding:
    mend = "connect as presence_server"
    if role.superuser or role.bypasses_rls:
        power = "a superuser" if role.superuser else "past row level security"
        return careful("postgres role", f"{role.name}, {power}: more than is needed", mend)
    if role.owns_the_tables:
        what = f"{role.name}, the owner of the tables: more than is needed"
        return careful("postgres role", what, mend)
    if role.is_server:
        return ok("postgres role", role.name)
    what = f"{role.name}, whom row level security shows nothing"
    return failed("postgres role", what, mend)


def _none_of(check: str, found: list[str], good: str, bad: str) -> Finding:
    if not found:
        return ok(check, good)
    return failed(check, bad.format(_few(found)), MIGRATE)


def _few(names: list[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
