"""The dashboard for everybody: signing in, with the keyboard, on a phone, in both themes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser

from tests import witness
from tests.conftest import TEST_API_KEY, Serve
from tests.e2e.chromium import Tab
from tests.e2e.operator import operator, sign_in, study, until_ended, violations

pytestmark = pytest.mark.browser

LEAST_TARGET_PX = 44
NARROW: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
Redis = Any  # redis-py's own types say less than nothing


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with witness.client(redis_url) as client:
        yield client


async def test_the_key_opens_the_page_without_javascript_and_is_nowhere_in_it(
    serve: Serve, browser: Browser
) -> None:
    server = await serve()
    plain = Tab(await (await browser.new_context(java_script_enabled=False)).new_page())
    await plain.page.goto(f"{server.url}/")
    await sign_in(plain.page, "not-the-key")
    assert await plain.page.inner_text("#problem") == "That is not an API key of this server."
    assert await plain.page.input_value("#api_key") == ""
    await sign_in(plain.page)
    assert plain.page.url == f"{server.url}/dashboard"
    assert "The dashboard needs JavaScript." in await plain.page.inner_text("body")

    lead = await operator(browser, server.url)
    await lead.page.context.clear_cookies()
    await lead.page.reload()
    await sign_in(lead.page)
    await lead.page.wait_for_selector("#connection[data-state=live]")
    kept = await lead.page.evaluate(
        "JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}])"
    )
    assert TEST_API_KEY not in kept + await lead.page.content()
    assert "presence_dashboard" not in kept
    assert lead.tab.complaints == []

    await lead.page.goto("data:text/html,<a id=link>to the dashboard</a>")
    await lead.page.eval_on_selector("#link", "(link, url) => (link.href = url)", f"{server.url}/dashboard")
    await lead.page.click("#link")
    await lead.page.wait_for_selector("#connection[data-state=live]")

    await lead.page.click("text=Sign out")
    await lead.page.wait_for_selector("#api_key")
    assert await lead.page.context.cookies() == []


async def test_who_is_no_longer_signed_in_is_led_to_the_form(serve: Serve, browser: Browser) -> None:
    server = await serve()
    lead = await operator(browser, server.url)
    await lead.page.context.clear_cookies()
    await lead.page.click("[data-mode=paused]")
    await lead.page.wait_for_selector("#api_key")
    await sign_in(lead.page)
    await lead.page.wait_for_selector("#connection[data-state=live]")


async def test_axe_finds_nothing_wrong_in_either_theme(serve: Serve, browser: Browser) -> None:
    server = await serve(max_concurrent=1, offer_s=60)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna", "bram", "cem") as people:
        await people["cem"].vanish()
        await lead.sees("#rows tr", 3)
        await lead.sees("#line li", 2)
        await lead.page.click("#more")
        assert await violations(lead.page, in_both_themes=True) == []
        await lead.asks("kick", "anna")
        assert await violations(lead.page, in_both_themes=True) == []
    await lead.page.context.clear_cookies()
    await lead.page.goto(f"{server.url}/dashboard")
    await sign_in(lead.page, "wrong")
    await lead.page.wait_for_selector("#problem")
    assert await violations(lead.page, in_both_themes=True) == []


async def test_on_a_phone_nothing_is_cut_off_or_too_small_to_touch(serve: Serve, browser: Browser) -> None:
    server = await serve(max_concurrent=1)
    lead = await operator(browser, server.url, **NARROW)
    async with study(server.url, "somebody-with-a-rather-long-name@university.example", "bram"):
        await lead.sees("#rows tr", 2)
        assert await lead.page.evaluate("document.documentElement.scrollWidth") <= 360
        small = await lead.page.evaluate(
            """(least) => [...document.querySelectorAll("button, input, select, summary, a:not(.skip)")]
              .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < least)
              .map((each) => each.outerHTML)""",
            LEAST_TARGET_PX,
        )
        assert small == []
        await lead.page.select_option("#sort-by", "user:asc")
        await lead.lists("bram", "somebody-with-a-rather-long-name@university.example")
        await lead.asks("kick", "bram")
        await lead.page.tap("#confirm-yes")
        await lead.sees("#rows tr", 1)
        assert await violations(lead.page) == []


async def test_everything_can_be_done_with_the_keyboard(serve: Serve, browser: Browser, redis: Redis) -> None:
    server = await serve(max_concurrent=1, offer_s=0)
    lead = await operator(browser, server.url)
    async with study(server.url, "anna") as people:
        await lead.sees("#rows tr", 1)
        await lead.page.keyboard.press("Tab")
        assert await lead.page.inner_text(":focus") == "Skip to the sessions"
        reached, wanted = [], "Kick anna"
        for _ in range(60):
            label = await lead.page.evaluate(
                "document.activeElement.ariaLabel ?? (document.activeElement.id || document.activeElement.textContent)"
            )
            reached.append(label)
            if label == wanted:
                break
            await lead.page.keyboard.press("Tab")
        assert {"pool", "new-limit", "Paused", "pause", "search", "by-state", "Participant"} <= set(reached)
        assert reached[-1] == wanted
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await lead.page.evaluate(outline) == "solid"
        await lead.page.keyboard.press("Enter")
        await lead.page.wait_for_selector("#confirm[open]")
        await lead.page.keyboard.press("Tab")
        await lead.page.keyboard.press("Enter")
        await until_ended(redis, people["anna"].session_id, "kicked")
