"""The interview over HTTP: claiming, waiting, leaving, completing; heartbeats and bye."""

from __future__ import annotations

import asyncio
import time

import jwt
import pytest

from server.domain.token import TokenClaims, Tokens
from tests.conftest import TEST_SECRET
from tests.integration.http.api import Api, Json, outcome


async def full(api: Api) -> Json:
    """Fill the pool, whose limit becomes 1; the holder."""
    await api.ok("PUT", "/v1/pools/main", {"limit": 1})
    holder = await api.open("holder")
    assert outcome(await api.claim(holder["session_id"])) == (200, "granted")
    return holder


async def test_a_claim_is_granted_and_repeating_it_changes_nothing(api: Api) -> None:
    anna = await api.open("anna")
    first = await api.claim(anna["session_id"])
    again = await api.browser(anna["token"]).claim(anna["session_id"])
    assert outcome(first) == outcome(again) == (200, "granted")
    assert first.json() == again.json()
    assert first.json()["fence"] > 0
    session = await api.session(anna["session_id"])
    assert session["is_in_interview"] is True
    assert session["interview"] == first.json()


async def test_who_finds_the_pool_full_waits_and_is_told_the_place(api: Api) -> None:
    await full(api)
    first, second = await api.open("first"), await api.open("second", language_code="de")
    assert (await api.claim(first["session_id"])).json()["position"] == 1
    response = await api.claim(second["session_id"])
    assert outcome(response) == (202, "waiting")
    assert (response.json()["position"], response.json()["waiting"]) == (2, 2)
    assert "Platz 2 der Warteschlange" in response.json()["message"]
    assert "ticket" not in response.json()
    assert (await api.claim(second["session_id"])).json() == response.json()
    assert await api.ok("GET", f"/v1/sessions/{second['session_id']}/interview") == response.json()


async def test_who_may_not_wait_is_denied_in_words_that_say_capacity(api: Api) -> None:
    await full(api)
    anna = await api.open("anna")
    response = await api.claim(anna["session_id"], wait=False)
    assert outcome(response) == (409, "denied.at_capacity")
    assert "capacity" in response.json()["message"]
    assert response.headers["content-type"] == "application/json"
    assert (await api.ok("GET", "/v1/capacity"))["waiting"] == 0


async def test_a_full_line_and_a_closed_pool_deny(api: Api) -> None:
    await full(api)
    await api.ok("PUT", "/v1/pools/main", {"max_line": 1})
    ben, cleo = await api.open("ben"), await api.open("cleo")
    assert outcome(await api.claim(ben["session_id"])) == (202, "waiting")
    assert outcome(await api.claim(cleo["session_id"])) == (409, "denied.line_full")
    await api.ok("PUT", "/v1/pools/main", {"mode": "closed"})
    assert outcome(await api.claim(cleo["session_id"])) == (409, "denied.closed")


async def test_an_ended_session_is_denied(api: Api) -> None:
    anna = await api.open("anna")
    await api.complete(anna["session_id"])
    assert outcome(await api.claim(anna["session_id"])) == (409, "denied.ended")


async def test_leaving_hands_over_and_may_be_repeated(api: Api) -> None:
    holder = await full(api)
    waiter = await api.open("waiter")
    await api.claim(waiter["session_id"])
    path = f"/v1/sessions/{holder['session_id']}/interview"
    for _ in range(2):
        assert outcome(await api.call("DELETE", path)) == (200, "none.released")
    assert (await api.ok("GET", f"/v1/sessions/{waiter['session_id']}/interview"))["state"] == "granted"


async def test_leaving_the_line_gives_the_place_up(api: Api) -> None:
    await full(api)
    waiter = await api.open("waiter")
    await api.claim(waiter["session_id"])
    left = await api.browser(waiter["token"]).call("DELETE", f"/v1/sessions/{waiter['session_id']}/interview")
    assert outcome(left) == (200, "none.released")
    assert (await api.ok("GET", "/v1/capacity"))["waiting"] == 0


async def test_leaving_is_idempotent_on_an_ended_session(api: Api) -> None:
    anna = await api.open("anna")
    await api.complete(anna["session_id"])
    response = await api.call("DELETE", f"/v1/sessions/{anna['session_id']}/interview")
    assert outcome(response) == (200, "none.completed")


async def test_a_stale_fence_releases_and_completes_nothing(api: Api) -> None:
    anna = await api.open("anna")
    old = (await api.claim(anna["session_id"])).json()["fence"]
    path = f"/v1/sessions/{anna['session_id']}/interview"
    await api.call("DELETE", path, fence=old)
    new = (await api.claim(anna["session_id"])).json()["fence"]
    assert new > old
    assert outcome(await api.call("DELETE", path, fence=old)) == (409, "stale_fence")
    assert outcome(await api.complete(anna["session_id"], fence=old)) == (409, "stale_fence")
    assert (await api.ok("GET", path))["fence"] == new
    assert outcome(await api.complete(anna["session_id"], fence=new)) == (200, "none.completed")


async def test_completing_hands_over_and_may_be_repeated(api: Api) -> None:
    holder = await full(api)
    waiter = await api.open("waiter")
    await api.claim(waiter["session_id"])
    for _ in range(3):
        assert outcome(await api.complete(holder["session_id"])) == (200, "none.completed")
    assert (await api.ok("GET", f"/v1/sessions/{waiter['session_id']}/interview"))["state"] == "granted"


async def test_claims_at_the_same_moment_never_exceed_the_limit(api: Api) -> None:
    await api.ok("PUT", "/v1/pools/main", {"limit": 3})
    opened = await asyncio.gather(*(api.open(f"user-{number}") for number in range(20)))
    responses = await asyncio.gather(*(api.claim(one["session_id"]) for one in opened))
    statuses = [response.status_code for response in responses]
    assert (statuses.count(200), statuses.count(202)) == (3, 17)
    positions = sorted(response.json()["position"] for response in responses if response.status_code == 202)
    assert positions == list(range(1, 18))


async def test_the_first_heartbeat_connects_and_the_next_ones_go_on(api: Api) -> None:
    anna = await api.open("anna")
    browser = api.browser(anna["token"])
    first = (await browser.beat(anna["session_id"], visible=True, page="learning")).json()
    assert set(first) == {"connection_id", "interview", "next_s"}
    assert first["next_s"] == 20
    again = await browser.beat(anna["session_id"], connection_id=first["connection_id"], visible=False)
    assert again.status_code == 200
    assert again.json()["connection_id"] == first["connection_id"]
    session = await api.session(anna["session_id"])
    assert (session["connection"], session["visible"], session["current_page"]) == ("http", False, "learning")


async def test_a_heartbeat_of_a_replaced_connection_is_409(api: Api) -> None:
    anna = await api.open("anna")
    browser = api.browser(anna["token"])
    old = (await browser.beat(anna["session_id"])).json()["connection_id"]
    new = (await browser.beat(anna["session_id"], tab="t2")).json()["connection_id"]
    assert new != old
    assert outcome(await browser.beat(anna["session_id"], connection_id=old)) == (409, "stale_connection")
    assert (await browser.beat(anna["session_id"], connection_id=new)).status_code == 200


async def test_a_delayed_attempt_of_the_same_tab_is_409(api: Api) -> None:
    anna = await api.open("anna")
    browser = api.browser(anna["token"])
    assert (await browser.beat(anna["session_id"], attempt=2)).status_code == 200
    assert outcome(await browser.beat(anna["session_id"], attempt=1)) == (409, "superseded")


async def test_a_heartbeat_hands_out_a_token_that_knows_the_permit(api: Api) -> None:
    anna = await api.open("anna")
    fence = (await api.claim(anna["session_id"])).json()["fence"]
    first = (await api.browser(anna["token"]).beat(anna["session_id"])).json()
    assert jwt.decode(first["token"], TEST_SECRET, algorithms=["HS256"])["fence"] == fence
    again = await api.browser(first["token"]).beat(anna["session_id"], connection_id=first["connection_id"])
    assert "token" not in again.json()


async def test_an_expired_token_reconnects_its_session_and_is_replaced(api: Api) -> None:
    anna = await api.open("anna")
    claims = TokenClaims(anna["session_id"], "main", "anna", 1)
    expired = api.browser(Tokens([TEST_SECRET], 60).issue(claims, time.time() - 61))
    first = (await expired.beat(anna["session_id"])).json()
    assert outcome(await expired.beat(anna["session_id"], connection_id=first["connection_id"])) == (
        401,
        "token_expired",
    )
    fresh = api.browser(first["token"])
    assert (await fresh.beat(anna["session_id"], connection_id=first["connection_id"])).status_code == 200


async def test_bye_starts_the_grace_of_the_current_connection_only(api: Api) -> None:
    anna = await api.open("anna")
    browser = api.browser(anna["token"])
    old = (await browser.beat(anna["session_id"])).json()["connection_id"]
    new = (await browser.beat(anna["session_id"], tab="t2")).json()["connection_id"]
    assert (await say_bye(api, anna, old)) == 204
    assert (await api.session(anna["session_id"]))["connection"] == "http"
    assert (await say_bye(api, anna, new)) == 204
    assert (await api.session(anna["session_id"]))["connection"] is None
    assert (await say_bye(api, anna, new)) == 204


async def test_bye_is_answered_the_same_when_the_session_is_over(api: Api) -> None:
    anna = await api.open("anna")
    await api.complete(anna["session_id"])
    assert (await say_bye(api, anna, "c1")) == 204
    assert outcome(await api.complete(anna["session_id"])) == (200, "none.completed")


async def say_bye(api: Api, session: Json, connection_id: str) -> int:
    """As `navigator.sendBeacon` does: without headers, as text."""
    body = f'{{"token": "{session["token"]}", "connection_id": "{connection_id}"}}'
    response = await api.browser(None).http.post(
        f"/v1/sessions/{session['session_id']}/bye",
        content=body,
        headers={"Content-Type": "text/plain;charset=UTF-8", "Origin": api.url},
    )
    return response.status_code


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("interview", {"wait": "yes"}),
        ("interview", {"fence": 1}),
        ("complete", {"fence": "1"}),
        ("heartbeat", {}),
        ("heartbeat", {"tab": ""}),
        ("heartbeat", {"tab": "t", "page": 1}),
        ("heartbeat", {"tab": "t", "mood": "good"}),
    ],
)
async def test_invalid_bodies_change_nothing(api: Api, path: str, body: Json) -> None:
    anna = await api.open("anna")
    before = await api.session(anna["session_id"])
    browser = api.browser(anna["token"])
    response = await browser.call("POST", f"/v1/sessions/{anna['session_id']}/{path}", body)
    assert outcome(response) == (422, "invalid")
    after = await api.session(anna["session_id"])
    assert after == before
