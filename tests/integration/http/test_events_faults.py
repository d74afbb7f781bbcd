"""Streams of events when something goes wrong: slow readers, a Redis that forgets, nodes that stop or die."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, closing, suppress

import httpx
import pytest
from redis import Redis
from structlog.testing import capture_logs

from server.embedded import EmbeddedRedis
from server.http import events
from server.live.verbs import Open, Update
from server.node import reader
from tests.conftest import Serve, SpawnServer
from tests.events import PATIENCE_S, happen, never_reading, reading, until
from tests.integration.http.api import Api
from tests.node_api import NodeApi


@pytest.mark.soak
async def test_ten_thousand_sessions_that_change_at_once_are_told_bit_by_bit(serve: Serve) -> None:
    node, count = await serve(), 10_000
    store, names = node.node.store, [f"s-{number}" for number in range(count)]
    await asyncio.gather(*(store.open("main", Open(session_id=name, user_id=name)) for name in names))
    async with reading(node.url, types="", **{"with": "sessions"}) as stream:
        (pool,) = node.node.feed._pools.values()
        missing = set(names)
        for page in ("learning", "interview"):
            await asyncio.gather(
                *(store.update("main", Update(session_id=name, page=page)) for name in names)
            )
        while missing:
            message = await stream.next("session")
            if message.data["current_page"] == "interview":
                missing.discard(message.data["session_id"])
            assert pool.looks is not None
            assert len(pool.looks._sights) <= 5000
    await until(lambda: pool.looks is None)


async def test_one_of_two_hundred_readers_that_never_reads_holds_up_nobody(
    serve: Serve, redis_url: str
) -> None:
    nodes = [await serve(), await serve()]
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(reading(node.url, types="granted"))
            for node in nodes
            for _ in range(99)
        ]
        for node in nodes:
            stack.enter_context(closing(never_reading(node.url)))
        await until(lambda: [len(node.node.feed) for node in nodes] == [100, 100])
        with capture_logs() as lines:
            await asyncio.to_thread(happen, redis_url, 3000)
            api = await stack.enter_async_context(NodeApi(nodes[0].url))
            anna = (await api.open("anna"))["session_id"]
            await api.claim(anna)
            assert [(await stream.next()).data["session_id"] for stream in streams] == [anna] * 198
            await until(lambda: [len(node.node.feed) for node in nodes] == [99, 99])
        assert [line["why"] for line in lines if line["event"] == "event_reader_cut_off"] == ["too_slow"] * 2


async def test_a_client_that_takes_nothing_for_too_long_is_disconnected(
    serve: Serve, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SEND_WITHIN_S", 0.2)
    monkeypatch.setattr(reader, "MOST_FRAMES", 10_000)
    monkeypatch.setattr(reader, "MOST_BYTES", 100_000_000)
    node = await serve()
    with capture_logs() as lines, closing(never_reading(node.url)):
        await until(lambda: len(node.node.feed) == 1)
        await asyncio.to_thread(happen, redis_url, 3000)
        await until(lambda: len(node.node.feed) == 0)
    assert [line["why"] for line in lines if line["event"] == "event_reader_cut_off"] == ["takes_nothing"]
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_what_was_cut_off_leads_to_a_reset_and_the_stream_goes_on(api: Api, redis_url: str) -> None:
    async with reading(api.url) as stream:
        await api.open("anna")
        old = (await stream.next()).id
    await api.open("ben")
    with Redis.from_url(redis_url) as redis:
        redis.xtrim("presence:{main}:events", maxlen=1, approximate=False)
    async with reading(api.url, old) as stream:
        reset = await stream.next()
        await api.open("carla")
        carla = await stream.next()
    assert (reset.name, reset.data, reset.id) == ("reset", {"reason": "trimmed"}, None)
    assert carla.data["user_id"] == "carla"
    async with reading(api.url, "99999999999999-0") as stream:
        assert (await stream.next("reset")).data == {"reason": "restored"}
        await stream.block()  # tells where it goes on
    async with reading(api.url, stream.last_id) as stream:
        await api.open("dora")
        assert (await stream.next()).data["user_id"] == "dora"


async def test_a_forgotten_person_leaves_no_gap_that_a_reader_would_mind(api: Api) -> None:
    async with reading(api.url) as stream:
        await api.open("anna")
        old = (await stream.next()).id
    await api.open("ben")
    await api.open("carla")
    for user in ("anna", "ben"):
        assert (await api.call("DELETE", f"/v1/users/{user}")).is_success
    async with reading(api.url, old, types="session_started") as stream:
        assert (await stream.next()).data["user_id"] == "carla"


async def test_a_redis_that_lost_its_memory_is_a_reset_on_the_open_stream(api: Api, redis_url: str) -> None:
    async with reading(api.url) as stream:
        await api.open("anna")
        old = await stream.next()
        with Redis.from_url(redis_url) as redis:
            redis.flushall()
        assert (await stream.next()).name == "reset"
        await api.open("ben")
        ben = await stream.next("session_started")
    assert ben.data["user_id"] == "ben"
    assert ben.data["epoch"] != old.data["epoch"]


async def test_what_the_node_missed_is_told_from_the_stream(api: Api, redis_url: str) -> None:
    async with reading(api.url) as stream:
        await api.open("anna")
        with Redis.from_url(redis_url) as redis:
            redis.hincrby("presence:{main}:config", "seq", 1)  # the follower misses one, and begins anew
        await api.open("ben")
        await api.open("carla")
        told = await stream.take(3)
    assert [message.data.get("user_id") for message in told] == ["anna", "ben", "carla"]


async def test_while_redis_is_away_the_stream_stays_open(serve: Serve, own_redis: EmbeddedRedis) -> None:
    node = await serve(redis_url=own_redis.url)
    async with NodeApi(node.url) as api, reading(node.url) as stream:
        await api.open("anna")
        await stream.next("session_started")
        own_redis.stop()
        await until(lambda: not node.node.redis_up)
        own_redis.restart()
        assert (await stream.next()).name == "reset"
        await until(lambda: node.node.redis_up)
        await api.open("ben")
        assert (await stream.next("session_started")).data["user_id"] == "ben"


async def test_a_node_that_stops_ends_its_streams_at_once(spawn_server: SpawnServer) -> None:
    server = spawn_server()
    with closing(never_reading(server.url)):
        async with reading(server.url, **{"with": "capacity"}) as stream:
            await stream.next("capacity")
            server.process.send_signal(signal.SIGTERM)
            await stream.rest()
        assert await asyncio.to_thread(server.process.wait, PATIENCE_S) == 0
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


async def test_after_a_node_was_killed_the_other_one_goes_on_without_a_gap(spawn_server: SpawnServer) -> None:
    dying, other = spawn_server(), spawn_server()
    seen: list[int] = []

    async def open_many(users: range) -> None:
        for number in users:
            await api.open(f"user-{number}")

    async with NodeApi(other.url) as api:
        async with reading(dying.url, types="session_started") as stream:
            busy = asyncio.create_task(open_many(range(70)))
            with suppress(httpx.TransportError):
                while True:
                    seen.append((await stream.next()).data["seq"])
                    if len(seen) == 20:
                        dying.kill()
        await open_many(range(70, 80))
        async with reading(other.url, stream.last_id, types="session_started") as again:
            await busy
            await api.open("the-last")
            while (told := await again.next()).data["user_id"] != "the-last":
                seen.append(told.data["seq"])
    assert seen == sorted(set(seen))
    assert len(seen) == 80


async def test_a_stop_does_not_wait_for_a_client_that_takes_nothing(
    serve: Serve, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_FRAMES", 10_000)
    monkeypatch.setattr(reader, "MOST_BYTES", 100_000_000)
    node = await serve()
    with closing(never_reading(node.url)):
        await until(lambda: len(node.node.feed) == 1)
        (stuck,) = next(iter(node.node.feed._pools.values())).readers
        await asyncio.to_thread(happen, redis_url, 3000)
        await until(lambda: stuck._is_writing and len(stuck._queue) > 0)
        node.node.feed.close()
        await until(lambda: len(node.node.feed) == 0)
