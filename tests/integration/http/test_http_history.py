"""Sessions of the past over HTTP, and what is left when Postgres or Redis is away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from server.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.conftest import TEST_API_KEY, Serve, ServedNode
from tests.integration.http.api import Api, outcome


@pytest.fixture
async def node(serve: Serve, database_url: str) -> ServedNode:
    """A server with history, which flushes when the test says so."""
    return await serve(database_url=database_url, flush_s=3600)


@pytest.fixture
async def api(node: ServedNode) -> AsyncIterator[Api]:
    client = Api(node.url, TEST_API_KEY)
    yield client
    await client.close()


async def flush(node: ServedNode) -> None:
    assert node.node.flusher is not None
    await node.node.flusher.flush_once()


async def test_a_session_looks_the_same_before_and_after_it_became_history(
    api: Api, node: ServedNode
) -> None:
    anna = await api.open("anna", language_code="de", current_page="home", metadata={"a": 1})
    await api.claim(anna["session_id"])
    await api.complete(anna["session_id"])
    live = await api.session(anna["session_id"])
    assert (live["status"], live["end_reason"], live["interview"]["reason"]) == ("completed",) * 3
    await flush(node)
    assert await node.node.store.find_pool(anna["session_id"]) is None
    past = await api.session(anna["session_id"])
    assert past == live | {"online": False, "connection": None, "visible": None}
    assert await api.browser(anna["token"]).ok("GET", f"/v1/sessions/{anna['session_id']}") == past


async def test_a_past_session_is_found_in_its_own_pool_only(api: Api, node: ServedNode) -> None:
    anna = await api.open("anna", pool="lab")
    await api.call("POST", f"/v1/sessions/{anna['session_id']}/complete", pool="lab")
    await flush(node)
    path = f"/v1/sessions/{anna['session_id']}"
    assert (await api.ok("GET", path, pool="lab"))["pool"] == "lab"
    assert outcome(await api.call("GET", path)) == (404, "unknown_session")
    assert outcome(await api.call("GET", "/v1/sessions/nobody")) == (404, "unknown_session")


@pytest.mark.parametrize("written", [False, True])
async def test_what_was_ended_stays_ended_before_and_after_it_became_history(
    api: Api, node: ServedNode, *, written: bool
) -> None:
    anna, ben = await api.open("anna"), await api.open("ben")
    await api.complete(anna["session_id"])
    await api.kick(ben["session_id"])
    if written:
        await flush(node)
    assert outcome(await api.complete(anna["session_id"])) == (200, "none.completed")
    assert outcome(await api.kick(anna["session_id"])) == (410, "session_ended")
    assert outcome(await api.kick(ben["session_id"])) == (200, "none.kicked")
    assert outcome(await api.complete(ben["session_id"])) == (410, "session_ended")
    assert outcome(await api.claim(ben["session_id"])) == (409, "denied.ended")
    left = await api.call("DELETE", f"/v1/sessions/{anna['session_id']}/interview")
    assert outcome(left) == (200, "none.completed")
    for method, path in (("PATCH", ""), ("POST", "/token"), ("GET", "/interview")):
        response = await api.call(method, f"/v1/sessions/{anna['session_id']}{path}")
        assert outcome(response) == (410, "session_ended"), path


async def test_the_listing_joins_live_and_past_without_doubles(api: Api, node: ServedNode) -> None:
    opened = [await api.open(f"user-{number}") for number in range(9)]
    for session in opened[::3]:
        await api.complete(session["session_id"])
    await flush(node)
    for session in opened[1::3]:
        await api.complete(session["session_id"])
    listed = await whole_listing(api, limit=2)
    assert sorted(listed) == sorted(session["session_id"] for session in opened)
    completed = await whole_listing(api, limit=4, status="completed")
    assert sorted(completed) == sorted(session["session_id"] for session in opened[::3] + opened[1::3])


async def test_the_live_state_wins_over_the_older_row(api: Api, node: ServedNode) -> None:
    anna, ben = await api.open("anna"), await api.open("ben")
    await flush(node)
    await api.complete(anna["session_id"])
    for filters, expected in (
        ({"status": "active"}, [ben]),
        ({"status": "completed"}, [anna]),
        ({"online": "true"}, [ben]),
        ({"online": "false"}, [anna]),
    ):
        found = await whole_listing(api, limit=1, **filters)
        assert found == [session["session_id"] for session in expected], filters


async def whole_listing(api: Api, **params: object) -> list[str]:
    """The ids of all pages, in order."""
    listed: list[str] = []
    page = await api.ok("GET", "/v1/sessions", **params)
    listed += [session["session_id"] for session in page["sessions"]]
    while page["next_cursor"] is not None:
        page = await api.ok("GET", "/v1/sessions", **params, cursor=page["next_cursor"])
        listed += [session["session_id"] for session in page["sessions"]]
    return listed


async def test_with_postgres_away_the_living_are_served_and_the_past_is_503(
    serve: Serve, own_postgres: EmbeddedPostgres
) -> None:
    node = await serve(database_url=own_postgres.url, flush_s=3600)
    own_postgres.stop()
    api = Api(node.url, TEST_API_KEY)
    anna = await api.open("anna")
    assert (await api.session(anna["session_id"]))["online"] is True
    assert len((await api.ok("GET", "/v1/sessions", online="true"))["sessions"]) == 1
    await flush(node)
    for path in ("/v1/sessions", "/v1/sessions/nobody"):
        response = await api.call("GET", path)
        assert outcome(response) == (503, "history_away")
        assert "retry-after" in response.headers
    ready = await api.call("GET", "/readyz")
    assert ready.status_code == 200
    assert (ready.json()["ready"], ready.json()["postgres"]) == (True, "down")
    assert ready.json()["backlog"] >= 1
    assert "presence_postgres_up 0.0" in (await api.call("GET", "/metrics")).text
    await api.close()


async def test_sessions_whose_rows_postgres_refuses_are_counted_and_postgres_is_fine(
    serve: Serve, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("alter table presence add constraint no_poison check (current_page <> 'poison')")
    await connection.close()
    node = await serve(database_url=database_url, flush_s=3600)
    api = Api(node.url, TEST_API_KEY)
    for name in ("anna", "ben"):
        await api.open(name, current_page="poison" if name == "ben" else "home")
    await flush(node)
    ready = (await api.call("GET", "/readyz")).json()
    told = {name: ready[name] for name in ("postgres", "backlog", "set_aside", "flush_failures")}
    assert told == {"postgres": "ok", "backlog": 1, "set_aside": 1, "flush_failures": 0}
    lines = (await api.call("GET", "/metrics")).text.splitlines()
    assert "presence_flush_set_aside 1.0" in lines
    assert "presence_flush_failures_total 0.0" in lines
    await api.close()


async def test_with_redis_away_everything_live_is_503(serve: Serve, own_redis: EmbeddedRedis) -> None:
    node = await serve(redis_url=own_redis.url)
    api = Api(node.url, TEST_API_KEY)
    anna = await api.open("anna")
    own_redis.stop()
    for method, path in (
        ("POST", "/v1/cleanup"),
        ("GET", "/v1/capacity"),
        ("GET", "/v1/sessions"),
        ("GET", f"/v1/sessions/{anna['session_id']}"),
        ("POST", f"/v1/sessions/{anna['session_id']}/interview"),
        ("PUT", "/v1/pools/main"),
    ):
        response = await api.call(method, path, {} if method != "GET" else None)
        assert outcome(response) == (503, "redis_away"), path
        assert int(response.headers["retry-after"]) > 0
    ready = await api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["redis"]) == (503, False, "down")
    assert (await api.call("GET", "/healthz")).status_code == 200
    assert "presence_redis_up 0.0" in (await api.call("GET", "/metrics")).text
    await api.close()


async def test_a_node_that_drains_is_not_ready(serve: Serve) -> None:
    node = await serve()
    api = Api(node.url, TEST_API_KEY)
    node.node.draining = True
    ready = await api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()["draining"]) == (503, True)
    await api.close()


async def test_metrics_can_be_locked(serve: Serve) -> None:
    node = await serve(metrics_key="a-metrics-key-for-prometheus")
    api = Api(node.url, TEST_API_KEY)
    assert outcome(await api.browser(None).call("GET", "/metrics")) == (401, "no_credential")
    assert outcome(await api.browser("wrong").call("GET", "/metrics")) == (401, "bad_credential")
    for key in ("a-metrics-key-for-prometheus", TEST_API_KEY):
        assert (await api.browser(key).call("GET", "/metrics")).status_code == 200
    assert outcome(await api.browser("a-metrics-key-for-prometheus").call("GET", "/v1/capacity")) == (
        401,
        "bad_credential",
    )
    await api.close()
