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
