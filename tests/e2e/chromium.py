"""A real Chromium with the page life cycle of a user's: with back/forward cache and timer throttling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright

from tests.prerequisites import demand

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Playwright's own, which would hide what users' browsers do.
UNWANTED = (
    "--disable-back-forward-cache",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)
PATIENCE_S = 10.0
LOOK_EVERY_S = 0.02


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser with a fresh profile; it ends with the block."""
    path = demand("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=list(FLAGS), ignore_default_args=list(UNWANTED)
        )
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """One tab; whatever it throws or logs as an error is kept in `complaints`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)

    @classmethod
    async def open(cls, browser: Browser, url: str) -> Tab:
        """A tab in a window of its own, which shows `url`."""
        tab = cls(await browser.new_page())
        await tab.page.goto(url)
        return tab

    async def until(self, condition: str, within_s: float = PATIENCE_S) -> None:
        """Wait for a JavaScript expression. Playwright's own way needs `eval` in the page, which its policy forbids."""
        async with asyncio.timeout(within_s):
            while not await self.page.evaluate(condition):  # noqa: ASYNC110 - nothing in the page tells us
                await asyncio.sleep(LOOK_EVERY_S)
