"""A long history made inside Postgres, and how its questions are planned and how long they take."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable
from typing import Any

import asyncpg

from persistence.analytics import Analytics
from persistence.statements import statements

DAYS = 1000
ASKED_DAYS = 28
# `rows` sessions over DAYS days up to now, a tenth of them in another pool, in six languages. Most had an interview.
FILL = f"""
insert into presence (
  session_id, user_id, pool, language_code, status, started_at, last_seen, completed_at, is_in_interview,
  interview_started_at, interview_ended_at, waited_s, end_reason, version
)
select 's' || number, 'u' || number % greatest($1 / 20, 1), case number % 10 when 0 then 'lab' else 'main' end,
       (array['en', 'de', 'nl', 'tr', 'sq', 'hi'])[1 + number % 6],
       case number % 7 when 0 then 'abandoned' else 'completed' end,
       at, at + interval '40 minutes', case number % 7 when 0 then null else at + interval '40 minutes' end, false,
       case number % 5 when 0 then null else at + interval '5 minutes' end,
       case number % 5 when 0 then null else at + (6 + number % 30) * interval '1 minute' end,
       case number % 5 when 0 then null else number % 300 end,
       case number % 7 when 0 then 'abandoned' else 'completed' end, number
from (
  select number, now() - (number::float8 / $1) * interval '{DAYS} days' - interval '1 hour' as at
  from generate_series(1, $1::integer) as number
) as sessions
"""
BY_DAY = "idx_presence_day"
BY_START = "idx_presence_newest"
BY_USER = "idx_presence_user"
# Which index each question is to use on a large table.
INDEX_OF = {
    "languages": BY_DAY,
    "language_days": BY_DAY,
    "durations": BY_DAY,
    "peak_hours": BY_DAY,
    "waits": BY_DAY,
    "endings": BY_DAY,
}
_BODY = "select prosrc from pg_proc where proname = 'presence_concurrency_between'"


async def fill(pool: asyncpg.Pool[asyncpg.Record], rows: int) -> None:
    """Write `rows` sessions, and let Postgres look at them as autovacuum does within a minute."""
    await pool.execute(FILL, rows, timeout=600)
    await pool.execute("vacuum (analyze) presence", timeout=600)


async def plan(pool: asyncpg.Pool[asyncpg.Record], sql: str, *arguments: object) -> str:
    """The plan of a statement as JSON text."""
    found = await pool.fetchval(f"explain (format json) {sql}", *arguments)
    return json.dumps(json.loads(found))


def indexes(plan: str) -> set[str]:
    """The indexes that a plan uses."""
    return set(re.findall(r'"Index Name": "(\w+)"', plan))


def reads_all(plan: str) -> bool:
    """Whether it reads the table from one end to the other."""
    return re.search(r'"Node Type": "Seq Scan"[^}]*"Relation Name": "presence"', plan) is not None


async def plans(pool: asyncpg.Pool[asyncpg.Record]) -> dict[str, str]:
    """How each question is planned: those of the routes, of retention, and of forgetting a person."""
    ask, delete = statements("public", "analytics.sql"), statements("public", "retention.sql")
    found = {name: await plan(pool, ask[name], "main", ASKED_DAYS) for name in INDEX_OF}
    found["concurrency"] = await plan(pool, *await _concurrency(pool))
    found["delete_old"] = await plan(pool, delete["delete_old"], float(DAYS - 30), 1000)
    found["rows_of"] = await plan(pool, delete["rows_of"], "u7")
    found["delete_rows_of"] = await plan(pool, delete["delete_rows_of"], "u7")
    return found


async def _concurrency(pool: asyncpg.Pool[asyncpg.Record]) -> tuple[str]:
    """The function's body, with values where it has arguments: EXPLAIN does not look into functions."""
    body = str(await pool.fetchval(_BODY))
    values = {
        "of_pool": "'main'",
        "since": f"(now() - interval '{ASKED_DAYS} days')",
        "until": "now()",
    }
    return (re.sub(r"\b(of_pool|since|until)\b", lambda found: values[found[0]], body),)


WANTED = {
    **INDEX_OF,
    "concurrency": BY_START,
    "delete_old": BY_START,
    "rows_of": BY_USER,
    "delete_rows_of": BY_USER,
}


async def timed(asking: Awaitable[Any]) -> float:
    """How many seconds it takes."""
    began = time.perf_counter()
    await asking
    return time.perf_counter() - began


def questions(analytics: Analytics) -> dict[str, Awaitable[Any]]:
    """Every question of the routes, about the pool `main`."""
    asked = (
        analytics.languages,
        analytics.language_days,
        analytics.durations,
        analytics.peak_hours,
        analytics.concurrency,
        analytics.waits,
        analytics.endings,
    )
    return {ask.__name__: ask("main", ASKED_DAYS) for ask in asked}
