"""How the server starts, drains, stops and dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from structlog.testing import capture_logs

from server.app import create_app
from server.cli.dev import Interrupt
from server.embedded import EmbeddedRedis
from server.node.loops import Loops
from server.serve import Server
from server.settings import Settings
from tests.browser import Browser
from tests.conftest import TEST_API_KEY, SpawnServer
from tests.integration.conftest import MakeSite, Site

KEY = {"Authorization": f"Bearer {TEST_API_KEY}"}
BOUND_S = 10.0


async def token_from(url: str) -> str:
    async with httpx.AsyncClient(base_url=url, headers=KEY) as http:
        opened = await http.post("/v1/sessions", json={"user_id": "anna"})
        return str(opened.raise_for_status().json()["token"])


async def status_of(site: Site, wanted: int) -> None:
    """Wait until `/readyz` answers with this status."""
    async with asyncio.timeout(BOUND_S):
        while (await site.http.get("/readyz")).status_code != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_term_signal_tells_the_browsers_to_move_and_then_stops(spawn_server: SpawnServer) -> None:
    server = spawn_server()
    browser = await Browser.join(server.ws_url, await token_from(server.url))
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert (await browser.next("drain"))["reconnect_in_ms"] < 10_000
    assert (await browser.closed())[0] == 4000
    assert await asyncio.to_thread(server.process.wait, BOUND_S) == 0
    assert time.monotonic() - started < 5


async def test_a_second_interrupt_stops_at_once(spawn_server: SpawnServer) -> None:
    server = spawn_server()
    browser = await Browser.join(server.ws_url, await token_from(server.url))
    server.process.send_signal(signal.SIGINT)
    await browser.next("drain")
    started = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    await asyncio.to_thread(server.process.wait, BOUND_S)
    assert time.monotonic() - started < 1.5
    await browser.closed()


async def test_a_loop_that_dies_takes_the_server_with_it(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_die = asyncio.Event()

    async def dying(_loops: Loops) -> None:
        await may_die.wait()
        raise RuntimeError("a bug")

    monkeypatch.setattr(Loops, "_greetings", dying)
    site = await make_site()
    with capture_logs() as lines:
        may_die.set()
        async with asyncio.timeout(BOUND_S):
            while not site.server.node_died:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert [line["loop"] for line in lines if line["event"] == "loop_died"] == ["greetings"]


async def test_without_redis_it_starts_and_serves_as_soon_as_redis_is_there(
    make_site: MakeSite, own_redis: EmbeddedRedis
) -> None:
    own_redis.stop()
    site = await make_site(redis_url=own_redis.url)
    assert (await site.http.get("/healthz")).status_code == 200
    await status_of(site, 503)
    await asyncio.to_thread(own_redis.restart)
    await status_of(site, 200)
    async with asyncio.timeout(BOUND_S):
        while (await site.http.get("/v1/capacity")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_an_outage_of_redis_is_logged_once_and_costs_no_connection(
    make_site: MakeSite, own_redis: EmbeddedRedis
) -> None:
    site = await make_site(redis_url=own_redis.url)
    opened = await site.open()
    async with await Browser.join(site.ws_url, opened["token"]) as browser:
        await browser.say("enter")
        await browser.next("interview", state="granted")
        with capture_logs() as lines:
            own_redis.stop()
            await status_of(site, 503)
            await browser.say("page", page="learning")
            await browser.say("heartbeat", seq=1)
            await browser.next("ack")
            await asyncio.to_thread(own_redis.restart)
            await status_of(site, 200)
            async with asyncio.timeout(BOUND_S):
                while (await site.session(opened["session_id"]))["current_page"] != "learning":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        shown = await site.session(opened["session_id"])
    assert (shown["online"], shown["interview"]["state"]) == (True, "granted")  # type: ignore[index]
    events = [line["event"] for line in lines]
    assert (events.count("redis_away"), events.count("redis_back")) == (1, 1)


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    """The answer to signals that `presence dev` has; afterwards they mean what they meant before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Interrupt()
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_a_signal_whose_exception_python_drops_while_the_server_starts_stops_it_all_the_same(
    interrupt: Interrupt, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(lost.exc_type))
    chosen = settings()
    server = Server(create_app(chosen), chosen, was_told_to_stop=lambda: interrupt.asked)
    del (unreachable := [Finalized()])[:]
    assert dropped == [KeyboardInterrupt]
    assert not unreachable
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with asyncio.timeout(BOUND_S):
            await server.serve([sock])
    assert not server.node_died
