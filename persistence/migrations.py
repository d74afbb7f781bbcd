"""Bring a database up to date: in one transaction, one process at a time, also through a pooler."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from persistence.connect import connect_once
from persistence.errors import MigrationRefusedError
from persistence.statements import bookkeeping, migrations, statements

MIN_POSTGRES = 15
LOCK_TIMEOUT = "30s"
_LOCK = "select pg_advisory_xact_lock(hashtextextended('interview-presence migrate', 0))"
_HEADER = """\
-- interview-presence: all of the database, to paste into an SQL editor. It does what `presence migrate` does,
-- and is what `presence migrate --print` prints. Running it again changes nothing.
"""


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
    """Apply what is pending and return its names, in order. Idempotent; all or nothing.

    Raises MigrationRefusedError when the database can't take it, and asyncpg's or the system's error when it
    can't be reached.
    """
    connection = await connect_once(dsn, ca=ca)
    try:
        _require_version(connection)
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            await connection.execute(_LOCK)
            return await _apply(connection, schema)
    except asyncpg.RaiseError as error:
        # Raised by a migration itself: its message is our own sentence.
        raise MigrationRefusedError(" ".join(filter(None, (error.message, error.hint)))) from error
    finally:
        await connection.close()


async def schema_version(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> SchemaVersion:
    """What is applied and what is pending, without changing anything."""
    try:
        async with connection.transaction():
            rows = await connection.fetch(statements(schema)["applied"])
    except asyncpg.UndefinedTableError:
        rows = []
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
    parts = [_HEADER, "begin;\n", f"{_LOCK};\n", bookkeeping(schema)]
    for step in steps:
        parts += [f"-- {step.name}\n{step.sql}", record.replace("$1", f"'{step.name}'") + "\n"]
    return "\n".join([*parts, "commit;\n"])


async def _apply(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> list[str]:
    await connection.execute(bookkeeping(schema))
    version = await schema_version(connection, schema)
    for step in migrations(schema):
        if step.name in version.pending:
            await connection.execute(step.sql)
            await connection.execute(statements(schema)["record_migration"], step.name)
    return version.pending


def _require_version(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    version = connection.get_server_version()
    if version.major < MIN_POSTGRES:
        raise MigrationRefusedError(f"Postgres {MIN_POSTGRES} or newer is needed; this is {version.major}.")
