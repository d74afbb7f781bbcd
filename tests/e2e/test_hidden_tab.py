"""A tab behind another one, whose timers the browser throttles: the fault that the old system had."""

import asyncio
from itertools import pairwise

import pytest

from tests.conftest import Serve
from tests.e2e.chromium import UsersChromium, users_chromium
from tests.e2e.study import Participant, Study, study

pytestmark = pytest.mark.browser

ENTERED = ["session_started", "connected", "granted"]
# Chromium lets the timers of a page wake once a minute when it has been hidden for five; here, after five seconds.
SOON = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/5"
COUNT = """
() => {
  window.ticks = [performance.now()];
  window.looks = [document.visibilityState];
  setInterval(() => ticks.push(performance.now()), 1000);
  document.addEventListener("visibilitychange", () => looks.push(document.visibilityState));
}
"""


async def hide(browser: UsersChromium, anna: Participant) -> None:
    """Another tab comes to the front of the same window."""
    await browser.open("about:blank")
    await anna.tab.until("document.visibilityState === 'hidden'")


async def longest_silence_s(anna: Participant) -> float:
    """For how long no timer of the page ran, though one is due each second."""
    ticks = await anna.tab.page.evaluate("[...ticks, performance.now()]")
    print(f"{len(ticks)} ticks, the last at {[round(tick / 1000, 1) for tick in ticks[-5:]]} s")
    return float(max(later - earlier for earlier, later in pairwise(ticks)) / 1000)


async def stays_present(there: Study, anna: Participant, hidden_s: float) -> None:
    """While it is hidden, the server never thinks for a moment that she has left."""
    async with there.watching(anna.session_id) as watch:
        await asyncio.sleep(hidden_s)
    print(f"{watch.looks} looks; the TTL was never under {watch.lowest_ttl_ms} ms")
    assert (watch.gone, watch.looks > hidden_s) == (0, True)
    assert await there.story(anna.session_id) == ENTERED
    assert await there.seen(anna.session_id) == anna.present


async def is_hidden_without_one_flap(
    there: Study, browser: UsersChromium, hidden_s: float, silence_s: float
) -> None:
    """Anna's tab is hidden for `hidden_s`; its timers sleep for `silence_s` in a row, or nothing is shown."""
    anna = await there.enter(browser)
    await anna.tab.page.evaluate(COUNT)
    await hide(browser, anna)
    await stays_present(there, anna, hidden_s)
    assert await longest_silence_s(anna) > silence_s
    assert await anna.tab.page.evaluate("looks") == ["visible", "hidden"]
    assert (await there.api.session(anna.session_id))["visible"] is False
    assert "offline" not in await anna.tab.page.evaluate("heard")
    await anna.tab.page.bring_to_front()
    await anna.tab.until("document.visibilityState === 'visible' && presence.state === 'online'")
    assert await there.story(anna.session_id) == ENTERED


@pytest.mark.timeout(240)
async def test_a_hidden_tab_with_throttled_timers_stays_online_without_one_flap(
    serve: Serve, redis_url: str
) -> None:
    """Shows that a page stays online whose timers sleep for longer than every window of the server: 10 to 25 s.

    The browser's minutes go by its own clock: in the 70 s of them that are left some timer sleeps for 30 s at least.
    """
    windows = {"heartbeat_s": 10, "online_window_s": 25}
    async with study(serve, redis_url, **windows) as there, users_chromium(SOON) as browser:
        await is_hidden_without_one_flap(there, browser, hidden_s=75, silence_s=25)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_tab_hidden_for_seven_minutes_stays_online_without_one_flap(
    serve: Serve, redis_url: str
) -> None:
    """Shows the same with all settings as they are by themselves, the browser's and the server's.

    After five minutes the timers sleep for the whole minute that was the old system's window.
    """
    async with study(serve, redis_url) as there, users_chromium() as browser:
        await is_hidden_without_one_flap(there, browser, hidden_s=430, silence_s=59)
