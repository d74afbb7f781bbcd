"""A database prepared like a Supabase project: its roles, what it gives away by default, and an older table in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from persistence.connect import connect_once
from server.embedded import EmbeddedPostgres
from tests.old_tables import DOCUMENTED, TEXT_ROWS

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
# The roles of a project. On Supabase the owner is called postgres, and is no superuser; here that name is taken.
ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit password 'authenticator';
grant anon, authenticated, service_role to authenticator;
create role owner login createrole createdb bypassrls password 'owner';
"""
PROJECT = """
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
create publication supabase_realtime;
"""
OLD_PROJECT = f"""
{DOCUMENTED} {TEXT_ROWS}
alter table presence add column id bigserial;
alter publication supabase_realtime add table presence;
"""
NAME = "project"
END = """
drop role if exists presence_server;
drop role anon, authenticated, service_role, authenticator, owner;
"""


@dataclass(frozen=True, slots=True)
class Project:
    """A project's database."""

    server: EmbeddedPostgres
    name: str

    def url(self, role: str, password: str | None = None) -> str:
        """Where this role connects."""
        return f"postgresql://{role}:{password or role}@127.0.0.1:{self.server.port}/{self.name}"

    async def api(self, role: str) -> Connection:
        """A connection as the REST API makes it: of authenticator, which takes the role of the request's key."""
        connection = await connect_once(self.url("authenticator"))
        await connection.execute(f"set role {role}")
        return connection

    async def tell(self, sql: str, role: str = "owner") -> None:
        """Run some SQL as the project's owner, as its SQL editor does."""
        connection = await connect_once(self.url(role))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


@asynccontextmanager
async def project_on(server: EmbeddedPostgres, *, old: bool) -> AsyncIterator[Project]:
    """A project before `presence migrate`, on a server of its own: roles belong to all of a server."""
    admin = await connect_once(server.url)
    try:
        await admin.execute(ROLES)
        await admin.execute(f"create database {NAME} owner owner")
        made = Project(server, NAME)
        await made.tell(PROJECT + (OLD_PROJECT if old else ""))
        yield made
    finally:
        await admin.execute(f"drop database if exists {NAME} with (force)")
        await admin.execute(END)
        await admin.close()
