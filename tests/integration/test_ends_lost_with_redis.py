"""A session ends, and Redis loses its memory before the flush: what the history then says of it (docs/history.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests import ledger
from tests.conftest import Serve, ServedNode
from tests.node_api import NodeApi
from tests.visitor import Visitor
from tests.witness import client, events

WITHIN_S = 15.0
# No flush comes by itself: the test says when.
SELDOM_S = 3600.0


@pytest.fixture
async def node(serve: Serve, redis_url: str, database_url: str) -> ServedNode:
    return await serve(
        redis_url=redis_url,
        database_url=database_url,
        recovery_s=0.5,
        flush_s=SELDOM_S,
        max_concurrent=1,
        offer_s=0,
    )


@pytest.fixture
async def api(node: ServedNode) -> AsyncIterator[NodeApi]:
    async with NodeApi(node.url) as api:
        await until_ready(api)
        yield api


@pytest.fixture
async def table(database_url: str) -> AsyncIterator[ledger.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def until_ready(api: NodeApi) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (await api.ready())[0] != 200:  # noqa: ASYNC110 - it is asked from outside
            await asyncio.sleep(0.02)


async def flush(node: ServedNode, *, then_sweep: bool = False) -> None:
    """Write all now. `then_sweep`: as once a day."""
    flusher = node.node.flusher
    assert flusher is not None
    if then_sweep:
        flusher.sweep_soon()
    assert await flusher.flush_once()


async def complete(node: ServedNode, api: NodeApi, *, is_written_before: bool) -> str:
    """Somebody enters and completes; the session's id."""
    async with Visitor([node.ws_url], await api.open("anna")) as anna:
        await anna.say("enter")
        await anna.until_state("granted")
        if is_written_before:
            await flush(node)
        await anna.say("complete")
        await anna.until_state("none")
        return anna.session_id


async def lose_memory(redis_url: str, api: NodeApi) -> None:
    async with client(redis_url) as redis:
        await redis.flushall()
        async with asyncio.timeout(WITHIN_S):
            while "recovery_ended" not in [event["type"] for event in await events(redis)]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    await until_ready(api)


async def test_an_end_that_redis_lost_before_the_flush_becomes_abandoned_when_last_seen(
    node: ServedNode, api: NodeApi, table: ledger.Connection, redis_url: str
) -> None:
    session_id = await complete(node, api, is_written_before=True)
    await lose_memory(redis_url, api)
    await flush(node)
    before: dict[str, Any] = await ledger.row(table, session_id)
    assert (before["status"], before["is_in_interview"]) == ("active", True)
    assert (await api.ask("GET", "/v1/capacity"))["available"] == 1

    await table.execute("update presence set last_seen = last_seen - interval '4 hours'")
    await flush(node, then_sweep=True)
    after = await ledger.row(table, session_id)
    assert (after["status"], after["end_reason"], after["completed_at"]) == ("abandoned", "abandoned", None)
    assert (after["is_in_interview"], after["interview_ended_at"]) == (False, after["last_seen"])
    assert after["interview_started_at"] == before["interview_started_at"]


async def test_a_session_that_was_never_flushed_leaves_no_row(
    node: ServedNode, api: NodeApi, table: ledger.Connection, redis_url: str
) -> None:
    session_id = await complete(node, api, is_written_before=False)
    await lose_memory(redis_url, api)
    await flush(node)
    assert session_id not in await ledger.rows(table)


async def test_an_end_that_was_flushed_stays_whatever_redis_loses(
    node: ServedNode, api: NodeApi, table: ledger.Connection, redis_url: str
) -> None:
    session_id = await complete(node, api, is_written_before=True)
    await flush(node)
    await lose_memory(redis_url, api)
    await flush(node)
    assert (await ledger.row(table, session_id))["status"] == "completed"
