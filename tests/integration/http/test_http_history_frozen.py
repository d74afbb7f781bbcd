"""A Postgres that takes connections and answers nothing: who asks for the history gets one clear sentence, in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from persistence.analytics import Analytics
from persistence.connect import connect
from persistence.forgetting import Forgetting
from persistence.migrations import migrate
from persistence.patience import QUESTION_WITHIN_S
from persistence.plan.history import Arrivals
from server.cli.remote import TIMEOUT_S
from server.embedded import EmbeddedPostgres
from tests.commands import complaints, presence
from tests.conftest import TEST_API_KEY, TEST_SECRET, Serve
from tests.integration.http.api import Api, outcome
from tests.integration.http.test_http_analytics import ROUTES
from tests.postgres_faults import frozen

WITHIN_S = 0.5
UNREAD = "Postgres does not answer: the history can't be read now."
UNFORGOTTEN = "Postgres does not answer. Nothing is forgotten for certain until it is back: repeat this then."


@pytest.fixture
async def api(serve: Serve, own_postgres: EmbeddedPostgres) -> AsyncIterator[Api]:
    """A server whose own Postgres may freeze, and which has little patience with it."""
    await migrate(own_postgres.url, "public")
    served = await serve(database_url=own_postgres.url, flush_s=3600)
    async with await connect(own_postgres.url) as pool:
        served.node.analytics = Analytics(pool, within_s=WITHIN_S)
        served.node.forgetting = Forgetting(pool, within_s=WITHIN_S)
        served.node.arrivals = Arrivals(pool, within_s=WITHIN_S)
        client = Api(served.url, TEST_API_KEY)
        yield client
        await client.close()


async def said(*arguments: str, **environment: str) -> str:
    """The one sentence with which a command fails."""
    (line,) = complaints(await asyncio.to_thread(presence, *arguments, **environment), exit_code=1)
    return line


async def test_each_route_says_so_and_answers_when_it_is_back(
    api: Api, own_postgres: EmbeddedPostgres
) -> None:
    paths = [f"/v1/analytics/{route}" for route in (*ROUTES, "plan")]
    anna = await api.open("anna")
    with frozen(own_postgres):
        answers = await asyncio.gather(*(api.call("GET", path) for path in paths))
        forgotten = await api.call("DELETE", "/v1/users/anna")
        assert (await api.session(anna["session_id"]))["online"] is True
    for answer in answers:
        assert outcome(answer) == (503, "history_away")
        assert answer.json()["detail"] == UNREAD
    assert outcome(forgotten) == (503, "history_away")
    assert forgotten.json()["detail"] == UNFORGOTTEN
    for path in paths:
        await api.ok("GET", path)
    assert await api.ok("DELETE", "/v1/users/anna") == {"forgotten": 1}


async def test_the_commands_say_what_the_server_says(api: Api, own_postgres: EmbeddedPostgres) -> None:
    server = {"PRESENCE_URL": api.url, "PRESENCE_API_KEY": TEST_API_KEY}
    with frozen(own_postgres):
        stats, plan, forget = await asyncio.gather(
            said("stats", **server), said("plan", **server), said("forget", "anna", **server)
        )
    assert stats == plan == f"{UNREAD} (503)"
    assert forget == f"{UNFORGOTTEN} (503)"


async def test_commands_that_read_the_database_themselves_say_so_too(own_postgres: EmbeddedPostgres) -> None:
    keys = {"PRESENCE_SECRET": TEST_SECRET, "PRESENCE_API_KEY": TEST_API_KEY}
    with frozen(own_postgres):
        plan, doctor = await asyncio.gather(
            said("plan", DATABASE_URL=own_postgres.url),
            asyncio.to_thread(presence, "doctor", DATABASE_URL=own_postgres.url, **keys),
        )
    assert plan == "the history can't be read from DATABASE_URL: no answer in time"
    assert "can't be reached: no answer in time" in doctor.stdout


def test_the_server_answers_before_the_command_gives_it_up() -> None:
    assert QUESTION_WITHIN_S < TIMEOUT_S
