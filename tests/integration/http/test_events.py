"""What happens in a pool, read as Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from server.live.verbs import Look, Seen
from server.node import feed, frames, reader
from server.node.loops import LINE_EVERY_S
from server.node.outlook import Line
from tests.conftest import TEST_API_KEY, Serve
from tests.events import PATIENCE_S, reading, until
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


async def test_a_line_that_is_again_as_it_was_before_one_came_is_told(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await serve()
    pool = node.node.feed._pool("main")
    lengths = [0]

    async def frame(_: Line) -> bytes:
        return frames.message("line", {"waiting": lengths[-1]})

    monkeypatch.setattr(pool.fronts, "frame", frame)
    only_line = {"with": "line", "types": ""}
    async with reading(node.url, **only_line) as stream:
        assert (await stream.next("line")).data["waiting"] == 0
        await asyncio.sleep(LINE_EVERY_S)  # it is said once more by the loop
    await until(lambda: len(node.node.feed) == 0)
    lengths.append(1)
    async with reading(node.url, **only_line) as stream:
        assert (await stream.next("line")).data["waiting"] == 1
        lengths.append(0)
        assert (await stream.next("line")).data["waiting"] == 0


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


def _is_ours(task: asyncio.Task[object]) -> bool:
    """Not the server's task of a connection that is just closing."""
    return "RequestResponseCycle" not in repr(task.get_coro())
