"""A study with participants in a real browser, and what the server tells and keeps about each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests import witness
from tests.conftest import Serve, ServedNode
from tests.e2e.app_page import AppPage, app_page
from tests.e2e.chromium import Tab
from tests.node_api import Json, NodeApi

PATIENCE_S = 15.0
LOOK_EVERY_S = 0.02


class OpensTabs(Protocol):
    """A browser."""

    async def open(self, url: str) -> Tab: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One session: as the API shows it, and whether it stands in the keys of Redis that operators read."""

    is_online: bool
    connection: str | None
    state: str
    fence: int | None
    is_alive: bool
    holds_place: bool


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in the interview."""

    session_id: str
    fence: int
    tab: Tab

    @property
    def present(self) -> Seen:
        """How the server sees them while they are there."""
        return Seen(True, "ws", "granted", self.fence, is_alive=True, holds_place=True)

    @property
    def in_grace(self) -> Seen:
        """Just after they left without a word."""
        return Seen(True, None, "granted", self.fence, is_alive=True, holds_place=True)


@dataclass(slots=True)
class Watch:
    """What a session's TTL key was while somebody looked."""

    looks: int = 0
    gone: int = 0
    lowest_ttl_ms: int = field(default=1_000_000)

    def take(self, ttl_ms: int) -> None:
        """`ttl_ms` as Redis gives it: negative without a key."""
        self.looks += 1
        self.gone += ttl_ms <= 0
        self.lowest_ttl_ms = min(self.lowest_ttl_ms, ttl_ms)


@dataclass(frozen=True, slots=True)
class Study:
    """A presence server, and the app that its participants have open."""

    server: ServedNode
    app: AppPage
    api: NodeApi
    redis: Any

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        host, _, port = self.server.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    async def enter(self, browser: OpensTabs, through: str | None = None) -> Participant:
        """Anna opens the app, and is let into the interview. `through`: the server's address, if not its own."""
        opened = await self.api.open("anna")
        tab = await browser.open(self.app.interview(through or self.server.url, opened["token"]))
        await tab.until("window.presence?.state === 'online'")
        await tab.page.evaluate("presence.enter()")
        await tab.until("standing.state === 'granted'")
        fence = await tab.page.evaluate("standing.fence")
        return Participant(opened["session_id"], fence, tab)

    async def queue_up(self, user_id: str) -> str:
        """Somebody else's session, which waits in line."""
        opened: Json = await self.api.open(user_id)
        await self.api.claim(opened["session_id"])
        return str(opened["session_id"])

    async def seen(self, session_id: str) -> Seen:
        """How the session stands now."""
        told = await self.api.session(session_id)
        return Seen(
            is_online=told["online"],
            connection=told["connection"],
            state=told["interview"]["state"],
            fence=told["interview"].get("fence"),
            is_alive=await self.redis.pttl(f"{witness.POOL}alive:{session_id}") > 0,
            holds_place=session_id in await witness.holders(self.redis),
        )

    async def sessions(self) -> set[str]:
        """The ids of all sessions that Anna ever had."""
        answer = await self.api.ask("GET", "/v1/sessions?user_id=anna")
        return {each["session_id"] for each in answer["sessions"]}

    async def story(self, session_id: str) -> list[str]:
        """The types of the events of this session, but not where it went in the app."""
        stream = [each for each in await witness.events(self.redis) if each.get("session_id") == session_id]
        return [each["type"] for each in stream if each["type"] != "page"]

    async def hears(self, kind: str, session_id: str) -> dict[str, str]:
        """The first event of this type, once it is there."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in await witness.events(self.redis):
                    if (event["type"], event.get("session_id")) == (kind, session_id):
                        return event
                await asyncio.sleep(LOOK_EVERY_S)

    async def sees(self, session_id: str, expected: Seen) -> None:
        """Wait until the session stands so."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.seen(session_id) != expected:  # noqa: ASYNC110 - it is on its way
                await asyncio.sleep(LOOK_EVERY_S)

    async def sees_page(self, session_id: str, page: str) -> None:
        """Wait until the server was told that the participant is on this page."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.api.session(session_id))["current_page"] != page:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(LOOK_EVERY_S)

    @asynccontextmanager
    async def watching(self, session_id: str, pause_s: float = 0.2) -> AsyncIterator[Watch]:
        """Look at the session's TTL key again and again."""
        watch, over = Watch(), asyncio.Event()

        async def run() -> None:
            while not over.is_set():
                watch.take(await self.redis.pttl(f"{witness.POOL}alive:{session_id}"))
                await asyncio.sleep(pause_s)

        task = asyncio.create_task(run(), name="watch")
        try:
            yield watch
        finally:
            over.set()
            await task


@asynccontextmanager
async def study(serve: Serve, redis_url: str, **settings: float) -> AsyncIterator[Study]:
    """A study with one place, and a server with these settings."""
    async with app_page() as app, witness.client(redis_url) as redis:
        server = await serve(max_concurrent=1, offer_s=0, allowed_origins=app.origin, **settings)  # type: ignore[arg-type] # none is `demo`
        async with NodeApi(server.url) as api:
            yield Study(server, app, api, redis)
