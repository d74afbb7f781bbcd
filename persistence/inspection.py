"""Looks at a database without changing it: what stands there, who may do what, and as whom we come."""

from __future__ import annotations

import time
from dataclasses import dataclass

import asyncpg

from persistence.connect import connect_once
from persistence.migrations import SchemaVersion, schema_version
from persistence.patience import WORK_WITHIN_S, transaction_on
from persistence.statements import statements

CLOSE_WITHIN_S = 2.0


@dataclass(slots=True, frozen=True)
class Role:
    """As whom the URL connects, and what lets that role past row level security."""

    name: str
    superuser: bool
    bypasses_rls: bool
    owns_the_tables: bool
    is_server: bool


@dataclass(slots=True, frozen=True)
class Inspection:
    """What was found. `schema` is None if this role may not read which migrations there were; times in seconds."""

    postgres: str
    latency_s: float
    schema: SchemaVersion | None
    role: Role
    missing_privileges: list[str]
    tables_without_rls: list[str]
    open_policies: list[str]
    open_grants: list[str]
    published: list[str]


async def inspect(database_url: str, schema: str, *, ca: str | None = None) -> Inspection:
    """Look. Raises DatabaseUrlError, or one of `persistence.errors.POSTGRES_AWAY`."""
    connection = await connect_once(database_url, ca=ca)
    try:
        # One transaction: behind a transaction pooler everything then comes from one server connection.
        async with transaction_on(connection, WORK_WITHIN_S, readonly=True):
            return await _look(connection, schema)
    finally:
        await connection.close(timeout=CLOSE_WITHIN_S)


async def _look(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> Inspection:
    asked_at = time.perf_counter()
    await connection.execute("select")
    latency_s = time.perf_counter() - asked_at
    sql = statements(schema, "inspection.sql")

    async def names(statement: str) -> list[str]:
        return [str(row[0]) for row in await connection.fetch(sql[statement])]

    version = connection.get_server_version()
    return Inspection(
        postgres=f"{version.major}.{version.minor}",
        latency_s=latency_s,
        schema=await _version(connection, schema),
        role=await _role(connection, sql["who_we_are"]),
        missing_privileges=await names("missing_privileges"),
        tables_without_rls=await names("tables_without_rls"),
        open_policies=await names("open_policies"),
        open_grants=await names("open_grants"),
        published=await names("published"),
    )


async def _version(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> SchemaVersion | None:
    try:
        return await schema_version(connection, schema)
    except asyncpg.InsufficientPrivilegeError:
        return None


async def _role(connection: asyncpg.Connection[asyncpg.Record], statement: str) -> Role:
    row = await connection.fetchrow(statement)
    assert row is not None  # noqa: S101 - a session's role exists
    return Role(
        name=row["role"],
        superuser=row["superuser"],
        bypasses_rls=row["bypasses_rls"],
        owns_the_tables=row["owns_the_tables"],
        is_server=row["is_server"],
    )
