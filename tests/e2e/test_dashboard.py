"""The dashboard in a real browser: what a study lead sees, and what each action does in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser

from server.cli.listening import LOOPBACK, listen
from server.embedded import EmbeddedRedis
from tests import witness
from tests.conftest import TEST_API_KEY, Serve, SpawnServer
from tests.e2e.chromium import Tab
from tests.e2e.operator import operator, record, study, until_ended
from tests.node_api import NodeApi

pytestmark = pytest.mark.browser

Redis = Any  # redis-py's own types say less than nothing
EXPECTED_WHEN_AWAY = ("Failed to load resource", "net::ERR")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with witness.client(redis_url) as client:
        yield client


def surprises(tab: Tab) -> list[str]:
    """What the page complained of, but for requests that were refused or not answered."""
    return [each for each in tab.complaints if not each.startswith(EXPECTED_WHEN_AWAY)]


async def test_it_shows_who_is_in_and_for_how_long_and_who_waits(serve: Serve, browser: Browser) -> None:
    server = await serve(max_concurrent=2, offer_s=60)
    lead = await operator(browser, server.url)
    assert await lead.text("#inside-count") == "0"
    async with study(server.url, "anna", "bram", "cem", "drita") as people:
        await lead.reads("#gauge .count", "2 of 2")
        await lead.reads("#waiting", "2")
        await lead.reads("#online", "4")
        await lead.sees("#inside li", 2)
        await lead.sees("#line li", 2)
        assert await lead.page.locator("#inside .user").all_text_contents() == ["anna", "bram"]
        assert await lead.page.locator("#line .user").all_text_contents() == ["cem", "drita"]
        assert await lead.text("#line li:first-child .number") == "1"
        assert await lead.text("#inside li:first-child .details") == "home · English"
        assert await lead.page.get_attribute("#gauge", "aria-valuetext") == "2 of 2 taken"
        before = await lead.text("#inside li:first-child .since")
        await lead.tab.until(f"document.querySelector('#inside .since').textContent > {before!r}")

        people["cem"].visible = False
        await people["cem"].say("visible", visible=False)
        await people["anna"].say("complete")
        await lead.page.get_by_text("has an offer").wait_for()
        await lead.reads("#gauge-note", "1 offered")
        await lead.lists("drita", "cem", "bram")
        await lead.reads("#rows tr:first-child .more-state", "number 2")
        await lead.page.get_by_text("cem was offered a place").wait_for()
        await people["cem"].say("accept")
        await lead.reads("#rows tr:first-child .more-state", "number 1")
        await people["bram"].vanish()
        await lead.page.locator("#inside .away").wait_for()
    assert lead.tab.complaints == []


async def test_a_larger_limit_lets_the_next_one_in_and_says_so_before(
    serve: Serve, browser: Browser, redis: Redis
) -> None:
    server = await serve(max_concurrent=1, offer_s=0)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna", "bram", "cem") as people:
        await lead.reads("#waiting", "2")
        assert await lead.page.is_disabled("#set-limit")
        await lead.page.click("#more")
        assert await lead.text("#limit-preview") == "Lets 1 of the 2 waiting in at once, if they are ready."
        await lead.page.click("#set-limit")
        await people["bram"].until_state("granted")
        await lead.reads("#gauge .count", "2 of 2")
        await lead.reads("#feedback", "The limit is set to 2.")
        await lead.reads("#announcer", "The limit is 2 now.")
        assert await redis.hget(f"{witness.POOL}config", "limit") == "2"
        assert [each.get("actor") for each in await witness.events(redis)].count("dashboard") == 1

        await lead.page.fill("#new-limit", "0")
        assert "Nobody is thrown out" in await lead.text("#limit-preview")
        await lead.page.press("#new-limit", "Enter")
        await lead.reads("#gauge .count", "2 of 0")
        assert "2 over the limit" in await lead.text("#gauge-note")
        assert await witness.holders(redis) == {people["anna"].session_id, people["bram"].session_id}


async def test_what_somebody_else_sets_is_shown_but_never_typed_over(serve: Serve, browser: Browser) -> None:
    server = await serve(max_concurrent=1)
    lead = await operator(browser, server.url)
    async with NodeApi(server.url) as api:
        await api.configure(limit=4)
        await lead.tab.until("document.getElementById('new-limit').value === '4'")
        await lead.page.fill("#new-limit", "7")
        await api.configure(limit=5)
        await lead.reads("#gauge .count", "0 of 5")
        assert await lead.page.input_value("#new-limit") == "7"
        for nonsense in ("", "-1", "1e3", "100001"):
            await lead.page.fill("#new-limit", nonsense)
            assert await lead.page.is_disabled("#set-limit"), nonsense


async def test_a_pool_is_paused_closed_and_opened_again(serve: Serve, browser: Browser, redis: Redis) -> None:
    server = await serve(max_concurrent=1, offer_s=0)
    lead = await operator(browser, server.url)
    for mode, note in (("paused", "the line grows"), ("closed", "nobody may join"), ("open", "may enter")):
        await lead.page.click(f"[data-mode={mode}]")
        await lead.page.wait_for_selector(f"[data-mode={mode}][aria-pressed=true]")
        assert await redis.hget(f"{witness.POOL}config", "mode") == mode
        assert note in await lead.text("#mode-note")
        await lead.reads("#announcer", f"The pool is {mode} now.")


async def test_kick_asks_first_then_throws_out_at_once(serve: Serve, browser: Browser, redis: Redis) -> None:
    server = await serve(max_concurrent=1, offer_s=0)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna", "bram") as people:
        await lead.lists("bram", "anna")
        anna = people["anna"].session_id
        await lead.asks("kick", "anna")
        assert await lead.text("#confirm-title") == "Kick this session?"
        assert anna in await lead.text("#confirm-who")
        assert await lead.page.evaluate("document.activeElement.id") == "confirm-no"
        await lead.page.keyboard.press("Escape")
        assert await lead.page.get_attribute(":focus", "aria-label") == "Kick anna"
        assert (await record(redis, anna))["status"] == "active"

        await lead.asks("kick", "anna")
        await lead.page.click("#confirm-yes")
        await people["anna"].until(lambda: people["anna"].ended)
        assert people["anna"].closes == [4410]
        await people["bram"].until_state("granted")
        await until_ended(redis, anna, "kicked")
        await lead.reads("#toast-text", "anna is kicked.")
        await lead.lists("bram")
        assert await lead.page.evaluate("document.activeElement.id") == "sessions"
        assert await witness.holders(redis) == {people["bram"].session_id}
    assert lead.tab.complaints == []


async def test_complete_ends_an_interview_and_what_fails_is_said_where_it_was_asked(
    serve: Serve, browser: Browser, redis: Redis
) -> None:
    server = await serve(max_concurrent=2, offer_s=0)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna", "bram") as people, NodeApi(server.url) as api:
        await lead.sees("#inside li", 2)
        await lead.asks("complete", "anna", "#inside")
        await lead.page.click("#confirm-yes")
        await until_ended(redis, people["anna"].session_id, "completed")
        await lead.sees("#inside li", 1)

        await lead.asks("complete", "bram", "#inside")
        await api.kick(people["bram"].session_id)
        await lead.sees("#inside li", 0)
        await lead.page.click("#confirm-yes")
        await lead.page.wait_for_selector("#confirm-problem:not([hidden])")
        assert "ended" in await lead.text("#confirm-problem")
        await lead.page.click("#confirm-no")
        await lead.page.select_option("#by-state", "ended")
        await lead.lists("bram", "anna")
        assert await lead.text("#rows tr:first-child .more-state") == "kicked"
    assert surprises(lead.tab) == []


async def test_the_table_is_searched_filtered_and_sorted(serve: Serve, browser: Browser) -> None:
    server = await serve(max_concurrent=1)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna", "bram", "cem") as people, NodeApi(server.url) as api:
        await lead.lists("cem", "bram", "anna")
        await lead.page.click("th[data-sort=user] button")
        await lead.lists("anna", "bram", "cem")
        await lead.page.click("th[data-sort=user] button")
        await lead.lists("cem", "bram", "anna")
        assert await lead.page.get_attribute("th[data-sort=user]", "aria-sort") == "descending"
        assert await lead.page.get_attribute("th[data-sort=started]", "aria-sort") is None

        await lead.page.fill("#search", "german learning")
        await lead.lists("bram")
        assert await lead.text("#shown") == "1 of 3 sessions"
        await lead.reads("#announcer", "1 session shown.")
        await lead.page.click("#clear")
        await lead.page.select_option("#by-state", "waiting")
        await lead.lists("cem", "bram")
        await lead.page.select_option("#by-page", "home")
        await lead.lists("cem")
        await lead.page.select_option("#by-language", "de")
        await lead.lists()
        assert "No session fits" in await lead.text("#no-rows")
        await lead.page.click("#clear")

        hostile = '<img src=x onerror="document.title=1">'
        await people["anna"].say("page", page=hostile)
        await lead.page.get_by_role("cell", name=hostile).wait_for()
        await lead.page.select_option("#by-page", hostile)
        await lead.lists("anna")
        assert await lead.page.locator("main img").count() == 0
        await api.open("zoe", language_code="xx-YY", current_page="")
    assert lead.tab.complaints == []


async def test_events_can_be_held_still_and_chosen_by_kind(serve: Serve, browser: Browser) -> None:
    server = await serve(max_concurrent=5)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna"):
        await lead.page.get_by_text("anna is in the interview").wait_for()
        await lead.page.click("#pause")
        async with study(server.url, "bram"):
            await lead.reads("#gauge .count", "2 of 5")
            await lead.tab.until("document.getElementById('pause').textContent.startsWith('Go on (')")
            assert await lead.page.get_by_text("bram is in the interview").count() == 0
            await lead.page.click("#pause")
            await lead.page.get_by_text("bram is in the interview").wait_for()
            await lead.page.select_option("#event-kind", "interview")
            await lead.sees("#events li:not([data-kind=interview])", 0)
            assert await lead.page.locator("#events time").first.get_attribute("title")


async def test_two_pools_never_mix(serve: Serve, browser: Browser, redis: Redis) -> None:
    server = await serve(max_concurrent=1)
    async with NodeApi(server.url) as api:
        await api.ask("PUT", "/v1/pools/lab", {"limit": 9})
        await api.open("anna")
        await api.ask("POST", "/v1/sessions?pool=lab", {"user_id": "zoe"})
        lead = await operator(browser, server.url)
        await lead.lists("anna")
        await lead.page.select_option("#pool", "lab")
        await lead.lists("zoe")
        await lead.reads("#gauge .count", "0 of 9")
        await api.open("bram")
        await lead.page.fill("#new-limit", "8")
        await lead.page.click("#set-limit")
        await lead.reads("#gauge .count", "0 of 8")
        assert await redis.hget("presence:{lab}:config", "limit") == "8"
        assert await redis.hget(f"{witness.POOL}config", "limit") == "1"
        assert await lead.users() == ["zoe"]
        assert "pool=lab" in lead.page.url
        await lead.asks("kick", "zoe")
        await lead.page.click("#confirm-yes")
        await lead.lists()

        await lead.page.reload()
        await lead.reads("#gauge .count", "0 of 8")
        assert await lead.page.input_value("#pool") == "lab"
        await lead.page.goto(f"{server.url}/dashboard?pool=nowhere")
        await lead.page.get_by_text("There is no pool named").first.wait_for()
        assert await lead.text("#connection") == "Stopped"


async def test_it_goes_on_after_the_server_was_killed_and_started_again(
    spawn_server: SpawnServer, browser: Browser
) -> None:
    with listen(LOOPBACK, 0) as free:
        port = str(free.getsockname()[1])
    environment = {"PRESENCE_PORT": port, "PRESENCE_MAX_CONCURRENT": "2"}
    server = await asyncio.to_thread(spawn_server, **environment)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna", "bram") as people:
        await lead.sees("#inside li", 2)
        await asyncio.to_thread(server.kill)
        await lead.page.wait_for_selector("#connection[data-state=reconnecting]")
        await lead.page.get_by_text("The server does not answer.").wait_for()
        await lead.page.click("[data-mode=paused]")
        await lead.page.get_by_text("The server does not answer. Check").first.wait_for()
        other = await asyncio.to_thread(spawn_server, **environment)
        await lead.page.wait_for_selector("#connection[data-state=live]")
        await lead.page.wait_for_selector("#banner", state="hidden")
        async with NodeApi(other.url) as api:
            await api.open("cem")
            await lead.lists("cem", "bram", "anna")
            await api.complete(people["anna"].session_id)
        await lead.sees("#inside li", 1)
        await lead.page.get_by_text("anna has completed").wait_for()
    assert surprises(lead.tab) == []
    assert TEST_API_KEY not in server.log.read_text(encoding="utf-8")


async def test_it_says_when_redis_is_away_and_reads_anew_when_it_is_back(
    serve: Serve, browser: Browser, own_redis: EmbeddedRedis
) -> None:
    server = await serve(redis_url=own_redis.url, max_concurrent=2)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna"):
        await lead.sees("#inside li", 1)
        await asyncio.to_thread(own_redis.stop)
        await lead.page.evaluate(
            "document.dispatchEvent(new Event('visibilitychange'))"
        )  # as who looks again
        await lead.page.get_by_text("Redis is away: nobody can be let in").wait_for()
        await lead.page.click("[data-mode=paused]")
        await lead.page.wait_for_selector("#feedback.problem")
        await asyncio.to_thread(own_redis.restart)
        await lead.page.wait_for_selector("#banner", state="hidden", timeout=20_000)
        await lead.sees("#inside li", 1)
        await lead.reads("#gauge .count", "1 of 2")
    assert surprises(lead.tab) == []
