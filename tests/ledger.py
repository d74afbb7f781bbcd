"""Holds the table `presence` against the truth, and keeps every state that a row ever had."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from tests.witness import POOL

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

Row = dict[str, Any]

# What a trigger writes down: each state of each row, in the order of the writes.
AUDIT = """
create table audit (
  n bigserial primary key, operation text, session_id text, version bigint, last_seen timestamptz, status text
);
create function note() returns trigger language plpgsql as $$
begin
  insert into audit (operation, session_id, version, last_seen, status)
  values (tg_op, new.session_id, new.version, new.last_seen, new.status);
  return new;
end $$;
create trigger noted after insert or update on presence for each row execute function note();
"""
ROWS = """
select session_id, user_id, pool, status, version, is_in_interview, language_code, current_page, end_reason, waited_s,
       round(extract(epoch from started_at) * 1000)::bigint as started_at,
       round(extract(epoch from last_seen) * 1000)::bigint as last_seen,
       round(extract(epoch from completed_at) * 1000)::bigint as completed_at,
       round(extract(epoch from interview_started_at) * 1000)::bigint as interview_started_at,
       round(extract(epoch from interview_ended_at) * 1000)::bigint as interview_ended_at
from presence
"""
WHOLE = ("version", "started_at", "last_seen", "completed_at", "interview_started_at", "interview_ended_at")


async def rows(connection: Connection) -> dict[str, Row]:
    """The table, by session."""
    return {record["session_id"]: dict(record) for record in await connection.fetch(ROWS)}


async def row(connection: Connection, session_id: str) -> Row:
    """One session's row."""
    return (await rows(connection))[session_id]


async def records(redis: Any) -> dict[str, Row]:  # noqa: ANN401
    """All sessions that Redis has, as rows."""
    found = {}
    async for key in redis.scan_iter(match=POOL + "session:*", count=1000):
        record = _as_row(await redis.hgetall(key))
        found[record["session_id"]] = record
    return found


async def differences(connection: Connection, redis: Any) -> list[str]:  # noqa: ANN401
    """What Redis has and the table has not, or otherwise."""
    table, truth = await rows(connection), await records(redis)
    wrong = [
        f"{session_id}: {name} is {table.get(session_id, {}).get(name)!r}, not {value!r}"
        for session_id, record in truth.items()
        for name, value in record.items()
        if table.get(session_id, {}).get(name) != value
    ]
    strangers = [
        session_id
        for session_id, one in table.items()
        if one["status"] == "active" and session_id not in truth
    ]
    return wrong + [f"{session_id}: active in the table only" for session_id in strangers]


async def assert_equal(connection: Connection, redis: Any) -> None:  # noqa: ANN401
    """The table is the truth, and nothing waits to be written. Only while nobody writes any more."""
    assert await differences(connection, redis) == []
    assert await redis.zcard(POOL + "dirty") == 0


async def assert_ends(connection: Connection, expected: Mapping[str, Mapping[str, object]]) -> None:
    """Each session of `expected` has its row, and there are no others; the row is as its people left it."""
    table = await rows(connection)
    assert table.keys() == expected.keys()
    wrong = [
        f"{session_id}: {name} is {table[session_id][name]!r}, not {value!r}"
        for session_id, columns in expected.items()
        for name, value in columns.items()
        if table[session_id][name] != value
    ]
    assert wrong == []


async def assert_only_forward(connection: Connection) -> int:
    """Each row was made once and only moved forward, by what AUDIT wrote down; how many writes there were."""
    audit = await connection.fetch("select * from audit order by session_id, n")
    last: dict[str, tuple[int, object]] = {}
    for entry in audit:
        who, state = entry["session_id"], (entry["version"], entry["last_seen"])
        assert (entry["operation"] == "INSERT") == (who not in last), f"made twice: {entry}"
        assert who not in last or state > last[who], f"not forward: {entry}"
        last[who] = state
    return len(audit)


async def until_written(redis: Any, within_s: float = 20) -> None:  # noqa: ANN401
    """Wait until nobody who has ended is in Redis any more, and nothing that ever changes waits for long."""
    async with asyncio.timeout(within_s):
        while await redis.zcard(POOL + "ended") or await redis.zcard(POOL + "dirty"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _as_row(record: Mapping[str, str]) -> Row:
    names = ("session_id", "user_id", "pool", "status", "language_code", "current_page", "end_reason")
    waited = record.get("waited_s")
    return {
        **{name: record.get(name) for name in names},
        **{name: None if name not in record else int(record[name]) for name in WHOLE},
        "is_in_interview": record["is_in_interview"] == "1",
        "waited_s": None if waited is None else float(waited),
    }
