"""Retention, forgetting, analytics, plans and the doctor through a real PgBouncer, which swaps connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence

import pytest

from persistence.analytics import Analytics
from persistence.connect import Mode, connect, connect_once, understand
from persistence.forgetting import Erased, Forgetting
from persistence.plan.history import Arrivals
from persistence.retention import Retention
from tests.commands import complaints, presence
from tests.conftest import TEST_API_KEY, TEST_SECRET, Serve
from tests.contract.persistence_scale import questions
from tests.contract.test_persistence_modes import SERVERS, Through, direct, open_all, pool_of
from tests.contract.test_persistence_modes import poolers as poolers  # noqa: PLC0414 - the fixture
from tests.contract.test_persistence_modes import swapping as swapping  # noqa: PLC0414 - the fixture
from tests.contract.test_persistence_modes import through as through  # noqa: PLC0414 - the fixture
from tests.integration.http.api import Api
from tests.integration.http.test_http_analytics import ROUTES

KEYS = {"PRESENCE_SECRET": TEST_SECRET, "PRESENCE_API_KEY": TEST_API_KEY}
ROUNDS = 2 * SERVERS
# Twenty interviews of yesterday and ten of a month ago, of as many people.
HISTORY = """
insert into presence (session_id, user_id, pool, status, started_at, last_seen, completed_at,
                      interview_started_at, interview_ended_at, waited_s, end_reason)
select 's' || n, 'user-' || n, 'main', 'completed', at, at + interval '30 minutes', at + interval '30 minutes',
       at + interval '1 minute', at + interval '30 minutes', 60, 'completed'
from (
  select n, now() - case when n > 20 then interval '31 days' else interval '26 hours' end as at
  from generate_series(1, 30) as n
) as sessions
"""


@pytest.fixture
async def url(through: Through, database_url: str) -> str:
    """A database with a history, by each of the ways, with all of a pooler's server connections open."""
    await direct(database_url, HISTORY)
    await open_all(through(database_url))
    return through(database_url)


@pytest.fixture
async def swapped_url(swapping: Through, database_url: str) -> str:
    """The same by the transaction pooler."""
    await direct(database_url, HISTORY)
    await open_all(swapping(database_url))
    return swapping(database_url)


async def nobody(past: Mapping[str, Sequence[str]]) -> Erased:
    return Erased([session_id for found in past.values() for session_id in found], 1)


async def doctor(url: str) -> dict[str, dict[str, str]]:
    """What it says of Postgres, by the check."""
    done = await asyncio.to_thread(presence, "doctor", "--json", DATABASE_URL=url, **KEYS)
    found = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1, done.stderr  # there is no REDIS_URL
    return {name: each for name, each in found.items() if name.startswith("postgres")}


async def test_every_question_has_its_answer_on_swapped_connections(url: str) -> None:
    async with pool_of(url) as pool:
        analytics, arrivals = Analytics(pool), Arrivals(pool)
        for _ in range(ROUNDS):
            assert sum(row.interviews for row in await analytics.languages("main", 7)) == 20
            for ask in questions(analytics).values():
                assert await ask
            demand = await arrivals.demand("main", 7)
            assert (demand.arrivals, len(demand.lengths_s)) == (20, 20)


async def test_questions_at_once_are_all_answered(url: str) -> None:
    async with await connect(url, max_size=SERVERS) as pool:
        analytics, arrivals = Analytics(pool), Arrivals(pool)
        asked = [ask for _ in range(3) for ask in questions(analytics).values()]
        answers = await asyncio.gather(*asked, *(arrivals.demand("main", 7) for _ in range(3)))
    assert all(answers)


async def test_retention_and_forgetting_do_their_work_on_swapped_connections(
    url: str, database_url: str
) -> None:
    async with pool_of(url) as pool:
        assert await Retention(pool, days=30, batch=3).delete_if_due() == 10
        for number in range(1, ROUNDS + 1):
            assert await Forgetting(pool).forget(f"user-{number}", nobody) == 1
            assert await Forgetting(pool).forget(f"user-{number}", nobody) == 0
    (left,) = await direct(database_url, "select count(*) from presence")
    assert left["count"] == 20 - ROUNDS
    assert await direct(database_url, "select from pg_locks where relation = 'presence'::regclass") == []


async def test_nothing_of_it_stays_behind_on_a_server_connection(swapped_url: str) -> None:
    async with pool_of(swapped_url) as pool:
        for _ in range(ROUNDS):
            await Retention(pool, days=30).delete_if_due()
            await Forgetting(pool).forget("user-1", nobody)
            await Analytics(pool).languages("main", 7)
            await Arrivals(pool).demand("main", 7)
    connection = await connect_once(swapped_url)
    for _ in range(SERVERS):
        async with connection.transaction():
            assert await connection.fetchval("select count(*) from pg_prepared_statements") == 0
            for setting, value in {
                "statement_timeout": "0",
                "transaction_read_only": "off",
                "transaction_isolation": "read committed",
            }.items():
                assert await connection.fetchval(f"show {setting}") == value
    await connection.close()


async def test_the_doctor_says_which_way_it_went_and_finds_nothing_wrong(url: str) -> None:
    found = await doctor(url)
    assert [name for name, each in found.items() if each["level"] == "failed"] == []
    assert found["postgres connection"]["what"].startswith(str(understand(url).mode))
    assert found["postgres schema"]["what"].startswith("up to date")


async def test_the_doctor_knows_a_transaction_pooler_that_the_url_does_not_name(swapped_url: str) -> None:
    url = swapped_url.removesuffix("?pgbouncer=true")
    assert understand(url).mode is not Mode.TRANSACTION_POOLER
    found = await doctor(url)
    assert found["postgres connection"]["level"] == "failed"
    assert "pgbouncer=true" in found["postgres connection"]["mend"]


async def test_the_plan_is_made_through_the_pooler(swapped_url: str) -> None:
    done = await asyncio.to_thread(presence, "plan", "--days", "7", "--json", DATABASE_URL=swapped_url)
    assert complaints(done, exit_code=0) == []
    assert json.loads(done.stdout)["load"]["interviews"] == 20


async def test_a_server_behind_the_pooler_answers_every_route_and_forgets(
    swapped_url: str, serve: Serve
) -> None:
    node = await serve(database_url=swapped_url, flush_s=3600, retention_days=30)
    api = Api(node.url, TEST_API_KEY)
    await api.open("user-2")
    assert node.node.flusher is not None
    assert await node.node.flusher.flush_once()
    for route in (*ROUTES, "plan"):
        for _ in range(2):
            await api.ok("GET", f"/v1/analytics/{route}", days=7)
    assert await api.ok("DELETE", "/v1/users/user-2") == {"forgotten": 2}
    (left,) = await direct(swapped_url, "select count(*) from presence")
    assert left["count"] == 19
    await api.close()
