"""The old system's table, taken over in place: no row lost, policies closed, old queries right, or refused in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TypeAlias

import asyncpg
import pytest

from persistence import migrations
from persistence.connect import connect, connect_once
from persistence.errors import MigrationRefusedError
from persistence.migrations import Migrated, bring_up_to_date, migrate, printable
from persistence.repository import Repository
from server.embedded import EmbeddedPostgres
from tests.contract.persistence_model import lines, row
from tests.contract.test_persistence_migrations import (
    ALL,
    OLD_DURATIONS,
    OLD_LANGUAGES,
    OLD_PEAK_HOURS,
    OLD_UPDATE,
)
from tests.old_tables import DOCUMENTED, SHAPES, TEXT_ROWS, UNDECIDABLE, UUID_ROWS, bare

AS_TIME = "(({0}::timestamptz) at time zone 'UTC')::text"
COMPARED = {
    "last_seen": AS_TIME,
    "started_at": AS_TIME,
    "completed_at": AS_TIME,
    "is_in_interview": "{0}::text in ('1', 'true')",
    "metadata": "{0}::jsonb::text",
}
COLUMNS = """
select attname::text as name, format_type(atttypid, atttypmod) as type, attnotnull, attidentity::text,
       pg_get_expr(adbin, adrelid) as filled, attcollation::regcollation::text as collation
from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
where attrelid = 'presence'::regclass and attnum > 0 and not attisdropped
order by attname
"""
# What a difference to a new table could hide in, but for the columns.
MADE = """
select 'view', viewname::text, definition from pg_views where schemaname = 'public' and viewname <> 'report'
union all
select 'options', relname, coalesce(reloptions::text, '') from pg_class
where relnamespace = 'public'::regnamespace and relname in ('presence', 'active_sessions_view', 'interview_capacity')
union all
select 'index', indexname, indexdef from pg_indexes where schemaname = 'public' and indexname in (
  'idx_presence_active_interviews', 'idx_presence_active', 'idx_presence_newest', 'idx_presence_user')
union all
select 'policy', tablename || '.' || policyname, roles::text || cmd || qual from pg_policies
union all
select 'check', conname, pg_get_constraintdef(oid) from pg_constraint where conname = 'presence_status_check'
union all
select 'function', oid::regprocedure::text, pg_get_functiondef(oid) || proacl::text
from pg_proc where proname = 'cleanup_stale_sessions'
union all
select 'secured', relname, relrowsecurity::text from pg_class where relname = 'presence'
order by 1, 2
"""
EVERYTHING = """
select relname::text, relkind::text, relnatts::text, relacl::text, relrowsecurity::text, reloptions::text
from pg_class where relnamespace = 'public'::regnamespace
union all
select policyname, cmd, qual, roles::text, '', '' from pg_policies
union all
select proname, pg_get_functiondef(oid), '', '', '', '' from pg_proc where pronamespace = 'public'::regnamespace
union all
select name, '', '', '', '', '' from (
  select conname as name from pg_constraint where connamespace = 'public'::regnamespace) as constraints
order by 1, 2
"""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def older(empty_database_url: str) -> AsyncIterator[Connection]:
    connection = await connect_once(empty_database_url)
    await connection.execute("set timezone = 'UTC'")
    yield connection
    await connection.close()


@pytest.fixture
async def new(database_url: str) -> AsyncIterator[Connection]:
    connection = await connect_once(database_url)
    yield connection
    await connection.close()


async def column_names(connection: Connection) -> list[str]:
    return [each["name"] for each in await connection.fetch(COLUMNS)]


async def contents(connection: Connection, columns: list[str]) -> dict[str, dict[str, object]]:
    """All rows with an id, by id, as values that survive a change of type."""
    shown = [f"{COMPARED.get(name, '{0}::text').format(name)} as {name}" for name in columns]
    rows = await connection.fetch(f"select {', '.join(shown)} from presence where session_id is not null")
    return {each["session_id"]: dict(each) for each in rows}


async def run_old_queries(connection: Connection) -> list[list[tuple[object, ...]]]:
    """Their answers, times without their zone: an old column may have had none."""
    queries = (OLD_LANGUAGES, OLD_DURATIONS, OLD_PEAK_HOURS)
    return [sorted(map(_plain, await connection.fetch(query)), key=str) for query in queries]


def _plain(record: asyncpg.Record) -> tuple[object, ...]:
    return tuple(each.replace(tzinfo=None) if isinstance(each, datetime) else each for each in record)


async def write(database_url: str, *session_ids: str) -> list[str]:
    """Write these sessions as the server would; returns the ids that the table took."""
    pool = await connect(database_url)
    try:
        rows = [row(each, language_code="fr", current_page=None, user_id="anna") for each in session_ids]
        refused = {each.session_id for each in await Repository(pool, "public").write(lines(rows))}
        return sorted({*session_ids} - refused)
    finally:
        await pool.close()


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_row_and_no_value_is_lost(older: Connection, empty_database_url: str, shape: str) -> None:
    await older.execute(SHAPES[shape])
    columns = await column_names(older)
    count, before = await older.fetchval("select count(*) from presence"), await contents(older, columns)
    assert await migrate(empty_database_url, "public") == ALL
    await older.reload_schema_state()
    after = await contents(older, columns)
    assert (await older.fetchval("select count(*) from presence"), len(after)) == (count, count)
    for session_id, values in before.items():
        kept = {name: value for name, value in values.items() if value is not None}
        assert {name: after[session_id][name] for name in kept} == kept


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_table_ends_as_a_new_one_but_for_its_extra_columns(
    older: Connection, empty_database_url: str, new: Connection, shape: str
) -> None:
    await older.execute(SHAPES[shape])
    await migrate(empty_database_url, "public")
    expected = {each["name"]: dict(each) for each in await new.fetch(COLUMNS)}
    columns = {each["name"]: dict(each) for each in await older.fetch(COLUMNS)}
    if shape.startswith("a report"):  # the one thing that is done without where a view stands in the way
        columns["session_id"]["collation"] = expected["session_id"]["collation"]
    assert {name: columns[name] for name in expected} == expected
    assert await older.fetch(MADE) == await new.fetch(MADE)
    again = await bring_up_to_date(empty_database_url, "public")
    assert again == Migrated(applied=[], notices=[])
    await older.execute(printable())
    assert await older.fetch(MADE) == await new.fetch(MADE)


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_server_writes_new_rows_and_the_old_queries_run(
    older: Connection, empty_database_url: str, shape: str
) -> None:
    await older.execute(SHAPES[shape])
    await migrate(empty_database_url, "public")
    assert await write(empty_database_url, "new", "newer") == ["new", "newer"]
    assert await write(empty_database_url, "new") == ["new"]
    await run_old_queries(older)
    await older.execute(OLD_UPDATE)
    for view in ("active_sessions_view", "interview_capacity"):
        await older.fetch(f"select * from {view}")
    await older.fetchval("select cleanup_stale_sessions(3)")


@pytest.mark.parametrize("table", [DOCUMENTED + TEXT_ROWS, bare("uuid", time="timestamp") + UUID_ROWS])
async def test_the_old_queries_answer_as_they_did(
    older: Connection, empty_database_url: str, table: str
) -> None:
    await older.execute(table)
    before = await run_old_queries(older)
    assert before[0] == [("de", 1), ("nl", 1)]
    await migrate(empty_database_url, "public")
    await older.reload_schema_state()
    assert await run_old_queries(older) == before
    here = await older.fetch("select user_id from active_sessions_view")
    assert sorted(each["user_id"] for each in here) == ["carl", "dora"]
    # The old system's limit stood in its code: it is known once the server has flushed.
    full = await older.fetch(
        "select pool, max_concurrent, active_interviews, available from interview_capacity"
    )
    assert [tuple(each) for each in full] == [("main", None, 1, None)]
    assert await older.execute(OLD_UPDATE) == "UPDATE 1"


@pytest.mark.parametrize("case", UNDECIDABLE)
async def test_what_a_human_must_decide_is_refused_in_a_sentence_and_nothing_changes(
    older: Connection, empty_database_url: str, case: str
) -> None:
    table, sentence = UNDECIDABLE[case]
    await older.execute(table)
    before = await older.fetch(EVERYTHING)
    for dry_run in (True, False):
        with pytest.raises(MigrationRefusedError, match=rf"(?s){sentence}.*nothing was changed\. \w.*\.$"):
            await bring_up_to_date(empty_database_url, "public", dry_run=dry_run)
    with pytest.raises(asyncpg.RaiseError, match=sentence):
        await older.execute(printable())
    await older.execute("rollback")
    assert await older.fetch(EVERYTHING) == before


async def test_after_the_decision_the_same_command_takes_the_table_over(
    older: Connection, empty_database_url: str
) -> None:
    await older.execute(bare() + TEXT_ROWS + TEXT_ROWS)
    with pytest.raises(MigrationRefusedError):
        await migrate(empty_database_url, "public")
    await older.execute(
        "delete from presence as a using presence as b where a.ctid > b.ctid and a.session_id = b.session_id"
    )
    assert await migrate(empty_database_url, "public") == ALL
    assert await older.fetchval("select count(*) from presence") == 5


async def test_a_dry_run_says_what_was_found_and_would_be_done_and_changes_nothing(
    older: Connection, empty_database_url: str
) -> None:
    await older.execute(bare("uuid", time="timestamp", more=", note text") + UUID_ROWS)
    await older.execute('create policy "Allow anonymous heartbeat updates" on presence using (true)')
    before = await older.fetch(EVERYTHING)
    tried = await bring_up_to_date(empty_database_url, "public", dry_run=True)
    assert await older.fetch(EVERYTHING) == before
    assert tried.applied == ALL
    said = "\n".join(tried.notices)
    assert (
        "found an older table presence: 5 row(s), session_id of type uuid; extra columns, kept: note" in said
    )
    assert 'drops the policy "Allow anonymous heartbeat updates" (ALL to public)' in said
    assert "turns the column session_id from uuid into text" in said
    assert (
        "last_seen from timestamp without time zone into timestamp with time zone (its times are taken as UTC)"
        in said
    )
    assert await bring_up_to_date(empty_database_url, "public") == tried


async def test_a_time_without_zone_is_one_of_utc_wherever_the_database_thinks_it_stands(
    older: Connection, empty_database_url: str
) -> None:
    await older.execute(
        bare(time="timestamp") + "insert into presence (session_id, last_seen) "
        "values ('s', '2024-07-01 10:00')"
    )
    name = empty_database_url.rsplit("/", 1)[1]
    await older.execute(f"alter database {name} set timezone = 'Europe/Amsterdam'")
    await migrate(empty_database_url, "public")
    await older.reload_schema_state()
    assert await older.fetchval("select last_seen = '2024-07-01T10:00Z' from presence")


async def test_a_policy_for_a_role_of_the_teams_own_stays(older: Connection, empty_database_url: str) -> None:
    await older.execute(
        DOCUMENTED + TEXT_ROWS + "create policy own on presence for select to postgres using (true)"
    )
    await migrate(empty_database_url, "public")
    policies = await older.fetch("select policyname from pg_policies where tablename = 'presence' order by 1")
    assert [each["policyname"] for each in policies] == ["own", "presence_server"]


async def test_it_does_not_wait_long_for_a_table_in_use(
    older: Connection, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "50ms")
    await older.execute(DOCUMENTED + TEXT_ROWS)
    async with older.transaction():
        await older.fetch("select * from presence")
        with pytest.raises(MigrationRefusedError, match=r"holds a lock .* nothing was changed"):
            await migrate(empty_database_url, "public")
    assert await migrate(empty_database_url, "public") == ALL


async def test_somebody_elses_table_is_refused_in_a_sentence(
    older: Connection, empty_database_url: str, postgres_server: EmbeddedPostgres
) -> None:
    await older.execute(DOCUMENTED)
    await older.execute("create role stranger login password 'stranger'")
    try:
        await older.execute("grant usage, create on schema public to stranger")
        name = empty_database_url.rsplit("/", 1)[1]
        url = f"postgresql://stranger:stranger@127.0.0.1:{postgres_server.port}/{name}"
        with pytest.raises(
            MigrationRefusedError, match="belongs to postgres, and stranger may not change it"
        ):
            await migrate(url, "public")
    finally:
        await older.execute("drop owned by stranger; drop role stranger")
