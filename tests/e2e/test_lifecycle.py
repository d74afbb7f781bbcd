"""How a participant's tab lives and dies, in a real Chromium, and what the server sees of it and when."""

import time
from collections.abc import AsyncIterator

import pytest

from tests.browser import Network
from tests.conftest import Serve
from tests.e2e.chromium import UsersChromium, users_chromium
from tests.e2e.study import Participant, Study, study

pytestmark = pytest.mark.browser

ENTERED = ["session_started", "connected", "granted"]
LOST = [*ENTERED, "disconnected", "grace"]
BACK = [*LOST, "connected"]
# Milliseconds in fact. With the default pings of these tests, whoever only times out is noticed after 10 s at least.
AT_ONCE_S = 5.0
GRACE_S = 1.0
BLOCKED_S = 30.0
# The acknowledgement of the heartbeat that is sent just before has to wait behind the blocked page, as the rest.
BLOCK = """
(ms) => setTimeout(() => {
  window.blocked = false;
  dispatchEvent(new Event("online"));
  presence.setPage("before");
  for (const until = performance.now() + ms; performance.now() < until; );
  presence.setPage("after");
  window.blocked = true;
})
"""


@pytest.fixture
async def browser() -> AsyncIterator[UsersChromium]:
    async with users_chromium() as started:
        yield started


async def noticed_at_once(there: Study, anna: Participant, since: float) -> None:
    """The server knows by the connection that she left, and keeps her place for the grace."""
    event = await there.hears("disconnected", anna.session_id)
    noticed_s = int(event["at"]) / 1000 - since
    print(f"noticed after {noticed_s * 1000:.0f} ms, by {event.get('cause')}")
    assert noticed_s < AT_ONCE_S


async def gives_up_her_place(there: Study, anna: Participant, other: str) -> None:
    """She does not come back: she is offline, and her place is another's."""
    await there.hears("offline", anna.session_id)
    await there.hears("granted", other)
    seen = await there.seen(anna.session_id)
    assert (seen.is_online, seen.is_alive, seen.holds_place) == (False, False, False)
    assert (await there.seen(other)).holds_place


async def test_a_closed_tab_is_noticed_at_once_and_its_place_is_free_after_the_grace(
    serve: Serve, redis_url: str, browser: UsersChromium
) -> None:
    async with study(serve, redis_url, grace_s=GRACE_S, permit_grace_min_s=GRACE_S) as there:
        anna = await there.enter(browser)
        other = await there.queue_up("bram")
        assert await there.seen(anna.session_id) == anna.present
        closed_at = time.time()
        await anna.tab.page.close()
        await noticed_at_once(there, anna, closed_at)
        await gives_up_her_place(there, anna, other)
        assert await there.story(anna.session_id) in (
            [*LOST, "offline", "released"],
            [*LOST, "released", "offline"],
        )


async def test_a_reload_is_the_same_session_with_the_same_permit_and_never_offline(
    serve: Serve, redis_url: str, browser: UsersChromium
) -> None:
    async with study(serve, redis_url) as there:
        anna = await there.enter(browser)
        await anna.tab.page.reload()
        await anna.tab.until("window.presence?.state === 'online'")
        assert await anna.tab.page.evaluate("[standing.state, standing.fence]") == ["granted", anna.fence]
        assert await there.seen(anna.session_id) == anna.present
        assert await there.story(anna.session_id) == BACK
        assert await there.sessions() == {anna.session_id}
        assert anna.tab.complaints == []


async def test_a_page_left_by_a_link_is_noticed_at_once_and_returns_from_the_back_forward_cache(
    serve: Serve, redis_url: str, browser: UsersChromium
) -> None:
    async with study(serve, redis_url) as there:
        anna = await there.enter(browser)
        page = await anna.tab.page.evaluate("page")
        left_at = time.time()
        await anna.tab.page.click("a")
        await noticed_at_once(
            there, anna, left_at
        )  # the socket of a cached page would live on for ten minutes
        assert await there.seen(anna.session_id) == anna.in_grace
        await anna.tab.page.go_back(wait_until="commit")
        await anna.tab.until("window.presence?.state === 'online'")
        assert await anna.tab.page.evaluate("page") == page  # the very same, not a new one
        assert "restored" in await anna.tab.page.evaluate("heard")
        assert await there.seen(anna.session_id) == anna.present
        assert await there.story(anna.session_id) == BACK


async def test_a_crashed_tab_is_noticed_at_once_and_its_reload_keeps_the_permit(
    serve: Serve, redis_url: str, browser: UsersChromium
) -> None:
    async with study(serve, redis_url) as there:
        anna = await there.enter(browser)
        url, crashed_at = anna.tab.page.url, time.time()
        await browser.tell(url, "Page.crash")
        await noticed_at_once(there, anna, crashed_at)
        assert await there.seen(anna.session_id) == anna.in_grace
        await browser.tell(url, "Page.reload")
        await there.sees(anna.session_id, anna.present)
        assert await there.story(anna.session_id) == BACK


async def test_a_killed_browser_is_noticed_at_once_and_its_place_is_free_after_the_grace(
    serve: Serve, redis_url: str, browser: UsersChromium
) -> None:
    async with study(serve, redis_url, grace_s=GRACE_S, permit_grace_min_s=GRACE_S) as there:
        anna = await there.enter(browser)
        other = await there.queue_up("bram")
        killed_at = time.time()
        browser.process.kill()
        await noticed_at_once(there, anna, killed_at)
        await gives_up_her_place(there, anna, other)


async def test_a_network_that_is_silently_gone_is_noticed_on_both_sides_and_its_return_keeps_the_permit(
    serve: Serve, redis_url: str, browser: UsersChromium
) -> None:
    quick = {"ping_s": 1, "ping_timeout_s": 3, "heartbeat_s": 1, "grace_s": GRACE_S}
    async with study(serve, redis_url, **quick) as there, Network(*there.address).running() as network:
        anna = await there.enter(browser, through=f"http://127.0.0.1:{network.port}")
        network.cut()
        assert (await there.hears("disconnected", anna.session_id))["cause"] == "timeout"
        await there.hears("offline", anna.session_id)
        gone = await there.seen(anna.session_id)
        assert (gone.is_online, gone.is_alive, gone.holds_place) == (False, False, True)
        await anna.tab.until("presence.state === 'offline'", within_s=30)  # an answer is 10 s late
        network.restore()
        await anna.tab.until("presence.state === 'online'", within_s=30)
        assert await anna.tab.page.evaluate("[standing.state, standing.fence]") == ["granted", anna.fence]
        assert await there.seen(anna.session_id) == anna.present
        assert await there.story(anna.session_id) == [*LOST, "offline", "connected"]


@pytest.mark.timeout(180)
async def test_a_page_whose_script_is_blocked_for_30_s_stays_online_and_says_the_rest_afterwards(
    serve: Serve, redis_url: str, browser: UsersChromium
) -> None:
    """The browser answers pings without the page. An answer that took longer than 5 s would have ended it."""
    async with study(serve, redis_url, ping_s=2, ping_timeout_s=5) as there:
        anna = await there.enter(browser)
        async with there.watching(anna.session_id) as watch:
            await anna.tab.page.evaluate(BLOCK, BLOCKED_S * 1000)
            await anna.tab.until("window.blocked", within_s=BLOCKED_S + 30)
            await there.sees_page(anna.session_id, "after")
        assert (watch.gone, watch.looks >= 0.5 * BLOCKED_S / 0.2) == (0, True)
        assert await there.story(anna.session_id) == ENTERED
        assert await there.seen(anna.session_id) == anna.present
        assert await anna.tab.page.evaluate("heard.filter((name) => name === 'offline')") == []
