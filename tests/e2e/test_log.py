"""The log of a whole run: each thing that happened once, with its ids and cause, and nothing that is secret."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.browser import Browser
from tests.conftest import TEST_API_KEY, TEST_SECRET, SpawnedServer, SpawnServer
from tests.node_api import Json, NodeApi
from tests.visitor import Visitor

PERSON, WAITER, PRIVATE = "anna.surname@example.org", "bert.surname@example.org", "has-asthma"
METRICS_KEY = "a-metrics-key-for-tests-0123456789"
LOGGED_WITHIN_S = 10.0
LEVEL = {"PRESENCE_LOG_LEVEL": "debug", "PRESENCE_METRICS_KEY": METRICS_KEY}
Line = dict[str, object]


class Study:
    """Two nodes of one study, and what each of them has logged."""

    def __init__(self, servers: list[SpawnedServer], apis: list[NodeApi]) -> None:
        self.servers = servers
        self.apis = apis

    def lines(self, event: str | None = None, session_id: str | None = None) -> list[Line]:
        written = [line for server in self.servers for line in server.events()]
        return [
            line
            for line in written
            if event in (None, line["event"]) and session_id in (None, line.get("session_id"))
        ]

    async def until_logged(self, event: str, session_id: str | None = None) -> Line:
        deadline = time.monotonic() + LOGGED_WITHIN_S
        while time.monotonic() < deadline:
            if lines := self.lines(event, session_id):
                return lines[0]
            await asyncio.sleep(0.02)
        pytest.fail(f"{event} was not logged: {self.lines()[-20:]}")


@pytest.fixture
async def study(spawn_server: SpawnServer, database_url: str) -> AsyncIterator[Study]:
    environment = {**LEVEL, "DATABASE_URL": database_url, "PRESENCE_MAX_CONCURRENT": "1"}
    servers = [spawn_server(**environment) for _ in range(2)]
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(NodeApi(server.url)) for server in servers]
        yield Study(servers, apis)


async def a_day(study: Study) -> tuple[Json, Json]:
    """Two people, one place: one is in and completes, the other waits, is let in, and is kicked."""
    first, second = study.apis
    anna = await first.open(PERSON, metadata={"note": PRIVATE}, current_page="home")
    bert = await second.open(WAITER)
    nodes = [server.ws_url for server in study.servers]
    async with Visitor(nodes, anna), Visitor(nodes, bert, first=1, accepts=True):
        await first.claim(anna["session_id"])
        await second.claim(bert["session_id"])
        await study.until_logged("waiting", bert["session_id"])
        await second.complete(anna["session_id"])
        await study.until_logged("granted", bert["session_id"])
        await first.kick(bert["session_id"])
        await study.until_logged("kicked", bert["session_id"])
    return anna, bert


async def test_each_thing_that_happened_is_one_line_over_all_nodes_with_its_ids_and_its_cause(
    study: Study,
) -> None:
    anna, bert = await a_day(study)
    of_anna = Counter(str(line["event"]) for line in study.lines(session_id=anna["session_id"]))
    assert of_anna["session_started"] == of_anna["granted"] == of_anna["completed"] == 1
    (offered,) = study.lines("offered", bert["session_id"])
    assert offered["level"] == "info"
    assert {"pool", "seq", "ticket"} <= offered.keys()
    (kicked,) = study.lines("kicked", bert["session_id"])
    assert isinstance(kicked["seq"], int)
    events = [line["seq"] for line in study.lines() if "seq" in line and "pool" in line]
    assert len(events) == len(set(events))


async def test_the_log_has_no_token_no_key_and_nothing_personal(study: Study, database_url: str) -> None:
    anna, bert = await a_day(study)
    wrong = "a-wrong-key-that-somebody-tried-0123"
    answer = await study.apis[0].send("GET", "/v1/capacity", by=wrong)
    assert answer.status_code == 401
    stranger = await Browser.open(study.servers[0].ws_url)
    await stranger.socket.send('{"type": "hello", "token": "hunter2.hunter2.hunter2"}')
    await stranger.socket.wait_closed()
    await study.until_logged("connection_refused")
    await study.apis[1].send("POST", "/v1/sessions", by=anna["token"])
    await study.apis[0].send("DELETE", f"/v1/users/{PERSON}", by=wrong)
    for server in study.servers:
        server.stop()
    written = "".join(server.log.read_text(encoding="utf-8") for server in study.servers)
    secrets = [TEST_API_KEY, TEST_SECRET, METRICS_KEY, wrong, "hunter2", anna["token"], bert["token"]]
    personal = [PERSON, WAITER, PRIVATE]
    assert [each for each in (*secrets, *personal, database_url) if each in written] == []
    assert "eyJ" not in written, "the beginning of a token"


async def test_a_request_has_an_id_in_its_answer_its_problem_and_its_line(study: Study) -> None:
    url = f"{study.servers[0].url}/v1/sessions/nobody"
    key = {"Authorization": f"Bearer {TEST_API_KEY}"}
    async with httpx.AsyncClient(headers=key) as client:
        named = await client.get(url, headers={"X-Request-ID": "from-the-proxy.1"})
        odd = await client.get(url, headers={"X-Request-ID": "with spaces\tand more"})
        fine = await client.get(f"{study.servers[0].url}/healthz")
    assert named.headers["x-request-id"] == named.json()["request_id"] == "from-the-proxy.1"
    own = odd.headers["x-request-id"]
    assert own == odd.json()["request_id"]
    assert " " not in own
    assert fine.headers["x-request-id"] not in ("", own)
    await study.until_logged("request_refused")
    refused = [line["request_id"] for line in study.lines("request_refused")]
    assert refused == ["from-the-proxy.1", own]


async def test_another_node_goes_on_writing_when_the_one_that_wrote_is_killed(study: Study) -> None:
    one = await study.apis[0].open("one")
    await study.until_logged("session_started", one["session_id"])
    writer = next(
        index
        for index, server in enumerate(study.servers)
        if f'"{one["session_id"]}"' in server.log.read_text()
    )
    study.servers[writer].kill()
    other = study.apis[1 - writer]
    deadline = time.monotonic() + LOGGED_WITHIN_S
    number = 0
    while time.monotonic() < deadline:
        opened = await other.open(f"late-{(number := number + 1)}")
        await asyncio.sleep(0.1)
        if study.lines("session_started", opened["session_id"]):
            return
    pytest.fail("nobody took the log over")
