"""Forgetting a person over HTTP: live and past, sockets closed, and no flush that brings a row back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from persistence.connect import connect_once
from persistence.lines import row_of
from persistence.port import Written
from server.embedded import EmbeddedPostgres
from server.live.dirty import StoreDirtySessions
from tests.conftest import TEST_API_KEY, Serve, ServedNode
from tests.integration.http.api import Api, Json, outcome
from tests.visitor import OPTIONS

PERSON = "anna"
PATIENCE_S = 20.0


@pytest.fixture
async def node(serve: Serve, database_url: str) -> ServedNode:
    """A server with history, which flushes when the test says so."""
    return await serve(database_url=database_url, flush_s=3600)


@pytest.fixture
async def api(node: ServedNode) -> AsyncIterator[Api]:
    client = Api(node.url, TEST_API_KEY)
    yield client
    await client.close()


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await connect_once(database_url)
    yield connection
    await connection.close()


async def flush(node: ServedNode) -> None:
    assert node.node.flusher is not None
    assert await node.node.flusher.flush_once()


async def forget(api: Api, user_id: str = PERSON) -> int:
    return int((await api.ok("DELETE", f"/v1/users/{user_id}"))["forgotten"])


@asynccontextmanager
async def browser(
    node: ServedNode, session: Json, *, welcomed: bool = True
) -> AsyncIterator[ClientConnection]:
    """A socket of the session that has said hello."""
    async with connect(node.ws_url, **OPTIONS) as socket:
        await socket.send(json.dumps({"type": "hello", "token": session["token"], "tab": "t1"}))
        if welcomed:
            assert json.loads(await socket.recv())["type"] == "welcome"
        yield socket


async def closed_with(socket: ClientConnection) -> int | None:
    """The code with which the server closes the socket."""
    async with asyncio.timeout(PATIENCE_S):
        await socket.wait_closed()
    return socket.close_code


async def users(sql: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    return [row["user_id"] for row in await sql.fetch("select distinct user_id from presence order by 1")]


async def test_a_person_is_gone_from_all_pools_and_from_the_history(
    api: Api, node: ServedNode, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    past = await api.open(PERSON)
    await api.complete(past["session_id"])
    written = await api.open(PERSON)
    await api.open("ben")
    await flush(node)
    unwritten = await api.open(PERSON, pool="lab")
    await api.open("carla", pool="lab")
    assert past["session_id"] != written["session_id"]

    assert await forget(api) == 3

    assert await users(sql) == ["ben"]
    for pool, others in (("main", ["ben"]), ("lab", ["carla"])):
        listed = await api.ok("GET", "/v1/sessions", pool=pool)
        assert [session["user_id"] for session in listed["sessions"]] == others
    await flush(node)
    assert await users(sql) == ["ben", "carla"]
    assert outcome(await api.kick(written["session_id"])) == (200, "none.kicked")
    path = f"/v1/sessions/{unwritten['session_id']}"
    assert outcome(await api.call("GET", path, pool="lab")) == (410, "session_ended")


async def test_forgetting_may_be_repeated(api: Api, node: ServedNode) -> None:
    await api.open(PERSON)
    await flush(node)
    assert [await forget(api) for _ in range(3)] == [1, 0, 0]
    assert await forget(api, "nobody") == 0


async def test_a_flush_that_has_taken_the_row_already_does_not_bring_it_back(
    api: Api, node: ServedNode, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    source = StoreDirtySessions(node.node.store)
    history = node.node.history
    assert history is not None
    await api.open(PERSON)
    await api.open("ben")
    taken = await source.take("main", 10)
    assert {row_of(line).user_id for line in taken.lines} == {PERSON, "ben"}

    assert await forget(api) == 1

    await source.ack("main", taken, Written(await history.write(taken.lines)))
    assert await users(sql) == ["ben"]
    assert (await source.backlog("main")).sessions == 0
    await flush(node)
    assert await users(sql) == ["ben"]


async def test_a_write_that_is_under_way_is_waited_for(
    api: Api, sql: asyncpg.Connection[asyncpg.Record], database_url: str
) -> None:
    anna = await api.open(PERSON)
    other_node = await connect_once(database_url)
    writing = other_node.transaction()
    await writing.start()
    # The node may have written the row itself, in its first flush.
    insert = "insert into presence (session_id, user_id) values ($1, $2)"
    upsert = f"{insert} on conflict (session_id) do update set user_id = excluded.user_id"
    await other_node.execute(upsert, anna["session_id"], PERSON)

    forgetting = asyncio.create_task(forget(api))
    waits = "select from pg_locks where relation = 'presence'::regclass and not granted"
    async with asyncio.timeout(PATIENCE_S):
        while not forgetting.done() and not await sql.fetch(waits):  # noqa: ASYNC110 - the wait is Postgres's
            await asyncio.sleep(0.01)
    await writing.commit()

    assert await forgetting == 1
    assert await users(sql) == []
    await other_node.close()


async def test_a_forgotten_id_that_is_opened_anew_is_written_again(
    api: Api, node: ServedNode, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await api.open(PERSON, session_id="s1")
    await flush(node)
    await forget(api)
    await api.open(PERSON, session_id="s1")
    await flush(node)
    assert await users(sql) == [PERSON]


async def test_the_sockets_of_the_person_are_closed_with_4410(api: Api, node: ServedNode) -> None:
    anna, ben = await api.open(PERSON), await api.open("ben")
    async with browser(node, anna) as annas, browser(node, ben) as bens:
        assert await forget(api) == 1
        assert await closed_with(annas) == 4410
        await bens.send(json.dumps({"type": "heartbeat", "seq": 1}))
        async with asyncio.timeout(PATIENCE_S):
            assert json.loads(await bens.recv()) == {"type": "ack", "seq": 1}
    async with browser(node, anna, welcomed=False) as again:
        assert await closed_with(again) == 4410


async def test_an_id_of_the_old_system_is_forgotten_whatever_it_holds(
    api: Api, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    for number, user_id in enumerate(("Anna Müller", "team/anna", "50% anna?", "two\nlines\n")):
        await sql.execute("insert into presence (session_id, user_id) values ($1, $2)", f"s{number}", user_id)
    for quoted in ("Anna%20M%C3%BCller", "team%2Fanna", "50%25%20anna%3F", "two%0Alines%0A"):
        assert await forget(api, quoted) == 1
    assert await users(sql) == []


@pytest.mark.parametrize("user_id", ["", "a" * 1025, "%00"])
async def test_what_can_be_no_id_is_refused(api: Api, user_id: str) -> None:
    assert outcome(await api.call("DELETE", f"/v1/users/{user_id}")) == (422, "invalid")


async def test_only_the_api_key_forgets(api: Api) -> None:
    anna = await api.open(PERSON)
    for token, expected in ((anna["token"], (403, "forbidden")), (None, (401, "no_credential"))):
        answer = await api.browser(token).call("DELETE", f"/v1/users/{PERSON}")
        assert outcome(answer) == expected


async def test_without_a_history_the_person_is_forgotten_all_the_same(serve: Serve) -> None:
    served = await serve()
    api = Api(served.url, TEST_API_KEY)
    await api.open(PERSON)
    assert [await forget(api) for _ in range(2)] == [1, 0]
    await api.close()


async def test_with_postgres_away_nothing_is_forgotten_and_one_is_told_to_repeat_it(
    serve: Serve, own_postgres: EmbeddedPostgres
) -> None:
    served = await serve(database_url=own_postgres.url, flush_s=3600)
    own_postgres.stop()
    api = Api(served.url, TEST_API_KEY)
    anna = await api.open(PERSON)
    answer = await api.call("DELETE", f"/v1/users/{PERSON}")
    assert outcome(answer) == (503, "history_away")
    assert "repeat" in answer.json()["detail"]
    assert (await api.session(anna["session_id"]))["online"] is True
    await api.close()
