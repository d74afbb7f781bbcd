"""Bad input from outside: the answer that the contract names, nothing changed, one line in the log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.domain.token import TokenClaims, Tokens
from tests import witness
from tests.browser import Browser
from tests.conftest import TEST_SECRET, SpawnedServer, SpawnServer
from tests.node_api import Json, NodeApi

MEGABYTE = "x" * 1_000_000
FOREIGN_SECRET = "another-secret-of-at-least-32-bytes-length"
LOGGED_WITHIN_S = 3.0

Deed = Callable[[Browser], Awaitable[None]]


class Ground:
    """A server with a holder and a waiter, who must notice nothing."""

    def __init__(self, server: SpawnedServer, api: NodeApi, redis: Any) -> None:  # noqa: ANN401
        self.server = server
        self.api = api
        self.redis = redis
        self.holder: Json = {}
        self.waiter: Json = {}

    async def settle_in(self) -> None:
        self.holder, self.waiter = [await self.api.open(name) for name in ("holder", "waiter")]
        for one in (self.holder, self.waiter):
            await self.api.claim(one["session_id"])
        # The first connection of all is told of in the log, once.
        await (await Browser.open(self.server.ws_url)).socket.close()

    @asynccontextmanager
    async def untouched(self, case: str) -> AsyncIterator[list[dict[str, object]]]:
        """Nothing in Redis changes meanwhile, and the log gets one line, which is then in the list."""
        before = await witness.picture(self.redis)
        async with self.one_line(case) as line:
            yield line
        assert await witness.picture(self.redis) == before, case

    @asynccontextmanager
    async def one_line(self, case: str) -> AsyncIterator[list[dict[str, object]]]:
        """The log gets one line meanwhile, which is then in the list."""
        line: list[dict[str, object]] = []
        known = len(self.server.events())
        yield line
        deadline = time.monotonic() + LOGGED_WITHIN_S
        while len(self.server.events()) == known and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        # A request of ours and its answer: whatever else was to be logged has been.
        await self.api.send("GET", "/healthz")
        line += self.server.events()[known:]
        assert len(line) == 1, f"{case}: {line}"


@pytest.fixture
async def ground(spawn_server: SpawnServer, redis_url: str) -> AsyncIterator[Ground]:
    server = spawn_server(PRESENCE_OFFER_S="0", PRESENCE_MAX_CONCURRENT="1", PRESENCE_GRACE_S="0")
    async with NodeApi(server.url) as api, witness.client(redis_url) as redis:
        ground = Ground(server, api, redis)
        await ground.settle_in()
        yield ground


def token_of(session_id: str, *, secret: str = TEST_SECRET, age_s: float = 0, pool: str = "main") -> str:
    """A token such as the server would issue, good for a minute."""
    claims = TokenClaims(session_id=session_id, pool=pool, user_id="somebody", started_at=1)
    return Tokens([secret], 60).issue(claims, time.time() - age_s)


def says(kind: str, **fields: object) -> Deed:
    async def deed(browser: Browser) -> None:
        await browser.say(kind, **fields)

    return deed


def sends(data: str | bytes) -> Deed:
    async def deed(browser: Browser) -> None:
        await browser.socket.send(data)

    return deed


async def waits(browser: Browser) -> None:
    await browser.socket.wait_closed()


async def floods(browser: Browser) -> None:
    try:
        for seq in range(200):
            await browser.say("heartbeat", seq=seq)
    except ConnectionClosed:
        pass


# What is wrong at any time, with close code and error code.
BAD_MESSAGES: dict[str, tuple[Deed, int, str]] = {
    "malformed JSON": (sends('{"type": "hello", '), 4400, "bad_message"),
    "no object": (sends("[1, 2]"), 4400, "bad_message"),
    "nothing": (sends(""), 4400, "bad_message"),
    "absurd nesting": (sends("[" * 4000), 4400, "bad_message"),
    "no type": (sends('{"token": "x"}'), 4400, "bad_message"),
    "unknown type": (says("shutdown"), 4400, "bad_message"),
    "binary": (sends(b'{"type": "heartbeat", "seq": 1}'), 1003, "binary"),
    "a megabyte": (sends(MEGABYTE), 1009, ""),
    "just over 4 KiB": (sends(json.dumps({"type": "page", "page": "x" * 4096})), 1009, ""),
}


def bad_greetings(ground: Ground, away: str) -> dict[str, tuple[Deed, int, str]]:
    """What is wrong in place of a hello. `away`: a session that has been away for longer than it may."""
    holder = ground.holder["session_id"]
    unsigned = "eyJhbGciOiJub25lIn0." + token_of(holder).split(".")[1] + "."

    def hello(token: object) -> Deed:
        return says("hello", token=token, tab="tab", attempt=1)

    return {
        **BAD_MESSAGES,
        "no hello": (waits, 4408, "no_hello"),
        "another message first": (says("enter"), 4400, "bad_message"),
        "a hello of wrong types": (
            says("hello", token=ground.holder["token"], attempt="x"),
            4400,
            "bad_message",
        ),
        "a page with control characters": (
            says("hello", token=ground.holder["token"], page="a\u0000b"),
            4400,
            "bad_message",
        ),
        "no token": (hello(""), 4400, "bad_message"),
        "a bad token": (hello("nonsense"), 4401, "bad_token"),
        "a foreign token": (hello(token_of(holder, secret=FOREIGN_SECRET)), 4401, "bad_token"),
        "an unsigned token": (hello(unsigned), 4401, "bad_token"),
        "an expired token": (hello(token_of(away, age_s=120)), 4401, "bad_token"),
        "a token of an unknown session": (hello(token_of("nobody")), 4401, "unknown_session"),
        "a token of an unknown pool": (hello(token_of(holder, pool="nowhere")), 4401, "unknown_pool"),
        "a token of a session with a bad id": (hello(token_of("../etc/passwd")), 4401, "bad_token"),
    }


class TestWebSocket:
    async def test_a_bad_greeting_is_refused_changes_nothing_and_leaves_one_line(
        self, ground: Ground
    ) -> None:
        away = await self.somebody_who_is_away(ground)
        for case, (deed, close, error) in bad_greetings(ground, away).items():
            async with ground.untouched(case) as line:
                browser = await Browser.open(ground.server.ws_url, max_size=None)
                await deed(browser)
                code, messages = await browser.closed()
            self.assert_refused(case, line[0], (code, messages), close, error)

    async def test_a_bad_message_costs_the_connection_but_not_the_permit_and_leaves_one_line(
        self, ground: Ground
    ) -> None:
        await ground.api.configure(limit=3, grace_s=10)
        guest = await ground.api.open("guest")
        fence = (await ground.api.claim(guest["session_id"])).json()["fence"]
        bad: dict[str, tuple[Deed, int, str]] = {
            **BAD_MESSAGES,
            "a second hello": (says("hello", token=guest["token"]), 4400, "bad_message"),
            "a heartbeat without number": (says("heartbeat"), 4400, "bad_message"),
            "a page that is too long": (says("page", page="x" * 201), 4400, "bad_message"),
            "a flood": (floods, 4029, "too_many_messages"),
        }
        for attempt, (case, (deed, close, error)) in enumerate(bad.items(), start=1):
            browser = await Browser.join(ground.server.ws_url, guest["token"], attempt=attempt)
            assert browser.welcome["interview"]["fence"] == fence, case
            before = await self.bystanders(ground)
            async with ground.one_line(case) as line:
                await deed(browser)
                code, messages = await browser.closed()
            self.assert_refused(case, line[0], (code, messages), close, error)
            assert await self.bystanders(ground) == before, case
            after = await ground.api.session(guest["session_id"])
            assert (after["interview"]["fence"], after["current_page"]) == (fence, None), case

    async def test_a_forbidden_origin_is_refused_at_the_handshake(self, ground: Ground) -> None:
        async with ground.untouched("origin") as line:
            with pytest.raises(InvalidStatus) as refused:
                await Browser.open(ground.server.ws_url, origin="https://evil.example")
        assert refused.value.response.status_code == 403
        assert (line[0]["event"], line[0]["origin"]) == ("origin_refused", "https://evil.example")

    async def test_without_a_known_protocol_the_connection_is_closed(self, ground: Ground) -> None:
        async with ground.untouched("protocol") as line:
            browser = await Browser.open(ground.server.ws_url, subprotocols=["chat.v9"])
            code, messages = await browser.closed()
        self.assert_refused("protocol", line[0], (code, messages), 4426, "no_protocol")

    async def somebody_who_is_away(self, ground: Ground) -> str:
        """Whose expired token is good for nothing any more."""
        opened = await ground.api.open("away")
        async with await Browser.join(ground.server.ws_url, opened["token"]):
            pass
        async with asyncio.timeout(5):
            while (await ground.api.session(opened["session_id"]))["online"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await ground.api.configure(resume_s=0.01)
        await self.until_offline_is_noted(ground, opened["session_id"])
        return str(opened["session_id"])

    async def until_offline_is_noted(self, ground: Ground, session_id: str) -> None:
        """Wait for the tick that reaps it: afterwards nothing moves by itself."""
        async with asyncio.timeout(5):
            while True:
                stream = await witness.events(ground.redis)
                if any(one["type"] == "offline" and one["session_id"] == session_id for one in stream):
                    return
                await asyncio.sleep(0.02)

    async def bystanders(self, ground: Ground) -> list[Json]:
        sessions = [ground.holder["session_id"], ground.waiter["session_id"]]
        return [await ground.redis.hgetall(f"{witness.POOL}session:{each}") for each in sessions]

    def assert_refused(
        self,
        case: str,
        line: dict[str, object],
        ended: tuple[int, list[Json]],
        close: int,
        error: str,
    ) -> None:
        """The close code is as the contract says, the message before it names the error, the log has both."""
        code, messages = ended
        assert code == close, f"{case}: {code} {messages}"
        if error:
            last = messages[-1]
            assert (last["type"], last["code"]) == ("error", error), f"{case}: {messages}"
            assert ("retry_in_ms" in last) == (4000 <= close < 4100), case
            assert (line["event"], line["error"]) == ("connection_refused", error), f"{case}: {line}"
        assert line["close"] == close, f"{case}: {line}"


JSON_TYPE = {"Content-Type": "application/json"}


def bad_requests(ground: Ground) -> dict[str, tuple[str, str, dict[str, Any], int, str]]:
    """Method, path, the rest, status and code of the problem."""
    holder, token = ground.holder["session_id"], ground.holder["token"]
    own, other = f"/v1/sessions/{holder}", f"/v1/sessions/{ground.waiter['session_id']}"
    somebody = {"user_id": "somebody"}
    expired = token_of(holder, age_s=120)
    foreign = token_of(holder, secret=FOREIGN_SECRET)
    sessions, pool = "/v1/sessions", "/v1/pools/main"
    return {
        "malformed JSON": ("POST", sessions, {"content": '{"user_id": '}, 400, "unparsable"),
        "no UTF-8": ("POST", sessions, {"content": b'{"user_id": "\xff"}'}, 400, "unparsable"),
        "absurd nesting": (
            "POST",
            sessions,
            {"content": '{"user_id": "x", "metadata": {"x": ' + "[" * 60_000},
            400,
            "unparsable",
        ),
        "no object": ("POST", sessions, {"json": [1]}, 422, "invalid"),
        "nothing that is needed": ("POST", sessions, {"json": {}}, 422, "invalid"),
        "a wrong type": ("POST", sessions, {"json": {"user_id": 5}}, 422, "invalid"),
        "an unknown field": ("POST", sessions, {"json": {**somebody, "is_admin": True}}, 422, "invalid"),
        "a bad user id": ("POST", sessions, {"json": {"user_id": "../x"}}, 422, "invalid"),
        "a bad session id": ("POST", sessions, {"json": {**somebody, "session_id": "a b"}}, 422, "invalid"),
        "an id with a newline": (
            "POST",
            sessions,
            {"json": {**somebody, "session_id": "a\n"}},
            422,
            "invalid",
        ),
        "a long id": ("POST", sessions, {"json": {**somebody, "session_id": "x" * 129}}, 422, "invalid"),
        "a bad language": ("POST", sessions, {"json": {**somebody, "language_code": "d e"}}, 422, "invalid"),
        "a page with NUL": ("PATCH", own, {"json": {"current_page": "a\u0000"}}, 422, "invalid"),
        "large metadata": ("PATCH", own, {"json": {"metadata": {"x": "x" * 5000}}}, 422, "invalid"),
        "a megabyte": ("POST", sessions, {"json": {"user_id": MEGABYTE}}, 413, "too_large"),
        "somebody else's session id": (
            "POST",
            sessions,
            {"json": {**somebody, "session_id": holder}},
            409,
            "session_id_taken",
        ),
        "no credential": ("POST", sessions, {"by": None, "json": somebody}, 401, "no_credential"),
        "another scheme": (
            "POST",
            sessions,
            {"by": None, "headers": {"Authorization": "Basic eDp5"}, "json": somebody},
            401,
            "no_credential",
        ),
        "a wrong key": ("POST", sessions, {"by": "x" * 30, "json": somebody}, 401, "bad_credential"),
        "a foreign token": ("POST", f"{own}/interview", {"by": foreign, "json": {}}, 401, "bad_credential"),
        "an expired token": ("POST", f"{own}/interview", {"by": expired, "json": {}}, 401, "token_expired"),
        "a token for another session": (
            "POST",
            f"{other}/complete",
            {"by": token, "json": {}},
            403,
            "forbidden",
        ),
        "a token for an operator's route": ("DELETE", own, {"by": token}, 403, "forbidden"),
        "a key for the browser's route": (
            "POST",
            f"{own}/heartbeat",
            {"json": {"tab": "t"}},
            403,
            "forbidden",
        ),
        "a token in another pool": (
            "GET",
            own,
            {"by": token, "params": {"pool": "elsewhere"}},
            403,
            "forbidden",
        ),
        "an unknown session": ("POST", "/v1/sessions/nobody/interview", {"json": {}}, 404, "unknown_session"),
        "completing nobody": ("POST", "/v1/sessions/nobody/complete", {"json": {}}, 404, "unknown_session"),
        "changing nobody": (
            "PATCH",
            "/v1/sessions/nobody",
            {"json": {"current_page": "x"}},
            404,
            "unknown_session",
        ),
        "kicking nobody": ("DELETE", "/v1/sessions/nobody", {}, 404, "unknown_session"),
        "a token of nobody": (
            "POST",
            "/v1/sessions/nobody/heartbeat",
            {"by": token_of("nobody"), "json": {"tab": "t"}},
            404,
            "unknown_session",
        ),
        "an id with bad characters": ("GET", "/v1/sessions/a%20b", {}, 422, "invalid"),
        "an id with a glob": ("DELETE", "/v1/sessions/*", {}, 422, "invalid"),
        "an id with braces": ("POST", "/v1/sessions/%7Bmain%7D/interview", {"json": {}}, 422, "invalid"),
        "an unknown pool": ("GET", own, {"params": {"pool": "nowhere"}}, 404, "unknown_pool"),
        "a bad pool": ("GET", "/v1/capacity", {"params": {"pool": "a b"}}, 422, "invalid"),
        "a fence that is none": ("DELETE", f"{own}/interview", {"params": {"fence": "x"}}, 422, "invalid"),
        "a stale fence": ("DELETE", f"{own}/interview", {"params": {"fence": "1"}}, 409, "stale_fence"),
        "a stale connection": (
            "POST",
            f"{own}/heartbeat",
            {"by": token, "json": {"tab": "t", "connection_id": "1"}},
            409,
            "stale_connection",
        ),
        "a negative limit": ("PUT", pool, {"json": {"limit": -1}}, 422, "invalid"),
        "a mode that is none": ("PUT", pool, {"json": {"limit": 50, "mode": "shut"}}, 422, "invalid"),
        "a limit in words": ("PUT", pool, {"json": {"limit": "three"}}, 422, "invalid"),
        "hours before now": ("POST", "/v1/cleanup", {"json": {"hours": -1}}, 422, "invalid"),
        "a bye with a bad token": (
            "POST",
            f"{own}/bye",
            {"by": None, "json": {"token": "x", "connection_id": "1"}},
            401,
            "bad_token",
        ),
        "a bye for another": (
            "POST",
            f"{other}/bye",
            {"by": None, "json": {"token": token, "connection_id": "1"}},
            403,
            "forbidden",
        ),
        "a method that is none here": ("PUT", sessions, {"json": somebody}, 405, "method_not_allowed"),
        "an address that is none": ("GET", "/v1/nothing", {}, 404, "not_found"),
    }


class TestHttp:
    async def test_a_bad_request_is_a_problem_changes_nothing_and_leaves_one_line(
        self, ground: Ground
    ) -> None:
        for case, (method, path, request, status, code) in bad_requests(ground).items():
            async with ground.untouched(case) as line:
                answer = await ground.api.send(method, path, **request)
            assert answer.status_code == status, f"{case}: {answer.text}"
            assert answer.headers["content-type"] == "application/problem+json", case
            problem = answer.json()
            assert (problem["status"], problem["code"]) == (status, code), f"{case}: {problem}"
            assert problem["detail"], case
            logged = (line[0]["event"], line[0]["status"], line[0]["code"])
            assert logged == ("request_refused", status, code), f"{case}: {line}"
            assert token_free(line[0], ground), case


def token_free(line: dict[str, object], ground: Ground) -> bool:
    """No credential is in the line."""
    return not any(one["token"] in str(line) for one in (ground.holder, ground.waiter))
