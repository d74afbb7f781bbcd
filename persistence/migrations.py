"""Bring a database up to date: in one transaction, one process at a time, also through a pooler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import asyncpg

from persistence.connect import connect_once
from persistence.errors import MigrationRefusedError
from persistence.statements import bookkeeping, in_schema, lockdown, migrations, statements

MIN_POSTGRES = 15
# Behind a migration that waits for a table everybody else waits too: rather give up soon.
LOCK_TIMEOUT = "5s"
# Nobody but other migrations waits for this one.
TURN_TIMEOUT = "120s"
# A large table takes longer than the rest of this program may wait for an answer.
MIGRATION_TIMEOUT_S = 3600.0
OUR_NOTICE = "PRSNC"
_LOCK = "select pg_advisory_xact_lock(hashtextextended('interview-presence migrate', 0))"
_NO_TIMEOUT = "set local statement_timeout = 0"
_MAY_CHANGE = """
select coalesce((select pg_has_role(relowner, 'usage') from pg_class where oid = to_regclass($1)), true)
"""
_HEADER = """\
-- interview-presence: all of the database, to paste into an SQL editor. It does what `presence migrate` does,
-- and is what `presence migrate --print` prints. Running it again changes nothing.
"""


@dataclass(slots=True, frozen=True)
class Migrated:
    """What a migration did, or would have done: the steps by name, and what they said in sentences."""

    applied: list[str]
    notices: list[str] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class SchemaVersion:
    """Which migrations a database has had. `unknown` ones were made by a newer version of this program."""

    applied: list[str]
    pending: list[str]
    unknown: list[str]

    @property
    def current(self) -> str | None:
        """The last one applied; None in a new database."""
        return self.applied[-1] if self.applied else None


async def migrate(dsn: str, schema: str = "public", *, ca: str | None = None) -> list[str]:
    """Apply what is pending and return its names, in order. Raises what `bring_up_to_date` raises."""
    return (await bring_up_to_date(dsn, schema, ca=ca)).applied


async def bring_up_to_date(
    dsn: str, schema: str = "public", *, ca: str | None = None, dry_run: bool = False
) -> Migrated:
    """Apply what is pending, and close what must be closed. Idempotent; all or nothing.

    `dry_run` does all of it and takes it back. Raises MigrationRefusedError when the database can't take it,
    and asyncpg's or the system's error when it can't be reached.
    """
    connection = await connect_once(dsn, ca=ca)
    notices: list[str] = []
    connection.add_log_listener(lambda _, message: _note(message, notices))
    try:
        _require_version(connection)
        applied = await _in_transaction(connection, schema, dry_run=dry_run)
        await asyncio.sleep(0)  # the listener is called from the loop, after the answer
    finally:
        await connection.close()
    return Migrated(applied, notices)


def _note(message: asyncpg.PostgresLogMessage, notices: list[str]) -> None:
    if message.sqlstate == OUR_NOTICE:
        notices.append(str(message.message))


async def _in_transaction(
    connection: asyncpg.Connection[asyncpg.Record], schema: str, *, dry_run: bool
) -> list[str]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        applied = await _apply(connection, schema)
    except BaseException as error:
        if not connection.is_closed():
            await transaction.rollback()
        raise _refusal(error) from error
    await (transaction.rollback() if dry_run else transaction.commit())
    return applied


def _refusal(error: BaseException) -> BaseException:
    """The error as a sentence, where Postgres refused rather than failed."""
    if isinstance(error, asyncpg.RaiseError):
        # Raised by a migration itself: its message is our own sentence.
        return MigrationRefusedError(" ".join(filter(None, (error.message, error.hint))))
    if isinstance(error, asyncpg.LockNotAvailableError):
        return MigrationRefusedError(
            "Somebody else holds a lock on the table or is migrating too; nothing was changed. Try again later."
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return MigrationRefusedError(
            f"The role of DATABASE_URL may not do that ({error.message}); nothing was changed. "
            "Migrate as the owner of the tables or of the schema."
        )
    return error


async def schema_version(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> SchemaVersion:
    """What is applied and what is pending, without changing anything."""
    try:
        async with connection.transaction():
            rows = await connection.fetch(statements(schema)["applied"])
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        rows = []  # none yet, or somebody else's table, which bookkeeping.sql refuses in words
    known = [step.name for step in migrations(schema)]
    applied = [str(row["name"]) for row in rows]
    return SchemaVersion(
        applied=applied,
        pending=[name for name in known if name not in applied],
        unknown=[name for name in applied if name not in known],
    )


def printable(schema: str = "public") -> str:
    """One script that does what `migrate` does, for an SQL editor."""
    steps = migrations(schema)
    record = statements(schema)["record_migration"]
    parts = [_HEADER, "begin;\n", f"{_NO_TIMEOUT};\n{_lock_timeout()};\n{_LOCK};\n", bookkeeping(schema)]
    for step in steps:
        parts += [f"-- {step.name}\n{step.sql}", record.replace("$1", f"'{step.name}'") + "\n"]
    return "\n".join([*parts, f"-- lockdown\n{lockdown(schema)}", "commit;\n"])


def _lock_timeout() -> str:
    return f"set local lock_timeout = '{LOCK_TIMEOUT}'"


async def _apply(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> list[str]:
    await _run(connection, f"{_NO_TIMEOUT}; set local lock_timeout = '{TURN_TIMEOUT}'")
    await _run(connection, _LOCK)
    await _run(connection, f"{_lock_timeout()}; set local client_min_messages = notice")
    version = await schema_version(connection, schema)
    table = in_schema(':"schema".presence_migrations', schema)
    if not version.pending and not await connection.fetchval(_MAY_CHANGE, table):
        # The server's own role: a release command that runs with it has nothing to do, and may not do it.
        return []
    await _run(connection, bookkeeping(schema))
    for step in migrations(schema):
        if step.name in version.pending:
            await _run(connection, step.sql)
            await connection.execute(statements(schema)["record_migration"], step.name)
    await _run(connection, lockdown(schema))
    return version.pending


async def _run(connection: asyncpg.Connection[asyncpg.Record], sql: str) -> None:
    await connection.execute(sql, timeout=MIGRATION_TIMEOUT_S)


def _require_version(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    version = connection.get_server_version()
    if version.major < MIN_POSTGRES:
        raise MigrationRefusedError(f"Postgres {MIN_POSTGRES} or newer is needed; this is {version.major}.")
