"""What happens in a pool, read as Server-Sent Events."""

from __future__ import annotations

import pytest

from tests.events import reading
from tests.integration.http.api import Api, outcome


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
