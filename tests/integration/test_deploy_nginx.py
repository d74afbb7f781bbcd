"""The examples for nginx and Caddy as they are shipped, run by the real programs from Debian."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import httpx
import pytest
from httpx_sse import EventSource
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.embedded.child import LOOPBACK
from server.node import reader
from tests.certificates import Certificate, make_ca, sign
from tests.frontends import HOST, Caddy, Frontend, Nginx
from tests.integration.conftest import MakeSite, Site
from tests.outside import NAMED, Outside, answers, greet

TRUSTED = (LOOPBACK,)
# nginx cuts what is silent for so long; we are, for longer, and meanwhile so many pings come.
CUTS_AFTER, IDLE_S, PING_S = "1s", 1.8, 0.3
NEVER_S = 600
PATIENCE_S = 15.0
TOO_MANY_CONNECTIONS = 4030


class Put(Protocol):
    """Put a proxy before nodes, with these settings of the example changed."""

    async def __call__(self, kind: type[Frontend], *sites: Site, **changes: str) -> Outside: ...


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("certificates"), "ca")


@pytest.fixture(scope="module")
def certificate(ca: Certificate) -> Certificate:
    return sign(ca, HOST)


@pytest.fixture
async def put(tmp_path: Path, ca: Certificate, certificate: Certificate) -> AsyncIterator[Put]:
    trust = ssl.create_default_context(cafile=str(ca.file))
    async with AsyncExitStack() as stack:

        async def start(kind: type[Frontend], *sites: Site, **changes: str) -> Outside:
            nodes = [site.url for site in sites]
            front = await asyncio.to_thread(kind.start, tmp_path, nodes, certificate, **changes)
            return await stack.enter_async_context(Outside(stack.enter_context(front), trust))

        yield start


@pytest.fixture(params=[Nginx, Caddy])
def kind(request: pytest.FixtureRequest) -> type[Frontend]:
    """Each proxy for which there is an example."""
    chosen: type[Frontend] = request.param
    return chosen


async def hears_nothing(socket: ClientConnection, for_s: float) -> bool:
    """Whether nothing comes for so long, not even an end."""
    try:
        message = await asyncio.wait_for(socket.recv(), for_s)
    except TimeoutError:
        return True
    except ConnectionClosed:
        return False
    raise AssertionError(f"heard {message!r}")


class TestIdleSockets:
    async def test_the_servers_pings_carry_an_idle_socket_past_the_time_outs_of_nginx(
        self, make_site: MakeSite, put: Put
    ) -> None:
        outside = await put(Nginx, await make_site(ping_s=PING_S), proxy_read_timeout=CUTS_AFTER)
        async with await outside.join("anna") as socket:
            assert await hears_nothing(socket, IDLE_S)
            assert await answers(socket)

    async def test_without_pings_nginx_cuts_it(self, make_site: MakeSite, put: Put) -> None:
        outside = await put(Nginx, await make_site(ping_s=NEVER_S), proxy_read_timeout=CUTS_AFTER)
        async with await outside.join("anna") as socket:
            assert not await hears_nothing(socket, PATIENCE_S)
            assert socket.close_code == 1006

    async def test_a_reload_of_nginx_drops_nobody(self, make_site: MakeSite, put: Put) -> None:
        outside = await put(Nginx, await make_site())
        assert isinstance(outside.front, Nginx)
        async with await outside.join("anna") as before:
            await asyncio.to_thread(outside.front.reload)
            async with await outside.join("ben") as after:
                assert await answers(before)
                assert await answers(after)


class TestAddresses:
    async def test_clients_behind_the_proxy_are_told_apart(
        self, make_site: MakeSite, put: Put, kind: type[Frontend]
    ) -> None:
        outside = await put(kind, await make_site(connections_per_ip=1, trusted_proxies=TRUSTED))
        async with await outside.join("anna", "127.0.0.2"), await outside.join("ben", "127.0.0.3"):
            assert await outside.close_code("127.0.0.2") == TOO_MANY_CONNECTIONS
            assert await outside.close_code("127.0.0.3") == TOO_MANY_CONNECTIONS

    async def test_a_forged_address_helps_nobody(
        self, make_site: MakeSite, put: Put, kind: type[Frontend]
    ) -> None:
        outside = await put(kind, await make_site(connections_per_ip=1, trusted_proxies=TRUSTED))
        async with await outside.join("anna", "127.0.0.2", {"X-Forwarded-For": "198.51.100.7"}):
            for forged in ("198.51.100.8", f"198.51.100.9, {LOOPBACK}"):
                refused_with = await outside.close_code("127.0.0.2", {"X-Forwarded-For": forged})
                assert refused_with == TOO_MANY_CONNECTIONS

    async def test_behind_a_proxy_that_is_not_trusted_all_have_its_address(
        self, make_site: MakeSite, put: Put
    ) -> None:
        outside = await put(Nginx, await make_site(connections_per_ip=1, trusted_proxies=("192.0.2.1",)))
        async with await outside.join("anna", "127.0.0.2"):
            assert await outside.close_code("127.0.0.3") == TOO_MANY_CONNECTIONS


class TestTheOuterAddress:
    async def test_pages_get_the_address_that_the_proxy_has(
        self, make_site: MakeSite, put: Put, kind: type[Frontend]
    ) -> None:
        outside = await put(kind, await make_site(trusted_proxies=TRUSTED))
        opened = await outside.open()
        assert opened["ws_url"] == f"wss://{HOST}:{outside.front.port}/ws"
        assert opened["client_url"].startswith(outside.front.url)

    async def test_pages_of_the_same_host_may_connect_and_others_may_not(
        self, make_site: MakeSite, put: Put, kind: type[Frontend]
    ) -> None:
        outside = await put(kind, await make_site())
        async with await outside.join("anna", origin=outside.front.url):
            pass
        with pytest.raises(InvalidStatus) as refused:
            await outside.dial(origin="https://elsewhere.example")
        assert refused.value.response.status_code == 403

    async def test_plain_http_is_led_to_https(self, make_site: MakeSite, put: Put) -> None:
        front = (await put(Nginx, await make_site())).front
        assert isinstance(front, Nginx)
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://{LOOPBACK}:{front.http_port}/dashboard", headers={"Host": HOST})
        assert (answer.status_code, answer.headers["location"]) == (301, f"https://{HOST}/dashboard")


async def test_an_event_passes_the_proxy_while_the_stream_is_open(
    make_site: MakeSite, put: Put, kind: type[Frontend]
) -> None:
    outside = await put(kind, await make_site())
    asked = outside.http.build_request(
        "GET", "/v1/events", params={"types": "session_started"}, extensions=NAMED
    )
    stream = await outside.http.send(asked, stream=True)
    try:
        opened = await outside.open()
        async with asyncio.timeout(PATIENCE_S):
            event = await anext(event async for event in EventSource(stream).aiter_sse() if event.data)
        assert (event.event, event.json()["session_id"]) == ("session_started", opened["session_id"])
    finally:
        await stream.aclose()


async def test_comments_carry_a_stream_without_events_past_the_time_outs_of_nginx(
    make_site: MakeSite, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "ALIVE_EVERY_S", PING_S)
    outside = await put(Nginx, await make_site(), proxy_read_timeout=CUTS_AFTER)
    asked = outside.http.build_request("GET", "/v1/events", extensions=NAMED)
    stream = await outside.http.send(asked, stream=True)
    comments = 0
    async with asyncio.timeout(PATIENCE_S):
        async for line in stream.aiter_lines():
            comments += line.startswith(":")
            if comments * PING_S > IDLE_S:
                break
    await stream.aclose()
    assert comments * PING_S > IDLE_S


async def test_pages_of_a_node_that_stops_find_the_next_one(
    make_site: MakeSite, put: Put, kind: type[Frontend]
) -> None:
    sites = [await make_site(), await make_site()]
    outside = await put(kind, *sites)
    token = (await outside.open("ben"))["token"]
    async with await outside.join("anna") as first:
        stopping, staying = sorted(sites, key=lambda site: -len(site.node.hub))
        draining = asyncio.create_task(stopping.node.drain(2.0))
        assert "drain" in str(await first.recv())
        # Who is led to the node that stops is told to come back; the next attempt goes to the other one.
        async with asyncio.timeout(PATIENCE_S):
            while not await gets_in(outside, token):
                pass
    await draining
    assert not staying.node.draining


async def gets_in(outside: Outside, token: str) -> bool:
    """Whether the node to which a page is led takes it."""
    async with await outside.dial() as socket:
        try:
            return await greet(socket, token) == "welcome"
        except ConnectionClosed:
            return False
