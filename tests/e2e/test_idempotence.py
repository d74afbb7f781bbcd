"""What comes twice, late or after the end changes nothing, and is answered as the contract says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests import witness
from tests.browser import Browser
from tests.conftest import SpawnedServer, SpawnServer
from tests.node_api import Json, NodeApi

SETTINGS = {"PRESENCE_OFFER_S": "0", "PRESENCE_MAX_CONCURRENT": "1", "PRESENCE_FLUSH_S": "0.2"}
COMPLETED = {"state": "none", "reason": "completed"}


class Ground:
    """Two nodes, and a look into their Redis."""

    def __init__(self, servers: list[SpawnedServer], apis: list[NodeApi], redis: Any) -> None:  # noqa: ANN401
        self.servers = servers
        self.apis = apis
        self.api = apis[0]
        self.redis = redis

    async def join(self, opened: Json, *, node: int = 0, **hello: object) -> Browser:
        return await Browser.join(self.servers[node].ws_url, opened["token"], **hello)  # type: ignore[arg-type]

    async def forgotten(self, session_id: str) -> None:
        """Wait until an ended session is written, and only its tombstone is left."""
        async with asyncio.timeout(10):
            while await self.redis.exists(f"{witness.POOL}session:{session_id}"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def events_of(self, session_id: str) -> list[str]:
        stream = await witness.events(self.redis)
        return [event["type"] for event in stream if event.get("session_id") == session_id]


@pytest.fixture
async def ground(spawn_server: SpawnServer, redis_url: str, database_url: str) -> AsyncIterator[Ground]:
    servers = [spawn_server(**SETTINGS, DATABASE_URL=database_url) for _ in range(2)]
    async with (
        NodeApi(servers[0].url) as one,
        NodeApi(servers[1].url) as other,
        witness.client(redis_url) as redis,
    ):
        yield Ground(servers, [one, other], redis)


def essence(interview: Json) -> Json:
    """An interview object without its sentence."""
    return {name: value for name, value in interview.items() if name not in ("message", "type")}


async def test_a_session_that_is_completed_twice_is_answered_the_same_before_and_after_it_is_written(
    ground: Ground,
) -> None:
    opened = await ground.api.open("anna", language_code="de")
    session_id, token = opened["session_id"], opened["token"]
    fence = (await ground.api.claim(session_id, by=token)).json()["fence"]
    first = await ground.api.complete(session_id, by=token, fence=fence)
    await ground.forgotten(session_id)
    before = await witness.picture(ground.redis)
    for api in ground.apis:
        for again in (
            await api.complete(session_id, by=token, fence=fence),
            await api.complete(session_id, by=token),
            await api.complete(session_id),
        ):
            assert (again.status_code, essence(again.json())) == (200, COMPLETED)
        assert (await api.complete(session_id, by=token)).json() == first.json()
    assert await witness.picture(ground.redis) == before


async def test_a_completed_session_can_not_be_ended_in_another_way(ground: Ground) -> None:
    opened = await ground.api.open("anna")
    await ground.api.complete(opened["session_id"])
    for forgotten in (False, True):
        if forgotten:
            await ground.forgotten(opened["session_id"])
        kicked = await ground.api.kick(opened["session_id"])
        assert (kicked.status_code, kicked.json()["code"]) == (410, "session_ended")
    assert (await ground.api.session(opened["session_id"]))["status"] == "completed"


async def test_completing_with_the_fence_of_an_older_permit_is_refused_and_changes_nothing(
    ground: Ground,
) -> None:
    opened = await ground.api.open("anna")
    session_id, token = opened["session_id"], opened["token"]
    old = (await ground.api.claim(session_id, by=token)).json()["fence"]
    await ground.api.release(session_id, by=token)
    new = (await ground.api.claim(session_id, by=token)).json()["fence"]
    assert new > old
    before = await essential_picture(ground)
    refused = await ground.api.complete(session_id, by=token, fence=old)
    assert (refused.status_code, refused.json()["code"]) == (409, "stale_fence")
    path = f"/v1/sessions/{session_id}/interview"
    refused = await ground.api.send("DELETE", path, by=token, params={"fence": old})
    assert (refused.status_code, refused.json()["code"]) == (409, "stale_fence")
    assert await essential_picture(ground) == before


async def test_the_late_close_of_a_connection_that_was_replaced_at_another_node_changes_nothing(
    ground: Ground,
) -> None:
    opened = await ground.api.open("anna")
    old = await ground.join(opened, attempt=1)
    await old.say("enter")
    fence = (await old.next("interview", state="granted"))["fence"]
    async with await ground.join(opened, node=1, attempt=2) as new:
        assert new.welcome["interview"]["fence"] == fence
        code, _ = await old.closed()
        assert code == 1000
        await new.say("heartbeat", seq=1)
        await new.next("ack")
        shown = await ground.apis[1].session(opened["session_id"])
        assert (shown["online"], shown["connection"], shown["interview"]["fence"]) == (True, "ws", fence)
        connection = await ground.redis.get(f"{witness.POOL}alive:{opened['session_id']}")
        assert connection == new.welcome["connection_id"]
        assert "disconnected" not in await ground.events_of(opened["session_id"])


async def test_a_late_bye_of_an_older_connection_changes_nothing(ground: Ground) -> None:
    opened = await ground.api.open("anna")
    old = await ground.join(opened, attempt=1)
    async with await ground.join(opened, attempt=2) as new:
        await old.closed()
        path = f"/v1/sessions/{opened['session_id']}/bye"
        for api in ground.apis:
            goodbye = {"token": opened["token"], "connection_id": old.welcome["connection_id"]}
            said = await api.send("POST", path, by=None, json=goodbye, headers={"Content-Type": "text/plain"})
            assert (said.status_code, said.content) == (204, b"")
        assert (await ground.api.session(opened["session_id"]))["online"]
        assert "disconnected" not in await ground.events_of(opened["session_id"])
        # The bye of the current one counts, once.
        goodbye = {"token": opened["token"], "connection_id": new.welcome["connection_id"]}
        for api in ground.apis:
            assert (await api.send("POST", path, by=None, json=goodbye)).status_code == 204
        assert (await ground.events_of(opened["session_id"])).count("disconnected") == 1


async def test_a_delayed_hello_of_the_same_tab_is_sent_away_and_the_newer_connection_lives_on(
    ground: Ground,
) -> None:
    opened = await ground.api.open("anna")
    async with await ground.join(opened, attempt=5) as current:
        for server in ground.servers:
            late = await Browser.open(server.ws_url)
            before = await ground.events_of(opened["session_id"])
            await late.say("hello", token=opened["token"], tab="tab", attempt=4)
            code, messages = await late.closed()
            assert (code, messages[-1]["code"]) == (4000, "superseded")
            assert await ground.events_of(opened["session_id"]) == before
            await current.say("heartbeat", seq=7)
            assert await current.next("ack") == {"type": "ack", "seq": 7}
        shown = await ground.redis.get(f"{witness.POOL}alive:{opened['session_id']}")
        assert shown == current.welcome["connection_id"]


async def test_an_old_token_after_completion_revives_nothing_before_and_after_the_session_is_written(
    ground: Ground,
) -> None:
    opened = await ground.api.open("anna")
    session_id, token = opened["session_id"], opened["token"]
    async with await ground.join(opened) as browser:
        await browser.say("enter")
        token = (await browser.next("token"))["token"]
        await browser.say("complete")
        assert essence(await browser.next("interview", state="none")) == COMPLETED
        assert (await browser.closed())[0] == 4410
    await ground.forgotten(session_id)
    before = await witness.picture(ground.redis)
    for each in (opened["token"], token):
        await assert_dead(ground, session_id, each)
    assert await witness.picture(ground.redis) == before
    row = await ground.api.session(session_id)
    assert (row["status"], row["online"], row["end_reason"]) == ("completed", False, "completed")


async def assert_dead(ground: Ground, session_id: str, token: str) -> None:
    """Whatever the bearer of the token tries, at either node."""
    path = f"/v1/sessions/{session_id}"
    for server, api in zip(ground.servers, ground.apis, strict=True):
        late = await Browser.open(server.ws_url)
        await late.say("hello", token=token, tab="tab", attempt=99)
        code, messages = await late.closed()
        assert (code, messages[-1]["code"]) == (4410, "completed")

        claim = await api.claim(session_id, by=token)
        assert (claim.status_code, claim.json()["state"], claim.json()["reason"]) == (409, "denied", "ended")
        left = await api.release(session_id, by=token)
        assert (left.status_code, essence(left.json())) == (200, COMPLETED)
        beat = await api.send("POST", f"{path}/heartbeat", by=token, json={"tab": "tab"})
        assert (beat.status_code, beat.json()["code"]) == (410, "session_ended")
        turned = await api.send("PATCH", path, by=token, json={"current_page": "learning"})
        assert (turned.status_code, turned.json()["code"]) == (410, "session_ended")
        renewed = await api.send("POST", f"{path}/token")
        assert (renewed.status_code, renewed.json()["code"]) == (410, "session_ended")
        goodbye = {"token": token, "connection_id": "1"}
        assert (await api.send("POST", f"{path}/bye", by=None, json=goodbye)).status_code == 204


async def essential_picture(ground: Ground) -> Json:
    """All but what the flush moves."""
    shown = await witness.picture(ground.redis)
    for key in list(shown):
        if key.endswith((":dirty", ":touched", ":flush_lease")):
            del shown[key]
    return shown
