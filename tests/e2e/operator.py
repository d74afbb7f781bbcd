"""An operator at the dashboard in a real browser."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from server.domain.sign_in import SignIns
from server.http.auth import COOKIE
from tests import witness
from tests.conftest import TEST_API_KEY, TEST_SECRET
from tests.e2e.chromium import Tab
from tests.node_api import NodeApi
from tests.prerequisites import all_required
from tests.visitor import Visitor

CLIENT_JS = Path(__file__).parents[2] / "client_js"
AXE = CLIENT_JS / "node_modules" / "axe-core" / "axe.min.js"
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PATIENCE_S = 10.0
LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who has signed in to the dashboard of the server at `url`."""

    tab: Tab
    url: str

    @property
    def page(self) -> Page:
        """What they look at."""
        return self.tab.page

    async def text(self, selector: str) -> str:
        """What stands there, in one line; also where it is out of sight, and not painted."""
        return " ".join((await self.page.text_content(selector) or "").split())

    async def reads(self, selector: str, expected: str) -> None:
        """Wait until exactly this stands there."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.text(selector) != expected:  # noqa: ASYNC110 - nothing in the page tells us
                await asyncio.sleep(LOOK_EVERY_S)

    async def sees(self, selector: str, number: int) -> None:
        """Wait until there are so many of these."""
        await self.tab.until(f"document.querySelectorAll({selector!r}).length === {number}")

    async def users(self) -> list[str]:
        """The participants in the table, in its order."""
        return await self.page.locator("#rows .user").all_text_contents()

    async def lists(self, *users: str) -> None:
        """Wait until the table shows exactly these, in this order."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.users() != list(users):  # noqa: ASYNC110 - nothing in the page tells us
                await asyncio.sleep(LOOK_EVERY_S)

    async def asks(self, action: str, user: str, where: str = "#rows") -> None:
        """Press `Kick` or `Complete` of a participant: the dialog opens."""
        row = self.page.locator(f"{where} > *", has=self.page.get_by_text(user, exact=True))
        await row.locator(f"[data-action={action}]").click()
        await self.page.wait_for_selector("#confirm[open]")


async def sign_in(page: Page, key: str = TEST_API_KEY) -> None:
    """Fill in the form."""
    await page.fill("#api_key", key)
    await page.click("button[type=submit]")


async def operator(browser: Browser, url: str, *, query: str = "", **context: Any) -> Operator:  # noqa: ANN401
    """Somebody who has signed in before, once the dashboard is live. `context`: as Playwright takes it."""
    window = await browser.new_context(**context)
    value = SignIns([TEST_SECRET], [TEST_API_KEY]).issue(TEST_API_KEY, time.time())
    await window.add_cookies(
        [{"name": COOKIE, "value": value, "url": url, "httpOnly": True, "sameSite": "Strict"}]
    )
    tab = Tab(await window.new_page())
    await tab.page.goto(f"{url}/dashboard{query}")
    await tab.page.wait_for_selector("#connection[data-state=live]")
    await tab.page.wait_for_selector("#table[data-loaded]", state="attached")
    return Operator(tab, url)


@asynccontextmanager
async def study(url: str, *users: str) -> AsyncIterator[dict[str, Visitor]]:
    """Participants whose pages are connected, and who ask to enter one after the other."""
    languages = ("en", "de", "nl", "tr", "sq", "hi")
    async with NodeApi(url) as api:
        visitors: dict[str, Visitor] = {}
        try:
            for number, user in enumerate(users):
                place = {
                    "language_code": languages[number % 6],
                    "current_page": ("home", "learning")[number % 2],
                }
                opened = await api.open(user, **place)
                visitors[user] = await Visitor([ws_url(url)], opened).arrive()
                await visitors[user].say("enter")
                await visitors[user].until_state("granted", "waiting")
            yield visitors
        finally:
            for visitor in visitors.values():
                await visitor.vanish()


def ws_url(url: str) -> str:
    """Where pages connect."""
    return f"{url.replace('http', 'ws', 1)}/ws"


async def record(redis: Any, session_id: str) -> dict[str, str]:  # noqa: ANN401
    """A session's record in Redis."""
    return dict(await redis.hgetall(f"{witness.POOL}session:{session_id}"))


async def until_ended(redis: Any, session_id: str, reason: str) -> None:  # noqa: ANN401
    """Wait until the events tell of it."""
    async with asyncio.timeout(10):
        while not any(  # noqa: ASYNC110 - the event is on its way
            (each["type"], each.get("session_id")) == (reason, session_id)
            for each in await witness.events(redis)
        ):
            await asyncio.sleep(0.02)


async def violations(page: Page, *, in_both_themes: bool = False) -> list[str]:
    """What axe-core finds wrong with the page as it is: the rule, and where."""
    await page.evaluate(_axe())
    found: list[str] = []
    for theme in (*(("dark",) if in_both_themes else ()), "light"):
        await page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
        result = await page.evaluate("(tags) => axe.run({ runOnly: tags })", STANDARDS)
        nodes = [(rule["id"], node) for rule in result["violations"] for node in rule["nodes"]]
        found += [f"{theme}, {rule}: {node['target']} {node['failureSummary']}" for rule, node in nodes]
    return found


def _axe() -> str:
    if not AXE.exists():
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        try:
            subprocess.run(command, cwd=CLIENT_JS, check=True, capture_output=True, timeout=100)
        except (OSError, subprocess.SubprocessError) as error:
            sentence = f"axe-core could not be installed: {error}"
            if all_required():
                pytest.fail(sentence)
            pytest.skip(sentence)
    return AXE.read_text(encoding="utf-8")
