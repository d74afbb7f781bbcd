"""A Streamlit app as a process of its own, and how participants use it in a real browser."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from playwright.async_api import Browser, Locator, Page

from server.cli.listening import LOOPBACK
from server.embedded.child import free_port
from tests.conftest import TEST_API_KEY
from tests.e2e.chromium import Tab

EXAMPLE = Path(__file__).parents[2] / "examples" / "streamlit_app" / "main.py"
OPERATOR_PASSWORD = "a-password-for-tests"
ORIGINS = f"http://{LOOPBACK}:*"  # of the apps, whose ports are not known beforehand
STARTS_WITHIN_S, STOPS_WITHIN_S, LOOK_EVERY_S = 30.0, 10.0, 0.05
OPTIONS = {
    "server.address": LOOPBACK,
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
}
FIRST_QUESTION = "What did you learn last"


@dataclass(frozen=True, slots=True)
class StreamlitApp:
    """A running app."""

    url: str
    log: Path

    def complaints(self) -> list[str]:
        """What it logged that says something went wrong."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "Traceback" in line or "Warning" in line or "deprecated" in line]


@asynccontextmanager
async def streamlit_app(script: Path, folder: Path, **environment: str) -> AsyncIterator[StreamlitApp]:
    """Run `script` in `folder`, with these variables in its environment; it ends with the block."""
    port, log = free_port(), folder / "streamlit.log"
    process = _spawn(script, port, log, environment)
    app = StreamlitApp(f"http://{LOOPBACK}:{port}", log)
    try:
        await _until_healthy(app, process)
        yield app
    finally:
        _end(process)


@asynccontextmanager
async def example_app(presence_url: str, folder: Path) -> AsyncIterator[StreamlitApp]:
    """The example of this repository, for the presence server at this address."""
    environment = {
        "PRESENCE_URL": presence_url,
        "PRESENCE_API_KEY": TEST_API_KEY,
        "OPERATOR_PASSWORD": OPERATOR_PASSWORD,
    }
    async with streamlit_app(EXAMPLE, folder, **environment) as app:
        yield app


def _spawn(script: Path, port: int, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    told = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port), *told]
    with log.open("wb") as sink:
        return subprocess.Popen(
            command, cwd=log.parent, env={**os.environ, **environment}, stdout=sink, stderr=sink
        )


async def _until_healthy(app: StreamlitApp, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(STARTS_WITHIN_S), httpx.AsyncClient(trust_env=False) as http:
        while not await _is_healthy(http, app.url):
            assert process.poll() is None, app.log.read_text(encoding="utf-8")
            await asyncio.sleep(LOOK_EVERY_S)


async def _is_healthy(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/_stcore/health")).is_success
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Participant:
    """Somebody with the example app open in a tab."""

    def __init__(self, tab: Tab, name: str) -> None:
        self.tab = tab
        self.name = name

    @classmethod
    async def arrive(cls, browser: Browser, app: StreamlitApp, name: str) -> Self:
        """Open the app in a window with its own storage."""
        return cls(await Tab.open(browser, app.url), name)

    @property
    def page(self) -> Page:
        return self.tab.page

    async def log_in(self, language: str | None = None) -> None:
        """Give name and language."""
        if language is not None:
            await self.page.get_by_test_id("stSelectbox").locator("input").click()
            await self.page.get_by_role("option", name=language).click()
            await self.page.get_by_role("button", name="Log in", exact=True).wait_for(state="hidden")
        await self.page.get_by_test_id("stForm").locator("input").fill(self.name)
        await self.page.get_by_test_id("stFormSubmitButton").get_by_role("button").click()
        await self.page.get_by_test_id("stForm").wait_for(state="hidden")

    async def ask_for_the_interview(self) -> None:
        """From the first page to the interview's, into the waiting room if it is full."""
        await self.page.get_by_test_id("stCheckbox").click()
        start = self.page.locator("[data-testid=stBaseButton-primary]:enabled")
        await start.click()

    async def enter(self) -> None:
        """Log in, and get into the interview."""
        await self.log_in()
        await self.ask_for_the_interview()
        await self.in_interview()

    async def queue_up(self) -> None:
        """Log in, and get into the waiting room."""
        await self.log_in()
        await self.ask_for_the_interview()
        await self.in_waiting_room()

    async def reload(self) -> None:
        """Streamlit forgets who this is."""
        await self.page.reload()
        await self.page.get_by_test_id("stForm").wait_for()

    async def in_interview(self) -> None:
        await self.text(FIRST_QUESTION).wait_for()

    async def in_waiting_room(self) -> None:
        await self.text("place in line").wait_for()

    async def answer(self, text: str) -> None:
        """Answer a question."""
        await self.page.get_by_test_id("stChatInputTextArea").fill(text)
        await self.page.get_by_test_id("stChatInputTextArea").press("Enter")
        await self.text(text).wait_for()

    async def click(self, button: str) -> None:
        await self.page.get_by_role("button", name=button, exact=True).click()

    async def go_to(self, page: str) -> None:
        """By the navigation at the top."""
        await self.page.get_by_test_id("stTopNavLink").filter(has_text=page).click()

    def text(self, text: str) -> Locator:
        """Where the page says this."""
        return self.page.get_by_text(text).first
