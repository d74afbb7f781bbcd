"""What happens in a pool, read as Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis
from structlog.testing import capture_logs

from server.embedded import EmbeddedRedis
from server.live.verbs import Look, Open, Seen, Update
from server.node import feed, reader
from tests.conftest import TEST_API_KEY, Serve, SpawnServer
from tests.events import PATIENCE_S, reading
from tests.integration.http.api import Api, outcome
from tests.node_api import NodeApi
from tests.prerequisites import demand


async def test_what_happens_is_told_as_it_happens(api: Api) -> None:
    await api.open("before")
    async with reading(api.url) as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert stream.response.headers["cache-control"] == "no-store"
        anna = await api.open("anna")
        await api.claim(anna["session_id"])
        started, granted = await stream.take(2)
    assert [started.name, granted.name] == ["session_started", "granted"]
    assert granted.id == stream.last_id
    assert granted.data["type"] == "granted"
    assert (granted.data["session_id"], granted.data["user_id"]) == (anna["session_id"], "anna")
    assert granted.data["seq"] == started.data["seq"] + 1
    assert granted.data["epoch"] == started.data["epoch"]
    assert granted.data["at"].endswith("Z")
    assert granted.data["fence"] > 0


async def test_a_reader_that_comes_back_gets_what_it_missed(api: Api) -> None:
    async with reading(api.url) as stream:
        await api.open("anna")
        await stream.next("session_started")
    users = [f"user-{number}" for number in range(30)]
    for user in users:
        await api.open(user)
    async with reading(api.url, stream.last_id) as again:
        missed = await again.take(30)
        await api.open("last")
        last = await again.next()
    assert [message.data["user_id"] for message in missed] == users
    assert last.data["user_id"] == "last"


@pytest.mark.parametrize("bad", ["x", "-1-0", "1-2-3", "99999999999999999999", "1.5"])
async def test_a_bad_last_event_id_is_refused_in_words(api: Api, bad: str) -> None:
    response = await api.http.get("/v1/events", headers={"Last-Event-ID": bad})
    assert outcome(response) == (422, "invalid")
    assert "Last-Event-ID must be the id of an event" in response.json()["detail"]
    assert outcome(await api.call("GET", "/v1/events", last_event_id=bad)) == (422, "invalid")


async def test_how_full_it_is_is_told_at_once_and_on_each_change(api: Api) -> None:
    async with reading(api.url, **{"with": "capacity", "types": ""}) as stream:
        first = await stream.next()
        assert first.data.keys() == (await api.ok("GET", "/v1/capacity")).keys()
        anna = await api.open("anna")
        await api.claim(anna["session_id"])
        while (last := await stream.next()).data["active"] == 0:
            pass
    assert (first.name, first.id, first.data["active"]) == ("capacity", None, 0)
    assert (last.data["sessions_online"], last.data["active"], last.data["available"]) == (1, 1, 2)


async def test_the_line_is_told_in_order_with_names_and_since_when(api: Api) -> None:
    await api.ok("PUT", "/v1/pools/main", {"limit": 1, "offer_s": 90})
    sessions = [(await api.open(user))["session_id"] for user in ("anna", "ben", "carla")]
    for session_id in sessions:
        await api.claim(session_id)
    async with reading(api.url, **{"with": "line", "types": "waiting"}) as stream:
        while len((line := await stream.next("line")).data["sessions"]) < 2:
            pass
        ben, carla = line.data["sessions"]
        await api.complete(sessions[0])
        while (offered := await stream.next("line")).data["offered"] == 0:
            pass
    assert line.id is None
    assert (line.data["pool"], line.data["waiting"], line.data["offered"]) == ("main", 2, 0)
    assert (ben["user_id"], ben["state"], ben["position"], ben["ready"]) == ("ben", "waiting", 1, True)
    assert (carla["session_id"], carla["position"]) == (sessions[2], 2)
    assert ben["since"] < carla["since"]
    assert {"eta_s", "eta_max_s"} < ben.keys()
    assert [(who["user_id"], who["state"]) for who in offered.data["sessions"]] == [
        ("ben", "offered"),
        ("carla", "waiting"),
    ]


async def test_a_session_is_told_as_it_is_after_each_event_that_concerns_it(api: Api) -> None:
    async with reading(api.url, **{"with": "sessions", "types": "granted"}) as stream:
        anna = (await api.open("anna", current_page="home"))["session_id"]
        opened = await stream.next()
        shown = await api.session(anna)
        await api.claim(anna)
        granted, after = await stream.take(2)
        await api.complete(anna)
        gone = await stream.next()
    assert (opened.name, opened.id, opened.data) == ("session", None, shown)
    assert (granted.name, after.name) == ("granted", "session")
    assert after.data["interview"]["state"] == "granted"
    assert (gone.name, gone.data) == ("session_gone", {"session_id": anna})


async def test_what_is_asked_for_is_checked(api: Api) -> None:
    unknown = await api.call("GET", "/v1/events", types="granted,vanished")
    assert outcome(unknown) == (422, "invalid")
    assert "types names vanished; valid are session_started, session_resumed" in unknown.json()["detail"]
    extra = await api.call("GET", "/v1/events", **{"with": "capacity,weather"})
    assert outcome(extra) == (422, "invalid")
    assert "with names weather; valid are capacity, sessions, line." in extra.json()["detail"]
    assert outcome(await api.call("GET", "/v1/events", pool="nowhere")) == (404, "unknown_pool")
    assert outcome(await api.browser(None).call("GET", "/v1/events")) == (401, "no_credential")
    token = (await api.open("anna"))["token"]
    assert outcome(await api.browser(token).call("GET", "/v1/events")) == (403, "forbidden")


async def test_head_answers_without_a_stream(api: Api) -> None:
    response = await api.call("HEAD", "/v1/events")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert (await api.call("HEAD", "/v1/events", pool="nowhere")).status_code == 404


async def test_a_silent_stream_is_kept_open_and_its_reader_knows_where_it_is(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "ALIVE_EVERY_S", 0.05)
    async with reading(api.url, types="recovery_started", **{"with": "capacity"}) as stream:
        await stream.next("capacity")
        before = stream.last_id
        await api.open("anna")
        while stream.comments < 3 or stream.last_id == before:
            await stream.block()
    async with reading(api.url, stream.last_id) as again:
        await api.open("ben")
        assert (await again.next()).data["user_id"] == "ben"


async def test_no_more_read_than_the_node_can_serve(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_READERS", 2)
    async with reading(api.url), reading(api.url):
        response = await api.call("GET", "/v1/events")
        assert outcome(response) == (503, "too_many_readers")
        assert int(response.headers["retry-after"]) > 0


async def test_a_reader_that_leaves_leaves_nothing_behind(serve: Serve) -> None:
    node = await serve()
    everything = {"with": "capacity,sessions,line"}
    async with NodeApi(node.url) as api:
        async with reading(node.url, **everything) as stream:
            await stream.next("capacity")
        await until(lambda: len(node.node.feed) == 0)
        before = asyncio.all_tasks()
        for number in range(10):
            async with reading(node.url, **everything) as stream:
                await api.open(f"user-{number}")
                await stream.next("session")
        await until(lambda: len(node.node.feed) == 0)
        await until(lambda: not [task for task in asyncio.all_tasks() - before if "look" in task.get_name()])
        assert {task.get_name() for task in asyncio.all_tasks() - before if _is_ours(task)} == set()


async def test_a_changed_session_is_read_once_for_all_and_not_at_all_for_nobody(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await serve()
    looked: list[str] = []
    look = node.node.store.look

    async def counting(pool: str, item: Look) -> Seen:
        looked.append(item.session_id)
        return await look(pool, item)

    monkeypatch.setattr(node.node.store, "look", counting)
    async with NodeApi(node.url) as api, AsyncExitStack() as stack:
        plain = await stack.enter_async_context(reading(node.url))
        await api.open("nobody-reads-her")
        await plain.next("session_started")
        assert looked == []
        streams = [
            await stack.enter_async_context(reading(node.url, types="", **{"with": "sessions"}))
            for _ in range(20)
        ]
        anna = (await api.open("anna"))["session_id"]
        told = [await stream.next("session") for stream in streams]
    assert looked == [anna]
    assert {message.data["session_id"] for message in told} == {anna}


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
        stuck = [never_reading(node.url) for node in nodes]
        await until(lambda: [len(node.node.feed) for node in nodes] == [100, 100])
        with capture_logs() as lines:
            await asyncio.to_thread(happen, redis_url, 3000)
            api = await stack.enter_async_context(NodeApi(nodes[0].url))
            anna = (await api.open("anna"))["session_id"]
            await api.claim(anna)
            assert [(await stream.next()).data["session_id"] for stream in streams] == [anna] * 198
            await until(lambda: [len(node.node.feed) for node in nodes] == [99, 99])
        assert [line["why"] for line in lines if line["event"] == "event_reader_cut_off"] == ["too_slow"] * 2
        for sock in stuck:
            sock.close()


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
    stuck = never_reading(server.url)
    async with reading(server.url, **{"with": "capacity"}) as stream:
        await stream.next("capacity")
        server.process.send_signal(signal.SIGTERM)
        await stream.rest()
    assert await asyncio.to_thread(server.process.wait, PATIENCE_S) == 0
    assert "Traceback" not in server.log.read_text(encoding="utf-8")
    stuck.close()


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


async def test_curl_reads_it_line_by_line(api: Api) -> None:
    command = [demand("curl"), "-sN", "-H", f"Authorization: Bearer {TEST_API_KEY}", f"{api.url}/v1/events"]
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert curl.stdout is not None
    assert (await curl.stdout.readline()).startswith(b": ")
    await api.open("anna")
    async with asyncio.timeout(PATIENCE_S):
        while not (line := await curl.stdout.readline()).startswith(b"data: "):
            pass
    assert json.loads(line.removeprefix(b"data: "))["user_id"] == "anna"
    curl.kill()
    await curl.communicate()


async def until(is_so: Callable[[], bool]) -> None:
    """Return when it is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def never_reading(url: str) -> socket.socket:
    """A client that asks for all events and never takes any."""
    place = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((place.hostname, place.port))
    head = f"GET /v1/events HTTP/1.1\r\nHost: presence\r\nAuthorization: Bearer {TEST_API_KEY}\r\n\r\n"
    sock.sendall(head.encode())
    return sock


def happen(redis_url: str, count: int) -> None:
    """Let so many events happen at once, as if thousands of pages moved on."""
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        config, events = "presence:{main}:config", "presence:{main}:events"
        for _ in range(count // 500):
            pipe = redis.pipeline()
            first = redis.hincrby(config, "seq", 500) - 499
            event = {"type": "page", "epoch": redis.hget(config, "epoch"), "at": 1, "cause": "x" * 4000}
            for seq in range(first, first + 500):
                pipe.xadd(events, {**event, "seq": seq})
            pipe.execute()


def _is_ours(task: asyncio.Task[object]) -> bool:
    """Not the server's task of a connection that is just closing."""
    return "RequestResponseCycle" not in repr(task.get_coro())
