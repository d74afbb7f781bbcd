"""The last hours of a pool over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from msgspec.structs import replace

from server.embedded import EmbeddedPostgres, EmbeddedRedis
from server.node.samples import EVERY_MS
from tests.conftest import Serve, ServedNode
from tests.integration.http.api import Api, outcome
from tests.node_api import NodeApi

PAST = """
insert into presence (session_id, user_id, status, started_at, last_seen, interview_started_at, interview_ended_at,
                      waited_s, end_reason)
values ('old', 'anna', 'completed', $1, $2, $1, $2, 0, 'completed')
"""


async def remember(node: ServedNode, minutes: int) -> None:
    """As if the node had seen the pool as it is for so long."""
    state = await node.node.store.state("main")
    node.node.samples._pools.clear()
    for ago in range(minutes * 60_000 // EVERY_MS, 0, -1):
        node.node.samples.see(replace(state, at=state.at - ago * EVERY_MS))


async def test_without_a_history_it_is_what_the_node_remembers(serve: Serve) -> None:
    node = await serve(offer_s=0, max_concurrent=1)
    async with NodeApi(node.url) as api:
        for user in ("anna", "ben"):
            await api.claim((await api.open(user))["session_id"])
        await remember(node, 10)
        recent = await api.ask("GET", "/v1/analytics/recent?hours=1")
    assert (recent["pool"], recent["source"], recent["step_s"]) == ("main", "memory", 15)
    *past, now = recent["points"]
    assert 38 <= len(past) <= 42
    assert all(point["at"] < now["at"] for point in past)
    assert past == sorted(past, key=lambda point: point["at"])
    level = {"online": 2, "in_interview": 1, "waiting": 1, "limit": 1}
    assert all({**point, "at": ""} == {**level, "at": ""} for point in recent["points"])


async def test_what_was_before_the_node_comes_from_postgres(serve: Serve, database_url: str) -> None:
    now = datetime.now(UTC)
    connection = await asyncpg.connect(database_url)
    await connection.execute(PAST, now - timedelta(hours=2), now - timedelta(hours=1))
    await connection.close()
    node = await serve(database_url=database_url, max_concurrent=7)
    async with NodeApi(node.url) as api:
        await api.open("ben")
        recent = await api.ask("GET", "/v1/analytics/recent")
    assert (recent["source"], recent["step_s"]) == ("postgres", 60)
    assert 240 <= len(recent["points"]) <= 242
    there = [point for point in recent["points"] if point["in_interview"]]
    assert 59 <= len(there) <= 61
    assert all((point["online"], point["waiting"], point["limit"]) == (1, 0, 7) for point in there)
    assert recent["points"][-1]["online"] == 1


async def test_while_postgres_is_away_the_node_says_what_it_remembers(
    serve: Serve, own_postgres: EmbeddedPostgres
) -> None:
    node = await serve(database_url=own_postgres.url)
    own_postgres.stop()
    async with NodeApi(node.url) as api:
        recent = await api.ask("GET", "/v1/analytics/recent?hours=0.25")
        assert (recent["source"], recent["step_s"]) == ("memory", 10)
        assert recent["points"]


async def test_while_redis_is_away_it_ends_with_what_was_seen_last(
    serve: Serve, own_redis: EmbeddedRedis
) -> None:
    node = await serve(redis_url=own_redis.url)
    await remember(node, 5)
    own_redis.stop()
    async with NodeApi(node.url) as api:
        recent = await api.ask("GET", "/v1/analytics/recent?hours=0.25")
    assert 28 <= len(recent["points"]) <= 32
    own_redis.restart()


@pytest.mark.parametrize("hours", [0, 0.2, 24.5, "many"])
async def test_only_hours_that_make_sense_are_taken(api: Api, hours: object) -> None:
    assert outcome(await api.call("GET", "/v1/analytics/recent", hours=hours)) == (422, "invalid")


async def test_an_unknown_pool_has_no_past(api: Api) -> None:
    assert outcome(await api.call("GET", "/v1/analytics/recent", pool="nowhere")) == (404, "unknown_pool")
    token = (await api.open("anna"))["token"]
    assert outcome(await api.browser(token).call("GET", "/v1/analytics/recent")) == (403, "forbidden")
