"""What the history says, over HTTP and on the command line."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator

import pytest

from server.embedded import EmbeddedPostgres
from tests.commands import complaints, presence
from tests.conftest import TEST_API_KEY, Serve, ServedNode
from tests.integration.http.api import Api, outcome

ROUTES = ("languages", "durations", "peak-hours", "concurrency", "waits", "endings")


@pytest.fixture
async def node(serve: Serve, database_url: str) -> ServedNode:
    """A server with history, which flushes when the test says so."""
    return await serve(database_url=database_url, flush_s=3600, offer_s=0, max_concurrent=1)


@pytest.fixture
async def api(node: ServedNode) -> AsyncIterator[Api]:
    client = Api(node.url, TEST_API_KEY)
    yield client
    await client.close()


async def a_day_in_short(api: Api, node: ServedNode) -> None:
    """Anna completes her interview, Ben is next and is in it now, Carla only came."""
    anna = await api.open("anna", language_code="de")
    ben = await api.open("ben", language_code="tr")
    await api.open("carla", language_code="tr")
    await api.claim(anna["session_id"])
    await api.claim(ben["session_id"])
    await api.complete(anna["session_id"])
    assert node.node.flusher is not None
    assert await node.node.flusher.flush_once()


async def run(node: ServedNode, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PRESENCE_URL": node.url, "PRESENCE_API_KEY": TEST_API_KEY}
    return await asyncio.to_thread(presence, *arguments, **environment)


async def test_the_day_is_told_by_each_route(api: Api, node: ServedNode) -> None:
    await a_day_in_short(api, node)
    told = {route: await api.ok("GET", f"/v1/analytics/{route}", days=2) for route in ROUTES}
    assert all((answer["pool"], answer["days"]) == ("main", 2) for answer in told.values())
    assert told["languages"]["languages"] == [
        {"language_code": "tr", "sessions": 2, "interviews": 1, "completed": 0},
        {"language_code": "de", "sessions": 1, "interviews": 1, "completed": 1},
    ]
    assert sum(day["sessions"] for day in told["languages"]["by_day"]) == 3
    everybody = told["durations"]["durations"][0]
    assert (everybody["total"], everybody["interviews"], everybody["completed"]) == (True, 1, 1)
    assert 0 <= everybody["interview_median_s"] == everybody["interview_p90_s"] <= 60
    assert sum(hour["sessions"] for hour in told["peak-hours"]["hours"]) == 3
    assert told["peak-hours"]["busiest"]["hour"].endswith(":00:00.000Z")
    assert told["concurrency"]["most"] == 1
    assert told["waits"]["waits"][0]["admitted"] == 2
    assert told["endings"]["endings"] == [{"end_reason": "completed", "sessions": 1}]
    assert "session_id" not in json.dumps(told)


async def test_a_pool_without_a_history_has_an_empty_one(api: Api) -> None:
    for route, rows in (("languages", "languages"), ("peak-hours", "hours"), ("endings", "endings")):
        assert (await api.ok("GET", f"/v1/analytics/{route}", pool="nowhere"))[rows] == []
    durations = (await api.ok("GET", "/v1/analytics/durations"))["durations"]
    assert [(row["total"], row["interviews"], row["interview_median_s"]) for row in durations] == [
        (True, 0, None)
    ]


@pytest.mark.parametrize("query", [{"days": 0}, {"days": 4000}, {"days": "many"}, {"pool": "?"}, {"day": 3}])
async def test_a_query_that_makes_no_sense_is_refused(api: Api, query: dict[str, object]) -> None:
    assert outcome(await api.call("GET", "/v1/analytics/languages", **query)) == (422, "invalid")


@pytest.mark.parametrize("route", ROUTES)
async def test_only_the_api_key_opens_it(api: Api, route: str) -> None:
    anna = await api.open("anna")
    for token, expected in ((anna["token"], (403, "forbidden")), (None, (401, "no_credential"))):
        assert outcome(await api.browser(token).call("GET", f"/v1/analytics/{route}")) == expected


async def test_without_postgres_it_says_so(serve: Serve) -> None:
    node = await serve()
    api = Api(node.url, TEST_API_KEY)
    for route in ROUTES:
        answer = await api.call("GET", f"/v1/analytics/{route}")
        assert outcome(answer) == (503, "history_away")
        assert answer.json()["detail"] == "This server keeps no history: DATABASE_URL is not set."
    (line,) = complaints(await run(node, "stats"), exit_code=1)
    assert "DATABASE_URL is not set" in line
    await api.close()


async def test_with_postgres_away_it_says_that(serve: Serve, own_postgres: EmbeddedPostgres) -> None:
    node = await serve(database_url=own_postgres.url, flush_s=3600)
    own_postgres.stop()
    api = Api(node.url, TEST_API_KEY)
    for route in ROUTES:
        answer = await api.call("GET", f"/v1/analytics/{route}")
        assert outcome(answer) == (503, "history_away")
        assert "does not answer" in answer.json()["detail"]
    await api.close()


async def test_presence_stats_shows_it_to_people_and_to_programs(api: Api, node: ServedNode) -> None:
    await a_day_in_short(api, node)
    shown = await run(node, "stats", "--days", "2")
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["tr", "2", "1", "0"] in lines
    assert ["completed", "1"] in lines
    assert any(line[:2] == ["all", "1"] for line in lines)
    told = json.loads((await run(node, "stats", "--json")).stdout)
    assert set(told) == set(ROUTES)
    assert told["concurrency"]["most"] == 1


async def test_presence_stats_of_an_empty_history_is_no_trouble(node: ServedNode) -> None:
    shown = await run(node, "stats", "--pool", "nowhere")
    assert shown.returncode == 0, shown.stderr


async def test_presence_forget_says_how_many_sessions_that_were(api: Api, node: ServedNode) -> None:
    await a_day_in_short(api, node)
    assert (await run(node, "forget", "anna")).stdout == "Forgotten: 1 session.\n"
    assert (await run(node, "forget", "anna")).stdout == "Nothing was known.\n"
    assert json.loads((await run(node, "forget", "ben", "--json")).stdout) == {"forgotten": 1}
    listed = await api.ok("GET", "/v1/sessions")
    assert [session["user_id"] for session in listed["sessions"]] == ["carla"]
