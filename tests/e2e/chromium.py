"""A real Chromium with the page life cycle of a user's: with back/forward cache and timer throttling."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from websockets.asyncio.client import connect

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
# What Playwright adds to a browser that it starts, and one that is started by ourselves needs too.
HEADLESS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--disable-dev-shm-usage",
    "--password-store=basic",
)
PATIENCE_S = 10.0
STARTS_WITHIN_S = 30.0
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


@dataclass(slots=True)
class BrowserProcess:
    """A Chromium started by ourselves, and the processes that it started."""

    main: subprocess.Popen[bytes]
    family: list[psutil.Process] = field(default_factory=list)

    def kill(self) -> None:
        """SIGKILL the browser; the others end by themselves then."""
        if self.main.poll() is None:
            self.family = psutil.Process(self.main.pid).children(recursive=True)
            self.main.kill()
            self.main.wait()

    def end(self) -> None:
        """Kill it and the others, and wait until none of them writes any more."""
        self.kill()
        for each in self.family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(self.family, timeout=PATIENCE_S)


@dataclass(frozen=True, slots=True)
class UsersChromium:
    """A Chromium that Playwright only looks at: tabs share a window, so that the one in front hides the others.

    In a browser of Playwright's own every page counts as visible and focused, whatever is in front.
    """

    process: BrowserProcess
    devtools: str
    context: BrowserContext

    async def open(self, url: str) -> Tab:
        """A tab in front, which shows `url`."""
        tab = Tab(await self.context.new_page())
        await tab.page.goto(url)
        return tab

    async def tell(self, page_url: str, method: str) -> None:
        """A DevTools command to the tab that shows `page_url`, past Playwright, which gives up a crashed one."""
        async with httpx.AsyncClient(trust_env=False) as http:
            targets = (await http.get(f"{self.devtools}/json")).json()
        (address,) = [each["webSocketDebuggerUrl"] for each in targets if each["url"] == page_url]
        async with connect(address, proxy=None) as socket:
            await socket.send(json.dumps({"id": 1, "method": method}))
            await socket.recv()


@contextmanager
def shared_chromium() -> Iterator[Path]:
    """A browser that outlives event loops, for the tests of a module; gives its profile, for `connected_to`."""
    with TemporaryDirectory(prefix="chromium-") as home, _started(Path(home), ()) as process:
        asyncio.run(_port(Path(home), process.main))
        yield Path(home)


@asynccontextmanager
async def connected_to(profile: Path) -> AsyncIterator[Browser]:
    """The shared browser. What is opened in contexts of its own is closed with the block."""
    port = (profile / "DevToolsActivePort").read_text().split()[0]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def users_chromium(*flags: str) -> AsyncIterator[UsersChromium]:
    """A browser with a fresh profile and these flags more; it ends with the block."""
    with TemporaryDirectory(prefix="chromium-") as home, _started(Path(home), flags) as process:
        devtools = f"http://127.0.0.1:{await _port(Path(home), process.main)}"
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(devtools, no_defaults=True)
            yield UsersChromium(process, devtools, browser.contexts[0])


@contextmanager
def _started(home: Path, flags: tuple[str, ...]) -> Iterator[BrowserProcess]:
    """Everything that it writes is in `home`, also what it would leave in the folder for temporary files."""
    command = [demand("chromium"), f"--user-data-dir={home}", *HEADLESS, *FLAGS, *flags, "about:blank"]
    quiet, environment = subprocess.DEVNULL, {**os.environ, "TMPDIR": str(home)}
    process = BrowserProcess(subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment))
    try:
        yield process
    finally:
        process.end()


async def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    """Where it can be reached; it writes that into its profile once it can."""
    file = profile / "DevToolsActivePort"
    async with asyncio.timeout(STARTS_WITHIN_S):
        while not (file.exists() and "\n" in file.read_text()):
            assert process.poll() is None, "Chromium did not start"
            await asyncio.sleep(LOOK_EVERY_S)
    return int(file.read_text().split()[0])


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
