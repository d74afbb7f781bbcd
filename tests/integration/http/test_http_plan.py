"""`GET /v1/analytics/plan` and `presence plan`, on a history in a real Postgres."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest
from websockets.asyncio.client import connect as connect_ws

from persistence.connect import connect
from persistence.repository import Repository
from persistence.rows import PresenceRow
from server.embedded import EmbeddedPostgres
from tests.commands import complaints, presence, presence_here
from tests.conftest import TEST_API_KEY, Serve
from tests.contract.persistence_model import lines, row
from tests.integration.http.api import Api, outcome
from tests.visitor import OPTIONS

PATH = "/v1/analytics/plan"
DAY_MS = 86_400_000
PATIENCE_S = 30.0


def weeks(days: int = 30, a_day: int = 30) -> list[PresenceRow]:
    """A study's history up to yesterday: most come around eleven, for about twenty minutes."""
    rng = random.Random(3)
    midnight_ms = int(time.time()) // 86_400 * DAY_MS
    at = [
        midnight_ms - day * DAY_MS + round(rng.triangular(8, 20, 11) * 3_600_000)
        for day in range(1, days + 1)
        for _ in range(a_day)
    ]
    return [_session(number, at_ms, rng.lognormvariate(7, 0.4)) for number, at_ms in enumerate(at)]


def _session(number: int, at_ms: int, length_s: float) -> PresenceRow:
    return row(
        f"s{number}",
        user_id=f"u{number}",
        status="completed",
        started_at_ms=at_ms,
        interview_started_at_ms=at_ms + 1,
        interview_ended_at_ms=at_ms + round(length_s * 1000),
        waited_s=0.0,
    )


async def fill(database_url: str, rows: list[PresenceRow]) -> None:
    pool = await connect(database_url)
    await Repository(pool).write(lines(rows))
    await pool.close()


@pytest.fixture
async def api(serve: Serve, database_url: str) -> AsyncIterator[Api]:
    """A server with four weeks of history."""
    await fill(database_url, weeks())
    node = await serve(database_url=database_url)
    client = Api(node.url, TEST_API_KEY)
    yield client
    await client.close()


async def test_it_answers_from_the_history(api: Api) -> None:
    plan = await api.ok("GET", PATH, limits="1..8", days=28)
    assert plan["pool"] == "main"
    assert (plan["load"]["days"], plan["load"]["interviews"]) == (28, 840)
    assert [each["limit"] for each in plan["limits"]] == list(range(1, 9))
    assert 3 <= plan["smallest"] <= 6
    assert plan["replications"] > 3_000
    assert plan["assumes"]
    assert plan["warnings"] == []


async def test_the_target_is_the_callers(api: Api) -> None:
    easy = await api.ok("GET", PATH, target_wait_s=1800, percent=50)
    hard = await api.ok("GET", PATH, target_wait_s=0, percent=99.9)
    assert easy["smallest"] < hard["smallest"]
    assert easy["target"] == {"wait_s": 1800, "percent": 50}


async def test_a_pool_without_history_is_told_so(api: Api) -> None:
    plan = await api.ok("GET", PATH, pool="lab")
    assert (plan["limits"], plan["smallest"], plan["load"]) == ([], None, None)
    assert plan["warnings"][0].startswith("Too few data for a plan: 0 finished interviews")


async def planners(count: int) -> list[psutil.Process]:
    """The processes that plan, as soon as there are so many."""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := _planners()) != count:  # noqa: ASYNC110 - only the process table tells
            await asyncio.sleep(0.005)
    return found


def _planners() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "persistence.planner" in child.cmdline():
                found.append(child)
    return found


async def test_people_are_served_while_a_plan_is_made(api: Api) -> None:
    """However long it takes: here it stands still until they have been."""
    anna = await api.open("anna")
    planning = asyncio.create_task(api.ok("GET", PATH, limits="1..50"))
    (planner,) = await planners(1)
    planner.suspend()
    assert (await api.call("GET", "/healthz")).status_code == 200
    assert (await api.browser(anna["token"]).beat(anna["session_id"])).status_code == 200
    assert (await api.claim(anna["session_id"])).status_code == 200
    async with connect_ws(api.url.replace("http", "ws", 1) + "/ws", **OPTIONS) as socket:
        await socket.send(json.dumps({"type": "hello", "token": anna["token"], "tab": "t1"}))
        assert json.loads(await socket.recv())["type"] == "welcome"
        await socket.send(json.dumps({"type": "heartbeat", "seq": 1}))
        while json.loads(await socket.recv()) != {"type": "ack", "seq": 1}:
            pass
    assert not planning.done()
    planner.resume()
    assert (await planning)["smallest"]
    await planners(0)


async def test_one_plan_is_made_at_a_time(api: Api) -> None:
    first, second = (asyncio.create_task(api.ok("GET", PATH, limits="1..8")) for _ in range(2))
    (planner,) = await planners(1)
    planner.suspend()
    # The second has read its history by now, or comes to it later: there is no other planner either way.
    for _ in range(20):
        assert (await api.call("GET", "/healthz")).status_code == 200
        assert _planners() == [planner]
    assert not first.done()
    assert not second.done()
    planner.resume()
    assert await first == await second


async def test_nobody_works_on_a_plan_for_which_nobody_waits(api: Api) -> None:
    given_up = asyncio.create_task(api.ok("GET", PATH))
    (planner,) = await planners(1)
    planner.suspend()
    waiting = asyncio.create_task(api.ok("GET", PATH, limits="1..3"))
    given_up.cancel()
    assert [each["limit"] for each in (await waiting)["limits"]] == [1, 2, 3]
    assert not planner.is_running()


async def test_a_planner_that_comes_to_grief_costs_its_own_plan_only(api: Api) -> None:
    planning = asyncio.create_task(api.call("GET", PATH))
    (planner,) = await planners(1)
    planner.kill()
    assert (await planning).status_code == 500
    assert (await api.ok("GET", PATH, limits="1..3"))["limits"]


@pytest.mark.parametrize(
    "query",
    [
        {"limits": "0..3"},
        {"limits": "1..1000"},
        {"limits": "x"},
        {"days": 0},
        {"days": 367},
        {"percent": 101},
        {"target_wait_s": -1},
        {"unknown": 1},
    ],
)
async def test_a_bad_question_is_refused(api: Api, query: dict[str, object]) -> None:
    assert outcome(await api.call("GET", PATH, **query)) == (422, "invalid")


async def test_only_a_key_opens_it(api: Api) -> None:
    token = (await api.open("anna"))["token"]
    assert outcome(await api.browser(token).call("GET", PATH)) == (403, "forbidden")
    assert outcome(await api.browser(None).call("GET", PATH)) == (401, "no_credential")


async def test_without_postgres_it_is_503(serve: Serve) -> None:
    api = Api((await serve()).url, TEST_API_KEY)
    response = await api.call("GET", PATH)
    assert outcome(response) == (503, "history_away")
    assert "DATABASE_URL" in response.json()["detail"]
    await api.close()


async def test_with_postgres_away_it_is_503(serve: Serve, own_postgres: EmbeddedPostgres) -> None:
    api = Api((await serve(database_url=own_postgres.url)).url, TEST_API_KEY)
    own_postgres.stop()
    assert outcome(await api.call("GET", PATH)) == (503, "history_away")
    await api.close()


async def test_the_command_asks_the_server(api: Api, tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    done = await asyncio.to_thread(
        presence,
        *("plan", "--limits", "1..8", "--target-wait", "2m", "--percent", "90", "--svg", str(picture)),
        PRESENCE_URL=api.url,
        PRESENCE_API_KEY=TEST_API_KEY,
    )
    assert done.returncode == 0, done.stderr
    assert "places are enough: 90 % wait at most 2 min." in done.stdout
    assert "This assumes:" in done.stdout
    assert ET.fromstring(picture.read_text(encoding="utf-8")).get("role") == "img"


async def test_the_command_reads_the_database_itself_when_no_server_is_named(
    api: Api, database_url: str
) -> None:
    served = await api.ok("GET", PATH)
    done = await asyncio.to_thread(presence, "plan", "--json", DATABASE_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == served


def test_the_command_plans_without_any_history() -> None:
    done = presence_here("plan", "--arrivals-per-hour", "6", "--mean-minutes", "30", "--json")
    plan = json.loads(done.stdout)
    assert (plan["smallest"], plan["pool"], plan["load"]["erlangs"]) == (7, None, 3)


def test_too_few_data_are_a_sentence_and_exit_code_1(database_url: str) -> None:
    done = presence_here("plan", DATABASE_URL=database_url)
    (line,) = complaints(done, exit_code=1)
    assert line.startswith("Too few data for a plan")
    assert json.loads(presence_here("plan", "--json", DATABASE_URL=database_url).stdout)["limits"] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--limits", "5..1"), "--limits"),
        (("--target-wait", "soon"), "--target-wait"),
        (("--arrivals-per-hour", "6"), "--mean-minutes"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments: tuple[str, str], named: str) -> None:
    (line,) = complaints(presence_here("plan", *arguments), exit_code=2)
    assert named in line


def test_a_database_that_is_away_is_one_sentence_without_the_password() -> None:
    done = presence_here("plan", DATABASE_URL="postgresql://someone:hunter2@127.0.0.1:1/nowhere")
    (line,) = complaints(done, exit_code=1)
    assert line.startswith("the history can't be read from DATABASE_URL")
    assert "hunter2" not in line


def test_a_picture_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    done = presence_here(
        *("plan", "--arrivals-per-hour", "6", "--mean-minutes", "30"),
        *("--svg", str(tmp_path / "nowhere" / "plan.svg")),
    )
    (line,) = complaints(done, exit_code=1)
    assert "No such file or directory" in line
