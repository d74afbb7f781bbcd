"""The admission as people meet it: offers, take-over, the front of the line, waiting times, and the end of the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from server.domain.interview import Admission, InterviewState
from server.domain.token import TokenClaims, Tokens
from server.live.verbs import Claim, Look, Seen
from server.node.connection import Connection
from tests import witness
from tests.browser import Browser
from tests.conftest import TEST_SECRET, Serve, ServedNode
from tests.node_api import Json, NodeApi

LENGTH_MS = 600_000
AT_ONCE_S = 0.9  # well under the second between two ticks


class Room:
    """Some nodes, and the browsers at them."""

    def __init__(self, nodes: list[ServedNode], apis: list[NodeApi], stack: AsyncExitStack) -> None:
        self.nodes = nodes
        self.apis = apis
        self._stack = stack

    @property
    def api(self) -> NodeApi:
        return self.apis[0]

    async def join(self, user_id: str, *, at: int = 0, **hello: Any) -> Browser:  # noqa: ANN401
        """Open a session of this user and connect it."""
        return await self.connect(await self.api.open(user_id), at=at, **hello)

    async def connect(self, opened: Json, *, at: int = 0, **hello: Any) -> Browser:  # noqa: ANN401
        browser = await Browser.join(self.nodes[at].ws_url, opened["token"], **hello)
        return await self._stack.enter_async_context(browser)

    async def enter(self, user_id: str, expected: str, *, at: int = 0, **hello: Any) -> Browser:  # noqa: ANN401
        """Join and claim."""
        browser = await self.join(user_id, at=at, **hello)
        await browser.say("enter")
        await browser.next("interview", state=expected)
        return browser

    async def events(self) -> list[dict[str, str]]:
        """All that happened in the pool."""
        async with witness.client(self.nodes[0].node.settings.redis_url) as redis:
            return await witness.events(redis)

    async def know_lengths(self) -> None:
        """As if ten interviews had ended, each of ten minutes."""
        async with witness.client(self.nodes[0].node.settings.redis_url) as redis:
            await redis.lpush(witness.POOL + "lengths", *[LENGTH_MS] * 10)


class Start:
    """Starts rooms with these settings."""

    def __init__(self, serve: Serve, stack: AsyncExitStack) -> None:
        self._serve = serve
        self._stack = stack

    async def __call__(self, nodes: int = 1, **settings: Any) -> Room:  # noqa: ANN401
        served = [await self._serve(**{"max_concurrent": 1, "offer_s": 0, **settings}) for _ in range(nodes)]
        apis = [await self._stack.enter_async_context(NodeApi(node.url)) for node in served]
        return Room(served, apis, self._stack)


@pytest.fixture
async def start(serve: Serve) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:
        yield Start(serve, stack)


def session_id(browser: Browser) -> str:
    return str(browser.welcome["session_id"])


def claims_of(token: str) -> TokenClaims:
    return Tokens([TEST_SECRET], 1).verify(token, time.time()).claims


class TestOffers:
    async def test_a_freed_place_is_offered_and_granted_to_who_accepts(self, start: Start) -> None:
        room = await start(offer_s=90)
        holder = await room.enter("anna", "granted")
        waiter = await room.enter("bert", "waiting", visible=False)
        await holder.say("leave")
        offered = await waiter.next("interview", state="offered")
        assert 89 < offered["offer_expires_in_s"] <= 90
        assert (await room.api.interview(session_id(waiter)))["offer_expires_in_s"] <= 90
        capacity = await room.api.ask("GET", "/v1/capacity")
        assert (capacity["active"], capacity["offered"], capacity["available"]) == (0, 1, 0)
        await waiter.say("accept")
        granted = await waiter.next("interview", state="granted")
        assert claims_of((await waiter.next("token"))["token"]).fence == granted["fence"]

    async def test_a_claim_accepts_an_offer(self, start: Start) -> None:
        room = await start(offer_s=90)
        holder = await room.enter("anna", "granted")
        first = await room.enter("bert", "waiting")
        await holder.say("leave")
        await first.next("interview", state="offered")
        claimed = await room.api.claim(session_id(first))
        assert (claimed.status_code, claimed.json()["state"]) == (200, "granted")
        await first.next("interview", state="granted")

    async def test_accept_without_an_offer_changes_nothing(self, start: Start) -> None:
        room = await start(offer_s=90)
        await room.enter("anna", "granted")
        waiter = await room.enter("bert", "waiting")
        await waiter.say("accept")
        assert (await waiter.next("interview"))["state"] == "waiting"
        stranger = await room.join("carl")
        await stranger.say("accept")
        assert (await stranger.next("interview"))["state"] == "none"

    async def test_a_missed_offer_goes_to_the_next_and_the_place_in_line_is_kept(self, start: Start) -> None:
        room = await start(offer_s=0.4)
        holder = await room.enter("anna", "granted")
        asleep = await room.enter("bert", "waiting", visible=False)
        awake = await room.enter("carl", "waiting")
        await holder.say("leave")
        await asleep.next("interview", state="offered")
        missed = await asleep.next("interview", state="waiting")
        assert missed["position"] == 1
        await awake.next("interview", state="offered")
        await awake.say("accept")
        await awake.next("interview", state="granted")

    @pytest.mark.parametrize("sign", ["visible", "heartbeat"])
    async def test_who_missed_an_offer_gets_the_next_one_once_the_page_is_seen(
        self, start: Start, sign: str
    ) -> None:
        room = await start(offer_s=0.4)
        holder = await room.enter("anna", "granted")
        waiter = await room.enter("bert", "waiting", visible=False)
        await holder.say("leave")
        await waiter.next("interview", state="offered")
        await waiter.next("interview", state="waiting")
        await waiter.say("heartbeat", seq=1, visible=False)
        await waiter.next("ack")
        assert (await room.api.interview(session_id(waiter)))["state"] == "waiting"
        await waiter.say(sign, visible=True, **({"seq": 2} if sign == "heartbeat" else {}))
        await waiter.next("interview", state="offered")
        await waiter.say("accept")
        await waiter.next("interview", state="granted")

    async def test_a_heartbeat_of_a_page_that_was_visible_all_along_ends_the_sitting_out_too(
        self, start: Start
    ) -> None:
        room = await start(offer_s=0.4)
        holder = await room.enter("anna", "granted")
        waiter = await room.enter("bert", "waiting", visible=True)
        await holder.say("leave")
        await waiter.next("interview", state="offered")
        await waiter.next("interview", state="waiting")
        await waiter.say("heartbeat", seq=1, visible=True)
        await waiter.next("interview", state="offered")

    async def test_pausing_withdraws_an_offer(self, start: Start) -> None:
        room = await start(offer_s=90)
        holder = await room.enter("anna", "granted")
        waiter = await room.enter("bert", "waiting")
        await holder.say("leave")
        await waiter.next("interview", state="offered")
        await room.api.configure(mode="paused")
        await waiter.next("interview", state="waiting")
        await room.api.configure(mode="open")
        await waiter.next("interview", state="offered")


class TestTakeOver:
    async def test_a_second_session_is_told_of_the_first_and_may_take_over(self, start: Start) -> None:
        room = await start(nodes=2)
        first = await room.enter("anna", "granted")
        fence = claims_of((await first.next("token"))["token"]).fence
        second = await room.join("anna", at=1, tab="other")
        assert session_id(second) != session_id(first)
        await second.say("enter")
        denied = await second.next("interview")
        assert (denied["state"], denied["reason"]) == ("denied", "elsewhere")
        assert "another window" in denied["message"]
        await second.say("enter", takeover=True)
        granted = await second.next("interview", state="granted")
        assert fence is not None
        assert granted["fence"] > fence
        assert (await first.next("interview"))["reason"] == "taken_over"
        assert claims_of((await first.next("token"))["token"]).fence is None
        assert claims_of((await second.next("token"))["token"]).fence == granted["fence"]

    async def test_over_http_too(self, start: Start) -> None:
        room = await start()
        first = await room.enter("anna", "granted")
        second = await room.api.open("anna")
        path = f"/v1/sessions/{second['session_id']}/interview"
        denied = await room.api.send("POST", path, json={})
        assert (denied.status_code, denied.json()["reason"]) == (409, "elsewhere")
        taken = await room.api.send("POST", path, json={"takeover": True})
        assert (taken.status_code, taken.json()["state"]) == (200, "granted")
        await first.next("interview", reason="taken_over")

    async def test_a_place_in_line_is_taken_over_with_its_ticket(self, start: Start) -> None:
        room = await start()
        await room.enter("anna", "granted")
        first = await room.enter("bert", "waiting")
        await room.enter("carl", "waiting")
        second = await room.join("bert", tab="other")
        await second.say("enter", takeover=True)
        assert (await second.next("interview"))["position"] == 1
        await first.next("interview", reason="taken_over")

    async def test_the_newer_session_gets_the_permit_when_the_older_one_loses_its_connection(
        self, start: Start
    ) -> None:
        room = await start(nodes=2)
        first = await room.enter("anna", "granted")
        second = await room.join("anna", at=1, tab="other")
        await first.socket.close()
        await second.next("interview", state="granted")


async def test_a_reclaimed_holder_who_returns_comes_to_the_front_of_the_line(start: Start) -> None:
    room = await start(grace_s=0.1, permit_grace_min_s=0.1)
    opened = await room.api.open("anna")
    holder = await room.connect(opened)
    await holder.say("enter")
    await holder.next("interview", state="granted")
    token = (await holder.next("token"))["token"]
    second, third = await room.enter("bert", "waiting"), await room.enter("carl", "waiting")
    await holder.socket.close()
    await second.next("interview", state="granted")
    await third.next("interview", position=1)
    back = await room.connect({"token": token}, tab="again")
    assert back.welcome["interview"]["reason"] == "expired"
    assert claims_of((await back.next("token"))["token"]).fence is None
    await back.say("enter")
    assert (await back.next("interview"))["position"] == 1
    assert (await third.next("interview", position=2))["waiting"] == 2


class TestLiveChanges:
    async def test_a_higher_limit_lets_people_in_at_once_wherever_they_are_connected(
        self, start: Start
    ) -> None:
        room = await start(nodes=2)
        await room.enter("anna", "granted")
        waiter = await room.enter("bert", "waiting", at=1)
        started = time.monotonic()
        await room.apis[0].configure(limit=2)
        await waiter.next("interview", state="granted")
        assert time.monotonic() - started < AT_ONCE_S
        changed = [event for event in await room.events() if "actor" in event]
        assert (changed[-1]["type"], changed[-1]["actor"], changed[-1]["cause"]) == (
            "pool_changed",
            "api",
            "limit=2",
        )

    async def test_a_new_longest_interview_is_known_to_all_nodes(self, start: Start) -> None:
        room = await start(nodes=2, max_concurrent=2)
        assert "ends_in_s" not in await room.api.interview(
            session_id(await room.enter("anna", "granted", at=1))
        )
        holder = await room.enter("bert", "granted")
        waiter = await room.enter("carl", "waiting", at=1)
        await room.api.configure(max_interview_s=1000)
        await holder.say("leave")
        granted = await waiter.next("interview", state="granted")
        assert 999 < granted["ends_in_s"] <= 1000

    async def test_a_lower_limit_throws_nobody_out(self, start: Start) -> None:
        room = await start(max_concurrent=2)
        holders = [await room.enter("anna", "granted"), await room.enter("bert", "granted")]
        await room.api.configure(limit=1)
        waiter = await room.enter("carl", "waiting")
        await holders[0].say("leave")
        await holders[0].next("interview", state="none")
        assert (await room.api.interview(session_id(waiter)))["state"] == "waiting"
        await holders[1].say("leave")
        await waiter.next("interview", state="granted")


class TestWaitingTimes:
    async def test_a_waiter_is_told_how_long_it_will_take(self, start: Start) -> None:
        room = await start(nodes=2)
        await room.know_lengths()
        await room.enter("anna", "granted")
        first = await room.enter("bert", "waiting", at=1)
        told = await self.told_wait(first)
        assert told["position"] == 1
        assert 500 < told["eta_s"] <= told["eta_max_s"] <= 700
        second = await room.enter("carl", "waiting")
        far = await self.told_wait(second)
        assert far["position"] == 2
        assert far["eta_s"] > told["eta_s"] + 400
        assert "eta_reason" not in far
        for api in room.apis:
            asked = await api.interview(session_id(first))
            assert abs(asked["eta_s"] - told["eta_s"]) <= 5

    async def test_the_number_grows_only_with_a_reason(self, start: Start) -> None:
        room = await start(max_concurrent=2)
        await room.know_lengths()
        holders = [await room.enter("anna", "granted"), await room.enter("bert", "granted")]
        await room.enter("carl", "waiting")
        waiter = await room.enter("dora", "waiting")
        before = await self.told_wait(waiter)
        await room.api.configure(limit=1)
        after = await waiter.next("interview", eta_reason="limit_lowered")
        assert after["eta_s"] > before["eta_s"]
        await room.api.configure(mode="paused")
        paused = await waiter.next("interview", eta_reason="paused")
        assert "eta_s" not in paused
        assert len(holders) == 2

    @staticmethod
    async def told_wait(waiter: Browser) -> Json:
        while True:
            told = await waiter.next("interview", state="waiting")
            if "eta_s" in told:
                return told

    async def test_capacity_says_what_a_newcomer_would_wait(self, start: Start) -> None:
        room = await start()
        await room.know_lengths()
        free = await room.api.ask("GET", "/v1/capacity")
        assert (free["eta_s"], free["eta_max_s"]) == (0, 0)
        watcher = await room.join("walt")
        await watcher.say("watch")
        assert (await watcher.next("capacity"))["eta_s"] == 0
        await room.enter("anna", "granted")
        full = await watcher.next("capacity", active=1)
        while full["eta_s"] is None:
            full = await watcher.next("capacity", active=1)
        assert 500 < full["eta_s"] <= full["eta_max_s"]
        asked = await room.api.ask("GET", "/v1/capacity")
        assert abs(asked["eta_s"] - full["eta_s"]) <= 5

    async def test_positions_follow_the_line_over_nodes_and_count_open_offers(self, start: Start) -> None:
        room = await start(nodes=2, offer_s=90)
        holder = await room.enter("anna", "granted")
        line = [await room.enter(f"user-{n}", "waiting", at=n % 2, visible=False) for n in range(5)]
        await holder.say("leave")
        await line[0].next("interview", state="offered")
        await line[1].say("leave")
        for position, waiter in enumerate(line[2:], start=2):
            await waiter.next("interview", state="waiting", position=position)
        await line[0].say("leave")
        await line[2].next("interview", state="offered")
        await line[4].next("interview", position=3)


class TestTheEndOfTheTime:
    async def test_the_holder_is_warned_and_then_gives_the_place_to_the_next(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.node.hub.WARN_BEFORE_END_S", (3.0, 1.5))
        room = await start(max_interview_s=4)
        holder = await room.join("anna")
        await holder.say("enter")
        granted = await holder.next("interview", state="granted")
        assert 3.9 < granted["ends_in_s"] <= 4
        waiter = await room.enter("bert", "waiting")
        first = await holder.next("interview")
        second = await holder.next("interview")
        assert [first["state"], second["state"]] == ["granted", "granted"]
        assert first["fence"] == granted["fence"]
        assert 1.5 < first["ends_in_s"] <= 3
        assert second["ends_in_s"] <= 1.5
        over = await holder.next("interview")
        assert (over["state"], over["reason"]) == ("none", "max_length")
        await waiter.next("interview", state="granted")

    async def test_every_way_to_ask_says_when_it_ends(self, start: Start) -> None:
        room = await start(max_interview_s=600)
        opened = await room.api.open("anna")
        claimed = (await room.api.claim(opened["session_id"])).json()
        browser = await room.connect(opened)
        shown = await room.api.session(opened["session_id"])
        for interview in (claimed, browser.welcome["interview"], shown["interview"]):
            assert 595 < interview["ends_in_s"] <= 600


async def test_the_newest_token_never_claims_a_permit_that_is_gone(start: Start) -> None:
    room = await start()
    browser = await room.join("anna")
    await browser.say("enter")
    assert claims_of((await browser.next("token"))["token"]).fence is not None
    await browser.say("leave")
    assert claims_of((await browser.next("token"))["token"]).fence is None


async def test_an_older_answer_that_comes_late_is_not_shown(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await start()
    browser = await room.join("anna")
    node = room.nodes[0].node
    look, looked, may_answer = node.store.look, asyncio.Event(), asyncio.Event()

    async def slow_look(pool: str, item: Look) -> Seen:
        seen = await look(pool, item)
        looked.set()
        await may_answer.wait()
        return seen

    monkeypatch.setattr(node.store, "look", slow_look)
    monkeypatch.setattr(Connection, "hear", lambda *_: None)  # the events are under way for still longer
    node.hub.pool("main").members[session_id(browser)].compare(InterviewState.WAITING, None)
    await looked.wait()
    await browser.say("enter")
    await browser.next("interview", state="granted")
    may_answer.set()
    await browser.say("accept")
    assert (await browser.next("interview"))["state"] == "granted"


async def test_a_claim_that_is_denied_is_answered_so_though_the_session_heard_of_a_change_meanwhile(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await start()
    await room.enter("anna", "granted")
    browser = await room.join("anna")
    node = room.nodes[0].node
    member = node.hub.pool("main").members[session_id(browser)]
    claim = node.store.claim

    async def claim_and_hear(pool: str, item: Claim) -> Admission:
        admission = await claim(pool, item)
        member.compare(InterviewState.WAITING, None)
        return admission

    monkeypatch.setattr(node.store, "claim", claim_and_hear)
    await browser.say("enter")
    assert (await browser.next("interview"))["reason"] == "elsewhere"


async def test_a_page_over_http_gets_a_token_without_the_permit_that_is_gone(start: Start) -> None:
    room = await start()
    opened = await room.api.open("anna")
    path = f"/v1/sessions/{opened['session_id']}/heartbeat"
    first = await room.api.ask("POST", path, {"tab": "t"}, by=opened["token"])
    await room.api.claim(opened["session_id"])
    beat = {"tab": "t", "connection_id": first["connection_id"]}
    holding = await room.api.ask("POST", path, beat, by=opened["token"])
    assert claims_of(holding["token"]).fence == holding["interview"]["fence"]
    await room.api.release(opened["session_id"])
    gone = await room.api.ask("POST", path, beat, by=holding["token"])
    assert claims_of(gone["token"]).fence is None
    assert "token" not in await room.api.ask("POST", path, beat, by=gone["token"])


async def test_hundreds_of_waiters_are_all_told_where_they_are(start: Start) -> None:
    room = await start(connections_per_ip=1000)
    await room.enter("anna", "granted")
    line = [await room.join(f"user-{n}") for n in range(120)]
    for browser in line:
        await browser.say("enter")
        await browser.next("interview", state="waiting")
    await asyncio.gather(*(browser.say("leave") for browser in line[:60]))
    told = await asyncio.gather(*(browser.next("interview", waiting=60) for browser in line[60:110]))
    assert [one["position"] for one in told] == list(range(1, 51))
