"""The schema on a real Postgres: made once, the same on every way, closed to the outside, true to the old queries."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from persistence.connect import connect, connect_once
from persistence.migrations import migrate, printable, schema_version
from persistence.repository import Repository
from persistence.rows import PoolRow
from server.embedded import EmbeddedPostgres
from tests.contract.persistence_model import START_MS, ended, lines, row

ALL = ["0001_older_table", "0002_presence", "0003_analytics"]
PASTED = (Path(__file__).parents[2] / "persistence/sql/supabase_presence_schema.sql").read_text(
    encoding="utf-8"
)
OLD_UPDATE = """
UPDATE presence
SET status = 'abandoned'
WHERE status = 'active'
  AND last_seen < NOW() - INTERVAL '3 hours';
"""
OLD_LANGUAGES = """
SELECT 
    language_code,
    COUNT(*) as active_count
FROM presence
WHERE status = 'active'
  AND last_seen > NOW() - INTERVAL '1 minute'
GROUP BY language_code
ORDER BY active_count DESC;
"""  # noqa: W291 - as it was written
OLD_DURATIONS = """
SELECT 
    AVG(EXTRACT(EPOCH FROM (completed_at - started_at)) / 60) as avg_duration_minutes,
    MAX(EXTRACT(EPOCH FROM (completed_at - started_at)) / 60) as max_duration_minutes
FROM presence
WHERE status = 'completed';
"""  # noqa: W291 - as it was written
OLD_PEAK_HOURS = """
SELECT 
    DATE_TRUNC('hour', started_at) as hour,
    COUNT(*) as sessions_started
FROM presence
GROUP BY hour
ORDER BY hour DESC
LIMIT 24;
"""  # noqa: W291 - as it was written
# Everything about a schema that a difference could hide in, without its name and without object ids.
CATALOGUE = """
select 'column', table_name || '.' || column_name, data_type || is_nullable || coalesce(column_default, '')
  || coalesce(collation_name, '') || ordinal_position
from information_schema.columns where table_schema = $1
union all
select 'relation', relname, relkind::text || relrowsecurity::text || relforcerowsecurity
  || coalesce(reloptions::text, '') || coalesce(relacl::text, '')
from pg_class where relnamespace = to_regnamespace($1)
union all
select 'constraint', conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = to_regnamespace($1)
union all
select 'index', indexname, indexdef from pg_indexes where schemaname = $1
union all
select 'view', viewname, definition from pg_views where schemaname = $1
union all
select 'policy', tablename || '.' || policyname, permissive || roles::text || cmd || coalesce(qual, '')
  || coalesce(with_check, '')
from pg_policies where schemaname = $1
union all
select 'function', proname, pg_get_functiondef(oid) || coalesce(proacl::text, '')
from pg_proc where pronamespace = to_regnamespace($1)
union all
select 'migration', name, '' from {schema}.presence_migrations
order by 1, 2
"""


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await connect_once(empty_database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def migrated(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await connect_once(database_url)
    yield connection
    await connection.close()


async def catalogue(
    connection: asyncpg.Connection[asyncpg.Record], schema: str = "public"
) -> list[tuple[str, ...]]:
    records = await connection.fetch(CATALOGUE.format(schema=f'"{schema}"'), schema)
    return [tuple(re.sub(rf"(\"?){schema}\1\.", "", str(value)) for value in record) for record in records]


async def test_migrations_apply_once(
    empty_database_url: str, empty: asyncpg.Connection[asyncpg.Record]
) -> None:
    before = await schema_version(empty, "public")
    assert (before.current, before.applied, before.pending) == (None, [], ALL)
    assert await migrate(empty_database_url, "public") == ALL
    first = await catalogue(empty)
    assert await migrate(empty_database_url, "public") == []
    assert await catalogue(empty) == first
    after = await schema_version(empty, "public")
    assert (after.current, after.applied, after.pending, after.unknown) == (ALL[-1], ALL, [], [])


async def test_two_that_migrate_at_once_apply_everything_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url, "public") for _ in range(4)))
    assert sorted(applied) == [[], [], [], ALL]


async def test_migrating_works_through_a_transaction_pooler(empty_database_url: str) -> None:
    assert await migrate(empty_database_url + "?pgbouncer=true", "public") == ALL


async def test_migrations_of_a_newer_program_are_left_alone(
    database_url: str, migrated: asyncpg.Connection[asyncpg.Record]
) -> None:
    await migrated.execute("insert into presence_migrations (name) values ('9999_from_the_future')")
    assert await migrate(database_url, "public") == []
    assert (await schema_version(migrated, "public")).unknown == ["9999_from_the_future"]


def test_the_file_to_paste_is_what_the_command_prints() -> None:
    assert printable("public") == PASTED


async def test_the_file_to_paste_makes_what_the_migrations_make_also_when_pasted_twice(
    empty: asyncpg.Connection[asyncpg.Record],
    empty_database_url: str,
    migrated: asyncpg.Connection[asyncpg.Record],
) -> None:
    expected = await catalogue(migrated)
    assert len(expected) > 30
    for _ in range(2):
        await empty.execute(PASTED)
        assert await catalogue(empty) == expected
    assert await migrate(empty_database_url, "public") == []


async def test_another_schema_gets_the_same_and_the_public_one_nothing(
    empty: asyncpg.Connection[asyncpg.Record],
    empty_database_url: str,
    migrated: asyncpg.Connection[asyncpg.Record],
) -> None:
    await migrate(empty_database_url, "user")
    assert await catalogue(empty, "user") == await catalogue(migrated)
    assert await empty.fetchval("select to_regclass('public.presence')") is None


async def test_a_schema_name_that_could_be_sql_is_refused(empty_database_url: str) -> None:
    with pytest.raises(ValueError, match="not a schema name"):
        await migrate(empty_database_url, 'x"; drop table presence; --')


async def write(database_url: str) -> None:
    """A completed, a long lost and two present sessions, one of them in an interview."""
    pool = await connect(database_url)
    repository = Repository(pool, "public")
    now_ms = int(await pool.fetchval("select extract(epoch from now()) * 1000"))
    present = {"last_seen_ms": now_ms, "started_at_ms": now_ms - 60_000}
    await repository.write(
        lines(
            [
                ended("done", completed_at_ms=START_MS + 90_000),
                row("lost", is_in_interview=True),
                row("here", language_code="de", **present),
                row("in", language_code="de", is_in_interview=True, **present),
            ]
        )
    )
    await repository.write_pools([PoolRow("main", 3, "open"), PoolRow("empty", 1, "closed")])
    await pool.close()


async def test_the_old_queries_run_as_they_were_written(
    database_url: str, migrated: asyncpg.Connection[asyncpg.Record]
) -> None:
    await write(database_url)
    assert [tuple(each) for each in await migrated.fetch(OLD_LANGUAGES)] == [("de", 2)]
    assert [tuple(map(float, each)) for each in await migrated.fetch(OLD_DURATIONS)] == [(1.5, 1.5)]
    assert sum(each["sessions_started"] for each in await migrated.fetch(OLD_PEAK_HOURS)) == 4
    assert await migrated.execute(OLD_UPDATE) == "UPDATE 1"


async def test_the_views_show_who_is_here_and_how_full_each_pool_is(
    database_url: str, migrated: asyncpg.Connection[asyncpg.Record]
) -> None:
    await write(database_url)
    here = await migrated.fetch("SELECT * FROM active_sessions_view;")
    assert {each["session_id"] for each in here} == {"here", "in"}
    capacity = await migrated.fetch("SELECT * FROM interview_capacity;")
    assert {tuple(each.values()) for each in capacity} == {("main", 3, 1, 2), ("empty", 1, 0, 1)}


async def test_cleanup_abandons_what_was_not_seen_for_so_long(
    database_url: str, migrated: asyncpg.Connection[asyncpg.Record]
) -> None:
    await write(database_url)
    assert await migrated.fetchval("select cleanup_stale_sessions(3)") == 1
    assert await migrated.fetchval("select cleanup_stale_sessions(hours => 3)") == 0
    lost = await migrated.fetchrow("select * from presence where session_id = 'lost'")
    assert lost is not None
    assert (lost["status"], lost["end_reason"], lost["is_in_interview"]) == ("abandoned", "cleanup", False)
    assert lost["interview_ended_at"] == lost["last_seen"]


async def test_a_role_without_privileges_beyond_its_schema_can_migrate_and_flush(
    postgres_server: EmbeddedPostgres, empty: asyncpg.Connection[asyncpg.Record], empty_database_url: str
) -> None:
    await empty.execute("create role plain login password 'plain'")
    await empty.execute("grant usage, create on schema public to plain")
    name = empty_database_url.rsplit("/", 1)[1]
    url = f"postgresql://plain:plain@127.0.0.1:{postgres_server.port}/{name}"
    assert await migrate(url, "public") == ALL
    await write(url)
    assert await empty.fetchval("select count(*) from presence") == 4
    await empty.execute("drop owned by plain; drop role plain")


async def test_the_status_of_a_row_is_one_of_three(migrated: asyncpg.Connection[asyncpg.Record]) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await migrated.execute(
            "insert into presence (session_id, user_id, status) values ('s', 'u', 'asleep')"
        )


async def test_a_row_written_by_hand_gets_sensible_values(
    migrated: asyncpg.Connection[asyncpg.Record],
) -> None:
    await migrated.execute("insert into presence (session_id, user_id) values ('s', 'u')")
    made = await migrated.fetchrow("select status, pool, version, is_in_interview, metadata from presence")
    assert made is not None
    assert tuple(made.values()) == ("active", "main", 0, False, "{}")
