"""A database prepared like a Supabase project: who can do what after `presence migrate`, and the advisors' lints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from persistence.connect import connect, connect_once
from persistence.errors import MigrationRefusedError
from persistence.migrations import Migrated, bring_up_to_date, migrate, schema_version
from persistence.repository import Repository
from persistence.rows import PoolRow
from server.embedded import EmbeddedPostgres
from tests.conftest import StartPostgres
from tests.contract.persistence_model import lines, row
from tests.contract.test_persistence_migrations import ALL
from tests.supabase import OLD_PROJECT, Project, project_on

DENIED = asyncpg.InsufficientPrivilegeError
RELATIONS = """
select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm') order by 1
"""
ANY_PRIVILEGE = """
select grantee.rolname || ': ' || kind || ' ' || thing as privilege
from pg_roles as grantee,
lateral (
  select oid::regclass::text as thing, kind, has_table_privilege(grantee.oid, oid, kind) as has
  from pg_class, unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as kind
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm')
  union all
  select oid::regclass || '.*', kind, has_any_column_privilege(grantee.oid, oid, kind)
  from pg_class, unnest(array['select', 'insert', 'update', 'references']) as kind
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm')
  union all
  select oid::regclass::text, kind, has_sequence_privilege(grantee.oid, oid, kind)
  from pg_class, unnest(array['usage', 'select', 'update']) as kind
  where relnamespace = 'public'::regnamespace and relkind = 'S'
  union all
  select oid::regprocedure::text, 'execute', has_function_privilege(grantee.oid, oid, 'execute')
  from pg_proc where pronamespace = 'public'::regnamespace
) as asked
where has and rolname = any ($1)
order by 1
"""
# Supabase's advisors, each stricter than theirs: theirs also ask whether the API roles have a grant.
LINTS = {
    "rls_disabled_in_public": """
        select relname from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relrowsecurity""",
    "rls_enabled_no_policy": """
        select relname from pg_class
        where relnamespace = 'public'::regnamespace and relrowsecurity
          and not exists (select from pg_policy where polrelid = pg_class.oid)""",
    "policy_exists_rls_disabled": """
        select relname from pg_class join pg_policy on polrelid = pg_class.oid where not relrowsecurity""",
    "security_definer_view": """
        select relname from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'v'
          and not coalesce(reloptions, '{}') && array['security_invoker=on', 'security_invoker=true']""",
    "materialized_view_in_api": """
        select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'm'""",
    "function_search_path_mutable": """
        select proname from pg_proc
        where pronamespace = 'public'::regnamespace
          and not exists (select from unnest(proconfig) as setting where setting like 'search_path=%')""",
    "security_definer_function_executable": """
        select proname from pg_proc where pronamespace = 'public'::regnamespace and prosecdef""",
    "rls_policy_always_true": """
        select policyname from pg_policies
        where schemaname = 'public' and roles && array['public', 'anon', 'authenticated']::name[]
          and (qual = 'true' or with_check = 'true')""",
    "multiple_permissive_policies": """
        select tablename from pg_policies
        where schemaname = 'public' and permissive = 'PERMISSIVE' group by tablename, roles having count(*) > 1""",
    "sensitive_columns_exposed": """
        select relname from pg_class join pg_attribute on attrelid = pg_class.oid
        where relnamespace = 'public'::regnamespace and attname in ('session_id', 'user_id', 'metadata')
          and (relkind = 'r' and not relrowsecurity or has_table_privilege('anon', pg_class.oid, 'select')
               or has_table_privilege('authenticated', pg_class.oid, 'select'))""",
    "no_primary_key": """
        select relname from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r'
          and not exists (select from pg_constraint where conrelid = pg_class.oid and contype = 'p')""",
    "duplicate_index": """
        select min(indexrelid::regclass::text) from pg_index join pg_class on pg_class.oid = indexrelid
        where relnamespace = 'public'::regnamespace
        group by indrelid, indkey::text, indpred, indexprs, indoption::text, indisunique having count(*) > 1""",
    "in_realtime_publication": "select tablename from pg_publication_tables",
}


@pytest.fixture(scope="module")
def supabase(
    start_postgres: StartPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedPostgres]:
    """A server of its own: roles belong to all of a server, and its superuser stays out of this."""
    with start_postgres(tmp_path_factory.mktemp("supabase")) as server:
        yield server


@pytest.fixture(params=["new project", "old project"])
async def project(supabase: EmbeddedPostgres, request: pytest.FixtureRequest) -> AsyncIterator[Project]:
    """A project's database after `presence migrate`, run by its owner, with rows in it."""
    async with project_on(supabase, old=request.param == "old project") as made:
        assert await migrate(made.url("owner")) == ALL
        await made.tell("alter role presence_server with login password 'presence_server'")
        await write(made.url("owner"), "kept")
        yield made


async def write(url: str, session_id: str) -> None:
    """Flush a session and a pool, as the server does."""
    pool = await connect(url)
    try:
        assert await Repository(pool, "public").write(lines([row(session_id)])) == []
        await Repository(pool, "public").write_pools([PoolRow("main", 3, "open")])
    finally:
        await pool.close()


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_the_public_keys_open_nothing(project: Project, role: str) -> None:
    owner = await connect_once(project.url("owner"))
    assert await owner.fetch(ANY_PRIVILEGE, [role, "authenticator"]) == []
    relations = [each["relname"] for each in await owner.fetch(RELATIONS)]
    assert {"presence", "presence_pools", "presence_migrations", "active_sessions_view"} <= set(relations)
    caller = await project.api(role)
    for relation in relations:
        with pytest.raises(DENIED):
            await caller.execute(f"select from {relation}")
    for statement in (
        "insert into presence (session_id, user_id) values ('x', 'x')",
        "update presence set status = 'abandoned'",
        "delete from presence",
        "update active_sessions_view set current_page = 'x'",
        "delete from active_sessions_view",
        "delete from presence_migrations",
        "insert into presence_pools values ('main', 99, 'open')",
        "update presence_pools set mode = 'open'",
        "truncate presence",
        "select cleanup_stale_sessions(0)",
    ):
        with pytest.raises(DENIED):
            await caller.execute(statement)
    await caller.close()
    await owner.close()


async def test_a_grant_by_mistake_shows_no_row_and_is_taken_back_by_the_next_migration(
    project: Project,
) -> None:
    owner, anon = await connect_once(project.url("owner")), await project.api("anon")
    await owner.execute("grant all on all tables in schema public to anon, public")
    await owner.execute("grant execute on all functions in schema public to anon")
    await owner.execute("grant select (user_id) on presence to authenticated")
    await owner.execute("create policy everybody on presence for select to authenticated using (true)")
    for relation in [each["relname"] for each in await owner.fetch(RELATIONS)]:
        rows = await anon.fetch(f"select * from {relation}")
        assert all(not each["sessions"] if "sessions" in each else False for each in rows), relation
    assert await anon.execute("update presence set status = 'abandoned'") == "UPDATE 0"
    assert await anon.fetchval("select cleanup_stale_sessions(0)") == 0
    closed = await bring_up_to_date(project.url("owner"))
    assert closed.applied == []
    assert "drops the policy everybody on presence (SELECT to authenticated)" in closed.notices
    assert any(
        each.startswith("revokes SELECT on table presence from authenticated") for each in closed.notices
    )
    assert await owner.fetch(ANY_PRIVILEGE, ["anon", "authenticated"]) == []
    assert await bring_up_to_date(project.url("owner")) == Migrated(applied=[], notices=[])
    await anon.close()
    await owner.close()


async def test_a_view_of_the_teams_own_shows_the_rows_to_no_public_key(project: Project) -> None:
    owner, anon = await connect_once(project.url("owner")), await project.api("anon")
    await owner.execute("create view report as select user_id from presence")
    await owner.execute("create view report_of_report as select * from report, presence_pools")
    await owner.execute("create table answers (answer text)")
    await anon.fetch("select * from report_of_report")
    await migrate(project.url("owner"))
    for view in ("report", "report_of_report"):
        with pytest.raises(DENIED):
            await anon.fetch(f"select * from {view}")
    # What has nothing to do with presence is none of our business.
    assert await anon.fetch("select * from answers") == []
    await anon.close()
    await owner.close()


async def test_the_service_key_still_reads_and_writes_all(project: Project) -> None:
    caller = await project.api("service_role")
    assert await caller.fetchval("select count(*) from presence where session_id = 'kept'") == 1
    assert (
        await caller.execute("update presence set current_page = 'x' where session_id = 'kept'") == "UPDATE 1"
    )
    await caller.close()


async def test_the_servers_role_can_do_what_the_server_does(project: Project) -> None:
    url = project.url("presence_server")
    await write(url, "written")
    await write(url, "written")
    server = await connect_once(url)
    for relation in [each["relname"] for each in await server.fetch(RELATIONS)]:
        await server.fetch(f"select * from {relation}")
    assert await server.fetchval("select count(*) from presence where session_id in ('kept', 'written')") == 2
    assert await server.execute("delete from presence where session_id = 'written'") == "DELETE 1"
    assert await server.fetchval("select cleanup_stale_sessions(3)") >= 1
    assert (await schema_version(server, "public")).pending == []
    await server.close()


async def test_the_servers_role_can_do_nothing_else(project: Project) -> None:
    server = await connect_once(project.url("presence_server"))
    for statement in (
        "delete from presence_pools",
        "truncate presence",
        "insert into presence_migrations (name) values ('x')",
        "delete from presence_migrations",
        "update presence_migrations set name = 'x'",
        "create table mine (n int)",
        "alter table presence disable row level security",
        "drop policy presence_server on presence",
        "drop table presence",
        "create role another",
        "set role owner",
    ):
        with pytest.raises(DENIED):
            await server.execute(statement)
    await server.execute("grant select on presence to anon")  # a warning, and no effect
    assert await server.fetch(ANY_PRIVILEGE, ["anon"]) == []
    attributes = await server.fetchrow(
        "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication from pg_roles "
        "where rolname = 'presence_server'"
    )
    assert attributes is not None
    assert not any(attributes)
    await server.close()


async def test_migrating_as_the_servers_role_finds_nothing_to_do(project: Project) -> None:
    assert await bring_up_to_date(project.url("presence_server")) == Migrated(applied=[], notices=[])


async def test_a_migration_that_is_pending_asks_the_servers_role_for_the_owner(project: Project) -> None:
    owner = await connect_once(project.url("owner"))
    await owner.execute("delete from presence_migrations where name = '0002_presence'")
    with pytest.raises(MigrationRefusedError, match=r"may not do that .* Migrate as the owner"):
        await migrate(project.url("presence_server"))
    await owner.close()


async def test_the_role_cannot_log_in_before_it_gets_a_password(project: Project) -> None:
    owner = await connect_once(project.url("owner"))
    await owner.execute("alter role presence_server with nologin")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await connect_once(project.url("presence_server"))
    await migrate(project.url("owner"))
    assert not await owner.fetchval("select rolcanlogin from pg_roles where rolname = 'presence_server'")
    await owner.close()


@pytest.mark.parametrize("lint", LINTS)
async def test_the_advisors_find_nothing(project: Project, lint: str) -> None:
    owner = await connect_once(project.url("owner"))
    assert await owner.fetch(LINTS[lint]) == []
    await owner.close()


@pytest.mark.parametrize(
    "lint", ["rls_policy_always_true", "security_definer_view", "in_realtime_publication"]
)
async def test_the_lints_would_find_the_old_table(project: Project, lint: str) -> None:
    owner = await connect_once(project.url("owner"))
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute(
        "drop table presence cascade; drop function cleanup_stale_sessions;"
        "drop view if exists interview_capacity;"
    )
    await owner.execute(OLD_PROJECT)
    assert await owner.fetch(LINTS[lint]) != []
    await transaction.rollback()
    await owner.close()


async def test_a_publication_of_all_tables_is_said(project: Project) -> None:
    admin = await connect_once(project.server.url_of(project.name))
    await admin.execute(
        "drop publication supabase_realtime; create publication supabase_realtime for all tables"
    )
    said = (await bring_up_to_date(project.url("owner"))).notices
    assert (
        "the publication supabase_realtime has all tables, presence too: list the tables it shall have"
        in said
    )
    await admin.close()


async def test_without_the_right_to_make_the_role_the_owner_serves_until_somebody_makes_it(
    supabase: EmbeddedPostgres,
) -> None:
    admin = await connect_once(supabase.url)
    await admin.execute("create role plain login password 'plain'")
    await admin.execute("create database modest owner plain")
    url = Project(supabase, "modest").url("plain")
    try:
        done = await bring_up_to_date(url)
        assert any(each.startswith("plain may not make the role presence_server") for each in done.notices)
        assert await policies(url) == {"presence_closed"}
        await write(url, "written")
        await admin.execute("create role presence_server login password 'presence_server'")
        await migrate(url)
        assert await policies(url) == {"presence_server"}
        await write(Project(supabase, "modest").url("presence_server"), "written too")
    finally:
        await admin.execute("drop database modest with (force)")
        await admin.execute("drop role if exists presence_server; drop role plain")
        await admin.close()


async def policies(url: str) -> set[str]:
    connection = await connect_once(url)
    try:
        return {each["policyname"] for each in await connection.fetch("select policyname from pg_policies")}
    finally:
        await connection.close()
