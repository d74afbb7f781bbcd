"""Looks at a database without changing it: what stands there, who may do what, and as whom we come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import asyncpg

from persistence.connect import Mode, connect_once, understand
from persistence.errors import POSTGRES_AWAY
from persistence.migrations import SchemaVersion, schema_version
from persistence.patience import WORK_WITHIN_S, transaction_on
from persistence.statements import statements

CLOSE_WITHIN_S = 2.0
# A pooler with a single connection to give has none for the second of two transactions.
SWAP_WITHIN_S = 3.0

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


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
    """What was found. `schema` is None if this role may not read which migrations there were; times in seconds.

    `swapped`: a pooler gives each transaction another connection of Postgres, and the URL does not say so.
    """

    postgres: str
    latency_s: float
    schema: SchemaVersion | None
    role: Role
    missing_privileges: list[str]
    tables_without_rls: list[str]
    open_policies: list[str]
    open_grants: list[str]
    published: list[str]
    swapped: bool = False


async def inspect(database_url: str, schema: str, *, ca: str | None = None) -> Inspection:
    """Look. Raises DatabaseUrlError, or one of `persistence.errors.POSTGRES_AWAY`."""
    async with _open(database_url, ca) as connection:
        # One transaction: behind a transaction pooler everything then comes from one server connection.
        async with transaction_on(connection, WORK_WITHIN_S, readonly=True):
            found = await _look(connection, schema)
        if understand(database_url).mode is Mode.TRANSACTION_POOLER:
            return found
        return replace(found, swapped=await _is_swapped(connection, database_url, ca))


@asynccontextmanager
async def _open(database_url: str, ca: str | None) -> AsyncIterator[Connection]:
    """A connection that leaves no prepared statement behind in a pooler of which nobody told us."""
    connection = await connect_once(database_url, ca=ca, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close(timeout=CLOSE_WITHIN_S)


async def _is_swapped(connection: Connection, database_url: str, ca: str | None) -> bool:
    """Whether transactions of one connection were seen to run in several processes of Postgres."""
    with suppress(*POSTGRES_AWAY):
        async with asyncio.timeout(SWAP_WITHIN_S), _open(database_url, ca) as other:
            return await _moves(connection, other)
    return False


async def _moves(one: Connection, other: Connection) -> bool:
    """One of these orders tells, whether the pooler gives out what was given back last, or first."""
    ran_in: dict[Connection, set[int]] = {one: set(), other: set()}
    for pair in ((one, other), (one, other), (other, one)):
        for each in pair:
            await each.execute("begin")
            ran_in[each].add(await each.fetchval("select pg_backend_pid()"))
        for each in pair:
            await each.execute("commit")
    return any(len(pids) > 1 for pids in ran_in.values())


async def _look(connection: Connection, schema: str) -> Inspection:
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


async def _version(connection: Connection, schema: str) -> SchemaVersion | None:
    try:
        return await schema_version(connection, schema)
    except asyncpg.InsufficientPrivilegeError:
        return None


async def _role(connection: Connection, statement: str) -> Role:
    row = await connection.fetchrow(statement)
    assert row is not None  # noqa: S101 - a session's role exists
    return Role(
        name=row["role"],
        superuser=row["superuser"],
        bypasses_rls=row["bypasses_rls"],
        owns_the_tables=row["owns_the_tables"],
        is_server=row["is_server"],
    )
