"""The history's answers: the old queries as written, and the views, counted by hand."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from persistence.analytics import Analytics, EndingRow
from persistence.connect import connect
from tests.contract.persistence_scale import WANTED, fill, indexes, plans, reads_all

VIEWS = (
    "presence_facts",
    "presence_languages",
    "presence_durations",
    "presence_waits",
    "presence_endings",
    "presence_peak_hours",
    "presence_concurrency",
)
# As OLD_SYSTEM has them.
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
NOW = datetime.now(UTC)
# A whole day that the last three hold, however late it is.
DAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
MINUTE = timedelta(minutes=1)
HISTORY_MD = Path(__file__).parents[2] / "docs/history.md"
INSERT = """
insert into presence (
  session_id, user_id, pool, language_code, status, started_at, last_seen, completed_at, is_in_interview,
  interview_started_at, interview_ended_at, waited_s, end_reason
) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""


class History:
    """A table to fill by hand. Times are minutes of DAY."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.pool = pool
        self.analytics = Analytics(pool)

    async def session(
        self,
        name: str,
        at: float,
        *,
        interview: tuple[float, float | None] | None = None,
        completed: float | None = None,
        seen: float | None = None,
        user: str | None = None,
        pool: str = "main",
        language: str | None = "de",
        waited_s: float | None = None,
        reason: str | None = None,
    ) -> None:
        began, ended = interview or (None, None)
        status = "completed" if completed is not None else "abandoned" if reason else "active"
        last = max(minute for minute in (at, completed, seen, ended) if minute is not None)
        await self.pool.execute(
            INSERT,
            name,
            user or name,
            pool,
            language,
            status,
            minute_of_day(at),
            minute_of_day(last),
            minute_of_day(completed),
            began is not None and ended is None,
            minute_of_day(began),
            minute_of_day(ended),
            waited_s,
            "completed" if completed is not None else reason,
        )


def minute_of_day(minute: float | None) -> datetime | None:
    return None if minute is None else DAY + minute * MINUTE


def hour_ms(hour: int) -> int:
    return int((DAY + hour * 60 * MINUTE).timestamp() * 1000)


@pytest.fixture
async def history(database_url: str) -> AsyncIterator[History]:
    pool = await connect(database_url)
    yield History(pool)
    await pool.close()


async def test_the_three_old_queries_answer_as_written(history: History) -> None:
    await history.session("a", 60, completed=90)
    await history.session("b", 70, completed=130)
    for name, language in (("c", "de"), ("d", "de"), ("e", "tr")):
        await history.session(name, 100, language=language)
    await history.pool.execute("update presence set last_seen = now() where status = 'active'")
    languages = [tuple(row) for row in await history.pool.fetch(OLD_LANGUAGES)]
    assert languages == [("de", 2), ("tr", 1)]
    (durations,) = await history.pool.fetch(OLD_DURATIONS)
    assert tuple(map(float, durations)) == (45, 60)
    hours = [tuple(row) for row in await history.pool.fetch(OLD_PEAK_HOURS)]
    assert hours == [(DAY + 60 * MINUTE, 5)]


async def test_people_are_counted_by_pool_language_and_day(history: History) -> None:
    await history.session("a", 10, interview=(11, 31), completed=31)
    await history.session("b", 20, interview=(21, 22), reason="abandoned")
    await history.session("c", 30, language=None)
    await history.session("d", 40, language="tr", completed=50)
    await history.session("e", 50, pool="lab")
    await history.session("f", -1440, language="tr")
    counted = [
        (row.language_code, row.sessions, row.interviews, row.completed)
        for row in await history.analytics.languages("main", 7)
    ]
    assert counted == [("de", 2, 2, 1), ("tr", 2, 0, 1), (None, 1, 0, 0)]
    days = [
        (row.day, row.language_code, row.sessions) for row in await history.analytics.language_days("main", 7)
    ]
    today = DAY.date()
    assert days == [
        (str(today - timedelta(days=1)), "tr", 1),
        (str(today), "de", 2),
        (str(today), "tr", 1),
        (str(today), None, 1),
    ]
    assert [row.sessions for row in await history.analytics.languages("lab", 7)] == [1]
    assert await history.analytics.languages("nowhere", 7) == []


async def test_only_the_days_that_are_asked_for_count_and_today_is_one(history: History) -> None:
    await history.pool.execute("insert into presence (session_id, user_id) values ('now', 'anna')")
    await history.session("yesterday", 60)
    for days, sessions in ((1, 1), (2, 2), (366, 2)):
        assert sum(row.sessions for row in await history.analytics.languages("main", days)) == sessions


async def test_durations_have_a_median_and_a_p90_that_one_long_interview_does_not_move(
    history: History,
) -> None:
    for number in range(10):
        length = 600 if number == 9 else 10 + number
        await history.session(str(number), 0, interview=(1, 1 + length), completed=2 + length)
    await history.session("running", 0, interview=(1, None))
    await history.session("other", 0, language="tr", interview=(1, 5), reason="kicked")
    everybody, german, turkish = await history.analytics.durations("main", 7)
    assert (everybody.total, everybody.language_code, everybody.interviews) == (True, None, 11)
    assert (german.total, german.language_code, german.interviews, german.completed) == (False, "de", 10, 10)
    assert german.interview_median_s == pytest.approx(14.5 * 60)
    assert german.interview_p90_s == pytest.approx((18 + 0.1 * (600 - 18)) * 60)
    assert german.interview_longest_s == 600 * 60
    assert german.session_median_s == pytest.approx(16.5 * 60)
    assert german.interview_mean_s == pytest.approx((126 + 600) / 10 * 60)
    assert (turkish.interviews, turkish.completed, turkish.session_median_s) == (1, 0, None)


async def test_rows_of_the_old_system_have_durations_too(history: History) -> None:
    """They know nothing of when the interview began, and some of nothing at all."""
    await history.session("a", 0, completed=30)
    await history.pool.execute(
        "insert into presence (session_id, user_id, status, started_at) values ('b', 'b', 'completed', $1)",
        DAY,
    )
    everybody, *_ = await history.analytics.durations("main", 7)
    assert (everybody.interviews, everybody.interview_median_s) == (0, None)
    assert (everybody.completed, everybody.session_median_s) == (1, 1800)


async def test_waits_count_those_who_got_in(history: History) -> None:
    for number, waited_s in enumerate((0, 0, 60, 120, 600)):
        await history.session(str(number), 0, interview=(11, 12), completed=13, waited_s=waited_s)
    await history.session("never", 0, reason="abandoned")
    for number, waited_s in enumerate((30, 900, 3000)):
        await history.session(f"gave up {number}", 0, reason="abandoned", waited_s=waited_s)
    await history.session("left the line but is here", 0, waited_s=40)
    everybody, german = await history.analytics.waits("main", 7)
    assert (everybody.admitted, everybody.waited, everybody.median_s, everybody.longest_s) == (5, 3, 60, 600)
    assert everybody.p90_s == pytest.approx(120 + 0.6 * 480)
    assert (german.language_code, german.admitted) == ("de", 5)
    assert (everybody.gave_up, everybody.gave_up_median_s) == (3, 900)
    (told,) = await history.pool.fetch("select admitted, longest_s, gave_up from presence_waits")
    assert tuple(told) == (5, 600, 3)


async def test_endings_tell_why(history: History) -> None:
    await history.session("a", 0, completed=5)
    await history.session("b", 0, completed=5)
    await history.session("c", 0, reason="kicked")
    await history.session("running", 0)
    await history.pool.execute(  # as the old system's clean-up left them
        "insert into presence (session_id, user_id, status, started_at) values ('d', 'd', 'abandoned', $1)",
        DAY,
    )
    assert await history.analytics.endings("main", 7) == [
        EndingRow("completed", 2),
        EndingRow("abandoned", 1),
        EndingRow("kicked", 1),
    ]


async def test_peak_hours_count_who_came_in_each(history: History) -> None:
    for name, at in (("a", 61), ("b", 119), ("c", 120)):
        await history.session(name, at, interview=(at, at + 1) if name == "a" else None)
    rows = await history.analytics.peak_hours("main", 7)
    assert [(row.hour_ms, row.sessions, row.interviews) for row in rows] == [
        (hour_ms(2), 1, 0),
        (hour_ms(1), 2, 1),
    ]


async def test_concurrency_counts_interviews_that_run_at_the_same_time(history: History) -> None:
    await history.session("a", 55, interview=(60, 90), completed=90)
    await history.session("b", 55, interview=(75, 150), completed=150)
    await history.session("after-a", 55, interview=(90, 105), completed=105)
    await history.session("waits", 55)
    rows = await history.analytics.concurrency("main", 7)
    assert [(row.hour_ms, row.most) for row in rows] == [(hour_ms(1), 2), (hour_ms(2), 1)]
    assert [row.average for row in rows] == pytest.approx([(30 + 45 + 15) / 60, 30 / 60])


async def test_an_interview_that_moved_to_another_session_of_the_person_is_one(history: History) -> None:
    await history.session("a1", 0, user="anna", interview=(5, 20), reason="abandoned")
    await history.session("a2", 10, user="anna", interview=(5, 35), completed=35)
    (row,) = await history.analytics.concurrency("main", 7)
    assert row.most == 1
    assert row.average == pytest.approx(0.5)
    (language,) = await history.analytics.languages("main", 7)
    assert (language.sessions, language.interviews) == (2, 1)


async def test_an_interview_without_an_end_ran_until_it_was_seen_last_unless_it_runs_now(
    history: History,
) -> None:
    began = NOW - 150 * MINUTE
    insert = (
        "insert into presence (session_id, user_id, status, is_in_interview, started_at, interview_started_at,"
        " last_seen) values ($1, $1, $2, $3, $4, $4, $5)"
    )
    await history.pool.execute(insert, "lost", "abandoned", False, began, began + 30 * MINUTE)
    await history.pool.execute(insert, "runs", "active", True, began, NOW)
    rows = await history.analytics.concurrency("main", 7)
    assert rows[0].most == 2
    total_minutes = sum(row.average for row in rows) * 60
    assert 180 <= total_minutes < 190


async def test_the_views_answer_whoever_asks_with_sql_and_name_no_session(history: History) -> None:
    await history.session("a", 60, interview=(61, 91), completed=95, waited_s=30)
    for view in VIEWS:
        (row,) = await history.pool.fetch(f"select * from {view}")
        assert row["pool"] == "main"
        assert "session_id" not in dict(row)
    (options,) = await history.pool.fetch(
        "select bool_and('security_invoker=on' = any(reloptions)) as closed, count(*) as views from pg_class"
        " where relkind = 'v' and relname like 'presence\\_%'"
    )
    assert tuple(options) == (True, len(VIEWS))


async def test_a_schema_of_another_name_has_the_same_answers(empty_database_url: str) -> None:
    from persistence.migrations import migrate  # noqa: PLC0415 - only here

    await migrate(empty_database_url, "study")
    pool = await connect(empty_database_url)
    analytics = Analytics(pool, "study")
    for ask in (analytics.languages, analytics.concurrency, analytics.peak_hours, analytics.endings):
        assert await ask("main", 7) == []
    await pool.close()


async def test_questions_about_the_last_days_are_answered_by_an_index(history: History) -> None:
    """At a small scale; `make soak` asks the same of a million rows."""
    await fill(history.pool, 20_000)
    for name, plan in (await plans(history.pool)).items():
        assert WANTED[name] in indexes(plan), (name, plan)
        assert not reads_all(plan), (name, plan)


def statements_of(page: Path) -> list[str]:
    blocks = re.findall(r"```sql\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [
        each.strip() for block in blocks for each in re.split(r";\s*(?:--[^\n]*)?\n", block) if each.strip()
    ]


async def test_every_statement_of_the_page_about_history_runs(history: History) -> None:
    await history.session("a", 60, interview=(61, 91), completed=95, waited_s=30)
    found = statements_of(HISTORY_MD)
    assert len(found) >= len(VIEWS)
    for statement in found:
        await history.pool.execute(statement)
