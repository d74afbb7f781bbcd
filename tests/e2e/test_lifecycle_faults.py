"""The browser client when something is in its way: another tab, a policy, a proxy, a node that dies or stops.

Real Chromium, real server processes; what the server sees is asserted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any, TypeVar

import pytest
from playwright.async_api import Browser, Page

from tests import witness
from tests.conftest import SpawnedServer, SpawnServer
from tests.e2e.chromium import Tab
from tests.e2e.proxies import SWALLOW, Front
from tests.node_api import Json, NodeApi
from tests.visitor import Visitor

pytestmark = pytest.mark.browser

FALLBACK_WITHIN_S = 10.0
BACK_WITHIN_S = 3.0
LOOK_EVERY_S = 0.02
PATIENCE_S = 20.0
Found = TypeVar("Found")
OFTEN = {"PRESENCE_HEARTBEAT_S": "0.5"}

# `socket` counts what the server says to this page, and `heard` has what the client makes of it.
CONNECT = """
async (token) => {
  const { connect } = await import("/client.js");
  window.heard = [];
  window.presence = connect({ url: location.origin, token, page: "interview" });
  for (const name of ["online", "offline", "fallback", "interview", "ended", "error"]) {
    presence.on(name, (detail) => heard.push([name, detail]));
  }
}
"""
COUNT_ACKS = """
window.acks = 0;
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({ data }) => (acks += JSON.parse(data).type === "ack"));
  }
};
"""
STANDING = "heard.findLast(([name]) => name === 'interview')?.[1]"
ENDED = "heard.findLast(([name]) => name === 'ended')?.[1]"
TEMPT = """
() => {
  window.dispatchEvent(new Event("online"));
  document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
}
"""
# Many participants in one page: each has a storage of its own, and tells when it was told to move and when it did.
CONNECT_MANY = """
async (tokens) => {
  const { connect } = await import("/client.js");
  const bound = (value) => (typeof value === "function" && /^[a-z]/.test(value.name) ? value.bind(window) : value);
  const world = (mine) => {
    const kept = new Map();
    const own = {
      sessionStorage: {
        getItem: (key) => kept.get(key) ?? null,
        setItem: (key, value) => kept.set(key, String(value)),
        removeItem: (key) => kept.delete(key),
      },
      WebSocket: class extends WebSocket {
        constructor(...given) {
          super(...given);
          mine.opened.push(performance.now());
          this.addEventListener("message", ({ data }) => {
            const { type, reconnect_in_ms } = JSON.parse(data);
            if (type === "drain") mine.told.push([performance.now(), reconnect_in_ms]);
          });
        }
      },
    };
    return new Proxy(window, { get: (target, name) => own[name] ?? bound(target[name]) });
  };
  window.crowd = tokens.map((token) => {
    const mine = { opened: [], told: [], heard: [] };
    mine.presence = connect({ url: location.origin, token, page: "interview" }, world(mine));
    for (const name of ["online", "offline", "fallback", "ended", "error"]) {
      mine.presence.on(name, () => mine.heard.push(name));
    }
    return mine;
  });
}
"""
ALL_ONLINE = "crowd.every(({ presence }) => presence.state === 'online')"
STORY = "crowd.map(({ opened, told, heard }) => ({ opened, told, heard }))"


class Participant:
    """Somebody with a session, who looks at its page through the front."""

    def __init__(self, page: Page, opened: Json) -> None:
        self.tab = Tab(page)
        self.page = page
        self.session_id: str = opened["session_id"]
        self.token: str = opened["token"]
        self.thrown: list[str] = []
        page.on("pageerror", lambda error: self.thrown.append(str(error)))

    async def show(self, url: str) -> None:
        """Open the page at `url`; the token of the session is given to the client as an app does."""
        await self.page.goto(url)
        await self.page.evaluate(CONNECT, self.token)

    async def until_state(self, state: str) -> None:
        """Wait until the client says so."""
        await self.tab.until(f"presence.state === '{state}'", within_s=PATIENCE_S)

    async def enter(self) -> int:
        """Ask for a place, and get it: its fence."""
        await self.page.evaluate("presence.enter()")
        await self.tab.until(f"{STANDING}?.state === 'granted'")
        return int((await self.standing())["fence"])

    async def standing(self) -> Json:
        """What the client was told last of its interview."""
        return dict(await self.page.evaluate(STANDING))

    async def end(self) -> Json:
        """What the client said of its end."""
        await self.tab.until(ENDED)
        return dict(await self.page.evaluate(ENDED))


class Stage:
    """Nodes, a front, and a browser."""

    def __init__(self, browser: Browser, redis: Any, stack: AsyncExitStack) -> None:  # noqa: ANN401
        self.browser = browser
        self.redis = redis
        self.servers: list[SpawnedServer] = []
        self.apis: list[NodeApi] = []
        self.front = Front()
        self._stack = stack

    async def set_up(self, servers: list[SpawnedServer]) -> None:
        """These are the nodes; the front takes everybody to the first."""
        self.servers = servers
        self.apis = [await self._stack.enter_async_context(NodeApi(server.url)) for server in servers]
        self.front.nodes = [server.url for server in servers]
        await self._stack.enter_async_context(self.front.running())

    async def participant(self, name: str) -> Participant:
        """Somebody with a browser window of their own, who has yet to open a page."""
        opened = await self.apis[-1].open(name, session_id=name)
        return Participant(await self.window(), opened)

    async def window(self) -> Page:
        """A tab in a profile of its own, which outlives it: a beacon is sent when the tab is closed already."""
        context = await self.browser.new_context()
        return await context.new_page()

    async def visitor(self, name: str) -> Visitor:
        """Somebody without a browser."""
        return await self._stack.enter_async_context(
            Visitor([self.servers[-1].ws_url], await self.apis[-1].open(name))
        )

    async def until_session(self, session_id: str, within_s: float = PATIENCE_S, **expected: object) -> Json:
        """Wait until the server shows the session like this."""
        seen: Json = {}

        async def look() -> bool:
            seen.update(await self.apis[-1].session(session_id))
            return expected.items() <= seen.items()

        try:
            await until(look, within_s)
        except TimeoutError:
            pytest.fail(f"not {expected} within {within_s:g} s, but {seen}")
        return seen

    async def until_event(self, kind: str, **expected: str) -> dict[str, str]:
        """Wait until this has happened."""
        return (await until(lambda: self.events(kind, **expected)))[-1]

    async def events(self, kind: str, **expected: str) -> list[dict[str, str]]:
        """What has happened of this kind."""
        wanted = {"type": kind, **expected}.items()
        return [event for event in await witness.events(self.redis) if wanted <= event.items()]

    async def record(self, session_id: str) -> dict[str, str]:
        """The session's record in Redis."""
        return dict(await self.redis.hgetall(f"{witness.POOL}session:{session_id}"))


SetUp = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def set_up(spawn_server: SpawnServer, redis_url: str, browser: Browser) -> AsyncIterator[SetUp]:
    """Start so many nodes with these settings, a front before them, and a browser."""
    async with AsyncExitStack() as stack:

        async def start(*, nodes: int = 1, **environment: str) -> Stage:
            redis = await stack.enter_async_context(witness.client(redis_url))
            stage = Stage(browser, redis, stack)
            await stage.set_up([spawn_server(PRESENCE_OFFER_S="0", **environment) for _ in range(nodes)])
            return stage

        yield start


async def until(look: Callable[[], Awaitable[Found]], within_s: float = PATIENCE_S) -> Found:
    """Look again and again, until something is found."""
    async with asyncio.timeout(within_s):
        while not (found := await look()):  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(LOOK_EVERY_S)
    return found


def now_ms() -> float:
    """The clock that events are dated by: Redis is on this machine."""
    return time.time() * 1000


class TestADuplicatedTab:
    async def test_the_session_goes_to_the_newer_tab_and_comes_back_with_continue_here(
        self, set_up: SetUp
    ) -> None:
        stage = await set_up(**OFTEN)
        older = await stage.participant("anna")
        await older.show(f"{stage.front.url}/page")
        fence = await older.enter()
        newer = await self.duplicate(older)
        await newer.until_state("online")
        assert await older.end() == {"code": 4409, "reason": "taken_over"}
        tabs = [event["tab"] for event in await stage.events("connected", session_id="anna")]
        assert len(set(tabs)) == len(tabs) == 2
        assert await self.tab_of_session(stage, fence) == tabs[1]

        await older.page.evaluate("presence.resume()")
        await older.until_state("online")
        assert await newer.end() == {"code": 4409, "reason": "taken_over"}
        assert await self.tab_of_session(stage, fence) == tabs[0]
        assert (await older.standing())["fence"] == fence
        assert len(await stage.events("connected")) == 3
        assert await stage.events("disconnected") == await stage.events("taken_over") == []
        assert older.thrown == newer.thrown == []

    async def duplicate(self, participant: Participant) -> Participant:
        """A tab with a copy of everything that the participant's has kept, as `window.open` makes it."""
        async with participant.page.expect_popup() as opening:
            await participant.page.evaluate("void window.open(location)")
        page = await opening.value
        newer = Participant(page, {"session_id": participant.session_id, "token": participant.token})
        await page.wait_for_load_state()
        assert await page.evaluate("sessionStorage.length") > 0
        await page.evaluate(CONNECT, participant.token)
        return newer

    async def tab_of_session(self, stage: Stage, fence: int) -> str:
        """Where the server sees it; it must be there with its permit."""
        seen = await stage.until_session("anna", online=True, connection="ws")
        assert (seen["interview"]["state"], seen["interview"]["fence"]) == ("granted", fence)
        return (await stage.record("anna"))["tab"]


class TestABlockedWebSocket:
    async def test_a_page_whose_policy_forbids_it_goes_on_over_http_with_its_session_and_permit(
        self, set_up: SetUp
    ) -> None:
        stage = await set_up(**OFTEN)
        anna = await stage.participant("anna")
        await anna.show(f"{stage.front.url}/page")
        fence = await anna.enter()
        handshakes = len(stage.front.handshakes)
        await self.goes_on_over_http(stage, anna, "/strict", fence)
        assert len(stage.front.handshakes) == handshakes
        await self.is_seen_all_the_time(stage)
        await anna.page.evaluate("presence.complete()")
        assert (await anna.end())["reason"] == "completed"
        await stage.until_event("completed", session_id="anna")
        assert await witness.holders(stage.redis) == set()
        assert anna.thrown == []

    @pytest.mark.parametrize(
        "refusal", [502, SWALLOW, *(pytest.param(status, marks=pytest.mark.soak) for status in (400, 403))]
    )
    async def test_behind_a_proxy_that_lets_none_through_it_goes_over_http_and_back_once_it_does(
        self, set_up: SetUp, refusal: int
    ) -> None:
        stage = await set_up(**OFTEN)
        anna = await stage.participant("anna")
        await anna.show(f"{stage.front.url}/page")
        fence = await anna.enter()
        stage.front.refuses = refusal
        await self.goes_on_over_http(stage, anna, "/page", fence)
        stage.front.refuses = None
        # As a browser says when it finds itself in another network; without it the client tries once a minute.
        await anna.page.evaluate("window.dispatchEvent(new Event('online'))")
        await anna.until_state("online")
        seen = await stage.until_session("anna", online=True, connection="ws")
        assert (seen["interview"]["state"], seen["interview"]["fence"]) == ("granted", fence)
        assert witness.replay(await witness.events(stage.redis)).grants == 1
        assert anna.thrown == []

    async def test_a_page_over_http_that_is_closed_frees_its_place_after_the_grace(
        self, set_up: SetUp
    ) -> None:
        short = {"PRESENCE_GRACE_S": "1", "PRESENCE_PERMIT_GRACE_MIN_S": "1", "PRESENCE_MAX_CONCURRENT": "1"}
        stage = await set_up(**short)
        anna, waiter = await stage.participant("anna"), await stage.visitor("bram")
        stage.front.refuses = 403
        await anna.show(f"{stage.front.url}/page")
        await anna.until_state("fallback")
        await anna.enter()
        await waiter.say("enter")
        await waiter.until_state("waiting")
        closed_at = now_ms()
        await anna.page.close()
        lost = await stage.until_event("disconnected", session_id="anna", cause="bye")
        await waiter.until_state("granted")
        (granted,) = await stage.events("granted", session_id=waiter.session_id)
        print(
            f"\nbye after {int(lost['at']) - closed_at:.0f} ms, next after {int(granted['at']) - closed_at:.0f} ms"
        )
        seen = await stage.until_session("anna", online=False)
        assert (seen["connection"], seen["is_in_interview"], seen["status"]) == (None, False, "active")

    async def goes_on_over_http(self, stage: Stage, participant: Participant, path: str, fence: int) -> None:
        """Within ten seconds of opening this page."""
        opened_at = now_ms()
        await participant.show(f"{stage.front.url}{path}")
        seen = await stage.until_session(
            participant.session_id, within_s=FALLBACK_WITHIN_S, online=True, connection="http"
        )
        assert (seen["interview"]["state"], seen["interview"]["fence"]) == ("granted", fence)
        (*_, connected) = await stage.events("connected", session_id=participant.session_id)
        print(f"\nover HTTP after {int(connected['at']) - opened_at:.0f} ms")
        await participant.until_state("fallback")
        assert (await participant.standing())["fence"] == fence

    async def is_seen_all_the_time(self, stage: Stage) -> None:
        """The server hears of it again and again, and never lost it."""
        seen = {(await stage.apis[0].session("anna"))["last_seen"]}

        async def look() -> bool:
            seen.add((await stage.apis[0].session("anna"))["last_seen"])
            return len(seen) > 4

        await until(look)
        assert await stage.events("offline") == []


class TestANodeThatIsKilled:
    async def test_its_pages_are_back_on_the_other_node_within_three_seconds_with_permit_and_fence(
        self, set_up: SetUp
    ) -> None:
        stage = await set_up(nodes=2, PRESENCE_MAX_CONCURRENT="3")
        people = [await stage.participant(f"user-{n}") for n in range(3)]
        for one in people:
            await one.show(f"{stage.front.url}/page")
        fences = {one.session_id: await one.enter() for one in people}
        nodes = {(await stage.record(one.session_id))["node"] for one in people}

        killed_at = now_ms()
        stage.servers[0].kill()
        for one in people:
            await one.tab.until("heard.filter(([name]) => name === 'online').length === 2")
            assert (await one.standing())["fence"] == fences[one.session_id]
            assert (await stage.record(one.session_id))["node"] not in nodes
            seen = await stage.until_session(one.session_id, online=True, connection="ws")
            assert seen["interview"]["fence"] == fences[one.session_id]
            assert one.thrown == []
        back = [int(event["at"]) - killed_at for event in (await stage.events("connected"))[len(people) :]]
        print(f"\nback after {[round(ms) for ms in back]} ms")
        assert len(back) == len(people)
        assert max(back) < BACK_WITHIN_S * 1000
        assert await stage.events("offline") == []
        assert witness.replay(await witness.events(stage.redis)).holders == fences


class TestClosesThatStayAway:
    async def test_a_page_whose_session_is_in_another_tab_makes_no_further_attempt(
        self, set_up: SetUp
    ) -> None:
        stage = await set_up(**OFTEN)
        first = await stage.participant("anna")
        await first.show(f"{stage.front.url}/page")
        fence = await first.enter()
        second = Participant(
            await stage.window(), {"session_id": "anna", "token": first.token}
        )  # of another window, which shares nothing with the first
        await self.shows_and_counts(second, stage)
        assert await first.end() == {"code": 4409, "reason": "taken_over"}
        await self.stays_away(first, stage, meanwhile=second)
        assert (await stage.until_session("anna", connection="ws"))["interview"]["fence"] == fence
        assert len(await stage.events("connected", session_id="anna")) == 2

    async def test_a_page_whose_session_has_ended_makes_no_further_attempt(self, set_up: SetUp) -> None:
        stage = await set_up(**OFTEN)
        kicked, other = await stage.participant("anna"), await stage.participant("bram")
        await kicked.show(f"{stage.front.url}/page")
        await kicked.until_state("online")
        await self.shows_and_counts(other, stage)
        assert (await stage.apis[0].kick("anna")).status_code == 200
        assert await kicked.end() == {"code": 4410, "reason": "kicked"}
        await self.stays_away(kicked, stage, meanwhile=other)
        assert len(await stage.events("connected", session_id="anna")) == 1

    async def shows_and_counts(self, participant: Participant, stage: Stage) -> None:
        """Open the page of one whose heartbeats are counted."""
        await participant.page.add_init_script(COUNT_ACKS)
        await participant.show(f"{stage.front.url}/page")
        await participant.until_state("online")

    async def stays_away(self, away: Participant, stage: Stage, *, meanwhile: Participant) -> None:
        """No handshake and no request of `away` in the time of ten heartbeats, whatever happens to its page."""
        handshakes, requests = len(stage.front.handshakes), []
        away.page.on("request", lambda request: requests.append(request.url))
        await away.page.evaluate(TEMPT)
        acks = await meanwhile.page.evaluate("acks")
        await meanwhile.tab.until(f"acks >= {acks + 10}", within_s=PATIENCE_S)
        assert (len(stage.front.handshakes), requests) == (handshakes, [])
        assert await away.page.evaluate("presence.state") == "ended"
        assert away.thrown == meanwhile.thrown == []


class TestADrain:
    """200 clients: `connect()` of the real client.js in twenty pages of Chromium, ten in each.

    Each has a session and a storage of its own; all else, sockets and timers, is the browser's. With more than some
    ten handshakes under way in one page Chromium holds back the others for seconds, so ten are what a page can do.
    """

    PAGES, IN_EACH = 20, 10

    async def test_it_moves_two_hundred_clients_over_the_time_that_it_names_and_loses_none(
        self, set_up: SetUp
    ) -> None:
        stage = await set_up(nodes=2, PRESENCE_MAX_CONCURRENT="5")
        pages, sessions = await self.crowd(stage)
        fences = {one: await self.fence_of_claim(stage, one) for one in sessions[:5]}
        stage.front.nodes = [stage.servers[1].url]
        before, drained_at = len(await witness.events(stage.redis)), now_ms()
        assert await asyncio.to_thread(stage.servers[0].stop) == 0

        for page in pages:
            await page.until(ALL_ONLINE, within_s=PATIENCE_S)
        stories = [one for page in pages for one in await page.page.evaluate(STORY)]
        since = (await witness.events(stage.redis))[before:]
        self.assert_each_moved_when_it_was_told(stories)
        self.assert_spread(dict(zip(sessions, stories, strict=True)), since, drained_at)
        assert [event for event in since if event["type"] in ("offline", "released")] == []
        assert witness.replay(await witness.events(stage.redis)).holders == fences
        here = await stage.apis[1].ask("GET", f"/v1/sessions?online=true&limit={len(sessions)}")
        assert {one["session_id"] for one in here["sessions"]} == set(sessions)
        assert {one["connection"] for one in here["sessions"]} == {"ws"}

    async def crowd(self, stage: Stage) -> tuple[list[Tab], list[str]]:
        """The pages, and the sessions in the order of the clients in them."""
        opened = [await stage.apis[0].open(f"user-{n}") for n in range(self.PAGES * self.IN_EACH)]
        tokens = iter([one["token"] for one in opened])
        pages = [await Tab.open(stage.browser, f"{stage.front.url}/page") for _ in range(self.PAGES)]
        for page in pages:
            await page.page.evaluate(CONNECT_MANY, list(islice(tokens, self.IN_EACH)))
            await page.until(ALL_ONLINE, within_s=PATIENCE_S)
        return pages, [one["session_id"] for one in opened]

    async def fence_of_claim(self, stage: Stage, session_id: str) -> int:
        claimed = await stage.apis[0].claim(session_id)
        return int(claimed.json()["fence"])

    def assert_each_moved_when_it_was_told(self, stories: list[Json]) -> None:
        for one in stories:
            ((told_at, in_ms),) = one["told"]
            assert one["opened"][1] - told_at >= in_ms - 1
        # With 200 pages' worth of work at once on a busy machine some may find the old socket closed before the new
        # one is up; the server keeps their session all the same.
        without_a_gap = [one for one in stories if one["heard"] == ["online"]]
        assert len(without_a_gap) > len(stories) / 2, [one["heard"] for one in stories]

    def assert_spread(self, stories: dict[str, Json], since: list[dict[str, str]], drained_at: float) -> None:
        """By the clock of Redis, when each came to the other node."""
        named = {one: story["told"][0][1] for one, story in stories.items()}
        came = {
            event["session_id"]: int(event["at"]) - drained_at
            for event in since
            if event["type"] == "connected"
        }
        assert came.keys() == named.keys()
        # Nobody before the named time; how long after it is a matter of how busy this machine is.
        assert all(came[one] >= named[one] - 1 for one in named)
        longest, first, last = max(named.values()), min(came.values()), max(came.values())
        thirds = Counter(min(2, 3 * in_ms // longest) for in_ms in named.values())
        print(
            f"\nnamed up to {longest} ms, by thirds {sorted(thirds.items())}; came after {first:.0f}-{last:.0f} ms"
        )
        assert all(thirds[third] > len(named) / 6 for third in range(3))
        assert last - first > longest / 2
