"""The WebSocket protocol as a browser meets it: CONTRACT 4 from outside."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from server.domain.token import TokenClaims, Tokens
from server.embedded import EmbeddedRedis
from server.node.connection import Connection
from server.node.protocol import PresenceProtocol
from tests.browser import Browser, Network
from tests.conftest import TEST_SECRET, Serve
from tests.integration.conftest import MakeSite, Site
from tests.node_api import NodeApi
from tests.visitor import Visitor

PATIENCE_S = 8.0


@pytest.fixture
async def site(make_site: MakeSite) -> Site:
    return await make_site(max_concurrent=1, offer_s=0)


async def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Wait for something in this very process that no message tells of."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def offline_with(site: Site, session_id: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
    """The `disconnected` event of a session."""
    node = site.node
    async with asyncio.timeout(within_s):
        while True:
            entries = await node.store.scripts.command("XRANGE", node.store.keys("main").events, "-", "+")
            for _, fields in entries:
                named = {name.decode(): value.decode() for name, value in _pairs(fields)}
                if named["type"] == "disconnected" and named["session_id"] == session_id:
                    return named
            await asyncio.sleep(0.02)


def _pairs(fields: dict[bytes, bytes] | list[bytes]) -> list[tuple[bytes, bytes]]:
    if isinstance(fields, dict):
        return list(fields.items())
    return list(zip(fields[::2], fields[1::2], strict=True))


def _web_sockets(site: Site) -> list[PresenceProtocol]:
    return [each for each in site.server.server_state.connections if isinstance(each, PresenceProtocol)]


def token_of(
    session_id: str,
    *,
    secret: str = TEST_SECRET,
    ttl_s: float = 60,
    age_s: float = 0,
    ticket: int | None = None,
) -> str:
    claims = TokenClaims(session_id=session_id, pool="main", user_id="anna", started_at=1, ticket=ticket)
    return Tokens([secret], ttl_s).issue(claims, time.time() - age_s)


class TestHello:
    async def test_a_hello_is_answered_by_a_welcome_and_makes_the_session_present(self, site: Site) -> None:
        opened = await site.open(language_code="de")
        async with await Browser.join(site.ws_url, opened["token"], page="learning") as browser:
            welcome = browser.welcome
            shown = await site.session(opened["session_id"])
        assert welcome["session_id"] == opened["session_id"]
        assert welcome["resumed"] is False
        assert welcome["interview"]["state"] == "none"
        assert welcome["capacity"]["sessions_online"] == 1
        assert (shown["online"], shown["connection"], shown["current_page"]) == (True, "ws", "learning")

    async def test_a_heartbeat_is_answered_by_an_ack_of_the_same_number(self, site: Site) -> None:
        opened = await site.open()
        async with await Browser.join(site.ws_url, opened["token"]) as browser:
            await browser.say("heartbeat", seq=41, visible=False, something_newer=True)
            assert await browser.next("ack") == {"type": "ack", "seq": 41}
            await browser.say("heartbeat", seq=42)
            await browser.next("ack")  # so the first one has been dealt with
            shown = await site.session(opened["session_id"])
        assert shown["visible"] is False

    async def test_without_a_hello_the_connection_is_closed(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.node.endpoint.HELLO_WITHIN_S", 0.1)
        browser = await Browser.open(site.ws_url)
        code, messages = await browser.closed()
        assert (code, messages[0]["code"]) == (4408, "no_hello")

    async def test_a_first_message_that_is_no_hello_is_refused(self, site: Site) -> None:
        browser = await Browser.open(site.ws_url)
        await browser.say("heartbeat", seq=1)
        code, messages = await browser.closed()
        assert (code, messages[0]["code"]) == (4400, "bad_message")

    @pytest.mark.parametrize(
        ("token", "error"),
        [
            ("nonsense", "bad_token"),
            (token_of("x", secret="another-secret-of-at-least-32-bytes-length"), "bad_token"),
            (token_of("nobody", ttl_s=10, age_s=20), "unknown_session"),
        ],
        ids=["malformed", "foreign", "expired, of an unknown session"],
    )
    async def test_a_token_that_is_not_good_is_refused(self, site: Site, token: str, error: str) -> None:
        browser = await Browser.open(site.ws_url)
        await browser.say("hello", token=token)
        with capture_logs() as lines:
            code, messages = await browser.closed()
        assert (code, messages[0]["code"]) == (4401, error)
        refused = [line for line in lines if line["event"] == "connection_refused"]
        assert len(refused) == 1
        assert token not in str(refused)

    async def test_a_token_with_a_place_brings_back_a_session_that_redis_has_forgotten(
        self, site: Site
    ) -> None:
        async with await Browser.join(site.ws_url, token_of("forgotten", ticket=5)) as browser:
            assert browser.welcome["session_id"] == "forgotten"
        assert (await site.session("forgotten"))["user_id"] == "anna"

    async def test_a_token_of_an_unknown_session_has_to_be_renewed(self, site: Site) -> None:
        browser = await Browser.open(site.ws_url)
        await browser.say("hello", token=token_of("nobody"))
        code, _ = await browser.closed()
        assert code == 4401

    async def test_an_expired_token_still_reconnects_its_session_and_gets_a_new_one(self, site: Site) -> None:
        opened = await site.open()
        expired = token_of(opened["session_id"], ttl_s=10, age_s=20)
        async with await Browser.join(site.ws_url, expired) as browser:
            assert browser.welcome["session_id"] == opened["session_id"]
            newer = (await browser.next("token"))["token"]
        assert not Tokens([TEST_SECRET], 1).verify(newer, time.time()).expired

    async def test_a_token_of_a_completed_session_revives_nothing(self, site: Site) -> None:
        opened = await site.open()
        await site.http.post(f"/v1/sessions/{opened['session_id']}/complete", json={})
        browser = await Browser.open(site.ws_url)
        await browser.say("hello", token=opened["token"])
        code, _ = await browser.closed()
        assert (code, browser.socket.close_reason) == (4410, "completed")


class TestHandshake:
    async def test_a_forbidden_origin_is_refused_with_403(self, site: Site) -> None:
        with capture_logs() as lines, pytest.raises(InvalidStatus) as refused:
            await Browser.open(site.ws_url, origin="https://evil.example")
        assert refused.value.response.status_code == 403
        assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["origin_refused"]

    async def test_another_path_is_not_found(self, site: Site) -> None:
        with pytest.raises(InvalidStatus) as refused:
            await Browser.open(site.url.replace("http", "ws") + "/elsewhere")
        assert refused.value.response.status_code == 404

    @pytest.mark.parametrize(("offered", "echoed"), [(["chat", "other"], "chat"), (None, None)])
    async def test_without_our_subprotocol_the_connection_opens_and_closes(
        self, site: Site, offered: list[str] | None, echoed: str | None
    ) -> None:
        browser = await Browser.open(site.ws_url, subprotocols=offered)
        code, _ = await browser.closed()
        assert (browser.socket.subprotocol, code) == (echoed, 4426)

    async def test_one_address_gets_no_more_connections_than_it_may_have(self, make_site: MakeSite) -> None:
        site = await make_site(connections_per_ip=1, trusted_proxies="127.0.0.0/8")
        here = {"X-Forwarded-For": "203.0.113.7"}
        async with await Browser.open(site.ws_url, additional_headers=here) as first:
            second = await Browser.open(site.ws_url, additional_headers=here)
            code, messages = await second.closed()
            async with await Browser.open(
                site.ws_url, additional_headers={"X-Forwarded-For": "203.0.113.8"}
            ) as other:
                assert (first.socket.state.name, other.socket.state.name) == ("OPEN", "OPEN")
        assert code == 4030
        assert messages[0]["retry_in_ms"] > 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("frame", "named"),
        [
            ("{", "truncated"),
            ("[]", "object"),
            ('{"type":"nope"}', "type"),
            ('{"no":"type"}', "type"),
            ('{"type":"heartbeat"}', "seq"),
            ('{"type":"heartbeat","seq":-1}', "seq"),
            ('{"type":"heartbeat","seq":1,"x":' + "[" * 1900 + "]" * 1900 + "}", "recursion"),
            ('{"type":"hello","token":"again"}', "already"),
        ],
    )
    async def test_a_bad_message_is_named_and_changes_nothing(
        self, site: Site, frame: str, named: str
    ) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"], page="home")
        before = await site.session(opened["session_id"])
        with capture_logs() as lines:
            await browser.socket.send(frame)
            code, messages = await browser.closed()
        assert (code, messages[-1]["code"]) == (4400, "bad_message")
        assert named in messages[-1]["message"]
        assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["connection_refused"]
        after = await site.session(opened["session_id"])
        assert {**after, "version": 0} | _fleeting == {**before, "version": 0} | _fleeting

    async def test_a_binary_message_is_refused(self, site: Site) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        await browser.socket.send(b'{"type":"enter"}')
        assert (await browser.closed())[0] == 1003

    @pytest.mark.parametrize("size", [4097, 1_000_000])
    async def test_a_message_that_is_too_large_is_refused(self, site: Site, size: int) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        await browser.socket.send("x" * size)
        assert (await browser.closed())[0] == 1009

    async def test_endless_fragments_are_refused(self, site: Site) -> None:
        browser = await Browser.open(site.ws_url)

        async def fragments() -> AsyncIterator[str]:
            for _ in range(200):
                yield "x"

        sending = asyncio.create_task(browser.socket.send(fragments()))
        assert (await browser.closed())[0] == 1009
        await asyncio.gather(sending, return_exceptions=True)

    async def test_text_that_is_no_utf8_is_refused(self, site: Site) -> None:
        browser = await Browser.open(site.ws_url)
        await browser.socket.send(b"\xff\xfe", text=True)
        assert (await browser.closed())[0] == 1007

    async def test_a_flood_is_refused(self, make_site: MakeSite) -> None:
        site = await make_site(messages_per_s=5)
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        for seq in range(30):
            await browser.say("heartbeat", seq=seq)
        code, messages = await browser.closed()
        assert code == 4029
        assert messages[-1]["retry_in_ms"] > 0
        assert 9 <= len([message for message in messages if message["type"] == "ack"]) <= 11


_fleeting = {"online": None, "connection": None, "last_seen": None, "visible": None}


class TestInterview:
    async def test_a_freed_place_reaches_the_next_waiter_with_a_token_that_says_so(self, site: Site) -> None:
        holder, waiter = await site.open("anna"), await site.open("bert")
        async with (
            await Browser.join(site.ws_url, holder["token"]) as first,
            await Browser.join(site.ws_url, waiter["token"]) as second,
        ):
            await first.say("enter")
            await first.next("interview", state="granted")
            await second.say("enter")
            waiting = await second.next("interview", state="waiting")
            assert waiting["position"] == 1
            await first.say("leave")
            assert (await first.next("interview"))["reason"] == "released"
            granted = await second.next("interview", state="granted")
            token = (await second.next("token"))["token"]
        claims = Tokens([TEST_SECRET], 1).verify(token, time.time()).claims
        assert claims.fence == granted["fence"]

    async def test_a_pool_made_a_moment_ago_is_followed_at_once(self, site: Site) -> None:
        await site.http.put("/v1/pools/new", json={"limit": 1, "offer_s": 0})
        made = [
            (await site.http.post("/v1/sessions?pool=new", json={"user_id": user})).json()
            for user in ("anna", "bert")
        ]
        async with (
            await Browser.join(site.ws_url, made[0]["token"]) as first,
            await Browser.join(site.ws_url, made[1]["token"]) as second,
        ):
            await first.say("enter")
            await first.next("interview", state="granted")
            await second.say("enter")
            await second.next("interview", state="waiting")
            started = time.monotonic()
            await first.say("leave")
            await second.next("interview", state="granted")
        assert time.monotonic() - started < 1

    async def test_each_wish_is_answered_even_if_nothing_changed(self, site: Site) -> None:
        opened = await site.open()
        async with await Browser.join(site.ws_url, opened["token"]) as browser:
            for wish in ("leave", "accept"):
                await browser.say(wish)
                assert (await browser.next("interview"))["state"] == "none"
            await browser.say("enter")
            first = await browser.next("interview")
            await browser.say("enter")
            again = await browser.next("interview")
        assert (first["state"], again["fence"]) == ("granted", first["fence"])

    async def test_complete_ends_the_session_and_the_connection(self, site: Site) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        await browser.say("enter")
        await browser.say("complete")
        code, messages = await browser.closed()
        assert (code, browser.socket.close_reason) == (4410, "completed")
        assert messages[-1]["reason"] == "completed"
        shown = await site.http.get(f"/v1/sessions/{opened['session_id']}")
        assert shown.status_code == 410

    async def test_a_kicked_session_is_told_and_closed(self, site: Site) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        await site.http.delete(f"/v1/sessions/{opened['session_id']}")
        code, messages = await browser.closed()
        assert (code, messages[-1]["reason"]) == (4410, "kicked")

    async def test_a_claim_over_http_shows_in_the_page(self, site: Site) -> None:
        opened = await site.open()
        async with await Browser.join(site.ws_url, opened["token"]) as browser:
            await site.http.post(f"/v1/sessions/{opened['session_id']}/interview", json={})
            assert (await browser.next("interview"))["state"] == "granted"

    async def test_watchers_see_the_capacity_change(self, site: Site) -> None:
        watcher, opened = await site.open("anna"), await site.open("bert")
        async with (
            await Browser.join(site.ws_url, watcher["token"]) as watching,
            await Browser.join(site.ws_url, opened["token"]) as other,
        ):
            await watching.say("watch")
            assert (await watching.next("capacity"))["active"] == 0
            await other.say("enter")
            assert (await watching.next("capacity", active=1))["available"] == 0
            await watching.say("unwatch")
            await watching.say("heartbeat", seq=1)
            await watching.next("ack")
            await until(lambda: not site.node.hub.pool("main").watchers)

    async def test_positions_move_up_as_the_line_moves(self, site: Site) -> None:
        people = [await site.open(f"user-{number}") for number in range(4)]
        browsers = [await Browser.join(site.ws_url, person["token"]) for person in people]
        for number, browser in enumerate(browsers):
            await browser.say("enter")
            await browser.next("interview", state="waiting" if number else "granted")
        await browsers[1].say("leave")
        assert (await browsers[3].next("interview", position=2))["waiting"] == 2
        for browser in browsers:
            await browser.socket.close()


class TestConnections:
    async def test_a_newer_connection_of_the_same_tab_replaces_the_old_one_silently(self, site: Site) -> None:
        opened = await site.open()
        old = await Browser.join(site.ws_url, opened["token"], tab="one")
        async with await Browser.join(site.ws_url, opened["token"], tab="one") as new:
            assert (await old.closed()) == (1000, [])
            assert new.welcome["resumed"] is True
            assert (await site.session(opened["session_id"]))["connection"] == "ws"

    async def test_another_tab_takes_the_session_over(self, site: Site) -> None:
        opened = await site.open()
        old = await Browser.join(site.ws_url, opened["token"], tab="one")
        async with await Browser.join(site.ws_url, opened["token"], tab="two"):
            assert (await old.closed()) == (4409, [])

    async def test_a_connection_at_another_node_replaces_the_one_here(self, make_site: MakeSite) -> None:
        here, there = await make_site(), await make_site()
        opened = await here.open()
        old = await Browser.join(here.ws_url, opened["token"], tab="one")
        async with await Browser.join(there.ws_url, opened["token"], tab="two"):
            assert (await old.closed())[0] == 4409
            assert (await here.session(opened["session_id"]))["online"] is True

    async def test_a_delayed_hello_of_the_same_tab_replaces_nothing(self, site: Site) -> None:
        opened = await site.open()
        async with await Browser.join(site.ws_url, opened["token"], attempt=10**6) as current:
            late = await Browser.open(site.ws_url)
            await late.say("hello", token=opened["token"], tab="tab", attempt=10**6 - 1)
            assert (await late.closed())[0] == 4000
            await current.say("heartbeat", seq=1)
            await current.next("ack")

    async def test_a_late_close_of_a_replaced_connection_changes_nothing(
        self, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Connection, "replaced_by", lambda _self, _tab: None)
        here, there = await make_site(), await make_site()
        opened = await here.open()
        old = await Browser.join(here.ws_url, opened["token"], tab="one")
        async with await Browser.join(there.ws_url, opened["token"], tab="one") as new:
            await old.socket.close()
            await until(lambda: here.node.connections == 0)
            shown = await here.session(opened["session_id"])
            await new.say("heartbeat", seq=1)
            await new.next("ack")
        assert (shown["online"], shown["connection"]) == (True, "ws")

    async def test_a_closed_connection_is_lost_at_once(self, site: Site) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        await browser.socket.close()
        assert (await offline_with(site, opened["session_id"]))["cause"] == "closed"

    async def test_a_lost_network_is_noticed_by_the_ping_and_cut_off(self, make_site: MakeSite) -> None:
        site = await make_site(ping_s=0.2, ping_timeout_s=0.3)
        opened = await site.open()
        async with Network("127.0.0.1", site.port).running() as network:
            browser = await Browser.join(f"ws://127.0.0.1:{network.port}/ws", opened["token"])
            network.cut()
            started = time.monotonic()
            lost = await offline_with(site, opened["session_id"])
            await until(lambda: not _web_sockets(site))
            took_s = time.monotonic() - started
            browser.socket.transport.abort()
        assert lost["cause"] == "timeout"
        assert took_s < 1.5

    async def test_a_browser_that_reads_too_slowly_is_cut_off(self, site: Site) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        browser.socket.transport.pause_reading()
        member = next(iter(site.node.hub))
        frame = json.dumps({"type": "filler", "text": "x" * 60_000})
        with capture_logs() as lines:
            for _ in range(400):
                member.send_text(frame)
                await asyncio.sleep(0)
            lost = await offline_with(site, opened["session_id"])
        browser.socket.transport.abort()
        assert lost["cause"] == "too_slow"
        assert [line["close"] for line in lines if line["event"] == "connection_refused"] == [4008]


class TestRedisAway:
    async def test_claims_fail_closed_and_everything_heals(
        self, make_site: MakeSite, own_redis: EmbeddedRedis
    ) -> None:
        site = await make_site(redis_url=own_redis.url)
        opened = await site.open()
        async with await Browser.join(site.ws_url, opened["token"]) as browser:
            own_redis.kill()
            await browser.say("enter")
            error = await browser.next("error")
            assert (error["code"], error["retry_in_ms"] > 0) == ("redis_away", True)
            await browser.say("heartbeat", seq=1)
            await browser.next("ack")
            newcomer = await Browser.open(site.ws_url)
            await newcomer.say("hello", token=opened["token"])
            code, messages = await newcomer.closed()
            assert (code, messages[0]["code"]) == (4031, "redis_away")


class TestDrain:
    async def test_browsers_are_told_to_move_and_newcomers_to_come_back_later(self, site: Site) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        draining = asyncio.create_task(site.node.drain())
        assert (await browser.next("drain"))["reconnect_in_ms"] <= 10_000
        newcomer = await Browser.open(site.ws_url)
        code, messages = await newcomer.closed()
        ready = await site.http.get("/readyz")
        assert (code, messages[0]["type"], ready.status_code) == (4000, "drain", 503)
        await browser.socket.close()
        async with asyncio.timeout(PATIENCE_S):
            await draining

    async def test_who_stays_is_closed_in_the_end(self, site: Site) -> None:
        opened = await site.open()
        browser = await Browser.join(site.ws_url, opened["token"])
        draining = asyncio.create_task(site.node.drain())
        code, _ = await browser.closed()
        await draining
        assert code == 4000

    async def test_nobody_is_waited_for_when_nobody_is_here(self, site: Site) -> None:
        started = time.monotonic()
        await site.node.drain()
        assert time.monotonic() - started < 1


async def test_a_peer_that_has_just_reset_its_connection_is_nobody_to_send_to(serve: Serve) -> None:
    class Reset:
        """As uvloop's transport is, from the reset until it tells the protocol of it."""

        def is_closing(self) -> bool:
            return True

        def get_write_buffer_size(self) -> int:
            raise RuntimeError("the handler is closed")

        def write(self, data: bytes) -> None:
            raise RuntimeError("the handler is closed")

    node = await serve()
    async with NodeApi(node.url) as api, Visitor([node.ws_url], await api.open("user")):
        (member,) = node.node.hub
        protocol = member._transport  # type: ignore[attr-defined]
        alive, protocol.transport = protocol.transport, Reset()
        assert protocol.send_text("{}") is True
        protocol._flush()
        protocol.transport = alive
