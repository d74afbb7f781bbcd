"""The example app and an app of the old kind, in real Streamlit with a real browser and a real presence server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from server.embedded.child import free_port
from tests import witness
from tests.conftest import TEST_API_KEY, SpawnedServer, SpawnServer
from tests.e2e.chromium import Tab, chromium
from tests.e2e.streamlit_app import (
    OPERATOR_PASSWORD,
    ORIGINS,
    Participant,
    StreamlitApp,
    example_app,
    streamlit_app,
)
from tests.node_api import NodeApi

pytestmark = pytest.mark.browser

LENGTH_MS = 600_000
LIMIT = 2  # what the example declares
LET_IN_WITHIN_S = 5.0  # 0.3 s on an idle machine; the test's may be busy
OUTAGES_S = [3, pytest.param(30, marks=pytest.mark.soak)]
PATIENCE_S = 15.0
BACKOFF_S = 35.0  # a page that was refused for a while waits up to 30 s before it tries again
OLD_APP = Path(__file__).with_name("old_app.py")


@dataclass(frozen=True, slots=True)
class Study:
    """The example app with its presence server, and a browser."""

    app: StreamlitApp
    api: NodeApi
    redis: Any
    browser: Browser

    async def arrive(self, name: str) -> Participant:
        return await Participant.arrive(self.browser, self.app, name)

    async def fill(self) -> list[str]:
        """Take all places, as by people who stay in the interview; their sessions."""
        opened = [await self.api.open(f"holder-{n}") for n in range(LIMIT)]
        for each in opened:
            assert (await self.api.claim(each["session_id"])).status_code == 200
        return [each["session_id"] for each in opened]

    async def know_lengths(self) -> None:
        """As if ten interviews had ended, each of ten minutes."""
        await self.redis.lpush(witness.POOL + "lengths", *[LENGTH_MS] * 10)

    async def session_of(self, user_id: str) -> dict[str, Any]:
        """The one session that this user has."""
        answer = await self.api.ask("GET", f"/v1/sessions?status=active&user_id={user_id}")
        (session,) = answer["sessions"]
        return dict(session)

    async def connections_of(self, user_id: str) -> int:
        """How often a browser of this user connected so far."""
        events = await witness.events(self.redis)
        return sum((each["type"], each.get("user_id")) == ("connected", user_id) for each in events)

    async def until_connected(self, user_id: str, times: int) -> None:
        """Until a browser of this user has connected so often."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.connections_of(user_id) < times:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def holders(self) -> set[str]:
        """The users who are in the interview."""
        ids = await witness.holders(self.redis)
        return {(await self.api.session(each))["user_id"] for each in ids}

    async def until(
        self, user_id: str, condition: Callable[[dict[str, Any]], object], within_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """The user's session, once it is so."""
        async with asyncio.timeout(within_s):
            while not condition(session := await self.session_of(user_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return session


@pytest.fixture
async def study(spawn_server: SpawnServer, redis_url: str, tmp_path: Path) -> AsyncIterator[Study]:
    server = spawn_server(PRESENCE_ALLOWED_ORIGINS=ORIGINS)
    async with running(server, redis_url, tmp_path) as started:
        yield started


@asynccontextmanager
async def running(server: SpawnedServer, redis_url: str, folder: Path) -> AsyncIterator[Study]:
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(example_app(server.url, folder))
        api = await stack.enter_async_context(NodeApi(server.url))
        redis = await stack.enter_async_context(witness.client(redis_url))
        yield Study(app, api, redis, await stack.enter_async_context(chromium()))
        assert app.complaints() == []


class TestWaitingRoom:
    async def test_of_three_two_enter_and_the_third_waits_and_is_let_in_by_itself(self, study: Study) -> None:
        anna, ben, carla = [await study.arrive(name) for name in ("anna", "ben", "carla")]
        await anna.enter()
        await study.know_lengths()
        await ben.enter()
        await carla.queue_up()
        await carla.text("Your place in line: 1").wait_for()
        await carla.text("Waiting time: about").wait_for()
        session = await study.session_of("anna")
        let_in = asyncio.create_task(carla.in_interview())
        completed_at = time.perf_counter()
        await study.api.complete(session["session_id"])
        await let_in
        took_s = time.perf_counter() - completed_at
        print(f"\nlet in {took_s * 1000:.0f} ms after the place was free")
        assert took_s < LET_IN_WITHIN_S
        assert await study.connections_of("carla") == 1

    async def test_finishing_in_the_app_lets_the_next_one_in(self, study: Study) -> None:
        (first, _) = await study.fill()
        await study.api.complete(first)
        anna, ben = await study.arrive("anna"), await study.arrive("ben")
        await anna.enter()
        await ben.log_in("Deutsch")
        await ben.ask_for_the_interview()
        await ben.text("Ihr Platz in der Warteschlange: 1").wait_for()
        await anna.click("Finish")
        await anna.text("Thank you very much for taking part").wait_for()
        await ben.text("Was haben Sie zuletzt gelernt").wait_for()

    async def test_who_leaves_the_line_is_out_of_it_and_may_come_back(self, study: Study) -> None:
        await study.fill()
        anna = await study.arrive("anna")
        await anna.queue_up()
        await anna.click("Leave the line")
        await study.until("anna", lambda session: session["interview"]["state"] == "none")
        await anna.click("Enter now")
        await anna.in_waiting_room()


class TestReload:
    async def test_a_reload_of_a_running_interview_keeps_it(self, study: Study) -> None:
        await study.api.claim((await study.api.open("ben"))["session_id"])
        anna = await study.arrive("anna")
        await anna.enter()
        await anna.answer("To ride a bicycle")
        waiter = await study.api.open("carla")
        assert (await study.api.claim(waiter["session_id"])).json()["position"] == 1
        times = await study.connections_of("anna")
        await anna.reload()
        await study.until_connected("anna", times + 1)  # before any login
        await anna.log_in()
        await anna.text("To ride a bicycle").wait_for()
        assert (await study.api.interview(waiter["session_id"]))["position"] == 1
        assert "anna" in await study.holders()

    async def test_a_reload_while_waiting_keeps_the_place(self, study: Study) -> None:
        await study.fill()
        anna = await study.arrive("anna")
        await anna.queue_up()
        behind = await study.api.open("ben")
        assert (await study.api.claim(behind["session_id"])).json()["position"] == 2
        await anna.reload()
        await anna.log_in()
        await anna.text("Your place in line: 1").wait_for()
        assert (await study.api.interview(behind["session_id"]))["position"] == 2


class TestConnections:
    async def test_reruns_other_widgets_and_page_changes_open_no_second_connection(
        self, study: Study
    ) -> None:
        anna = await study.arrive("anna")
        await anna.log_in()
        await study.until("anna", lambda session: session["connection"] == "ws")
        await anna.ask_for_the_interview()
        await anna.answer("To bake bread")
        await anna.answer("A good book")
        await anna.go_to("Home")
        await study.until("anna", lambda session: session["current_page"] == "home")
        await anna.go_to("Interview")
        await anna.text("A good book").wait_for()
        await anna.page.keyboard.press("r")  # Streamlit's own rerun
        await study.until("anna", lambda session: session["current_page"] == "learning")
        assert await study.connections_of("anna") == 1

    async def test_two_tabs_of_one_user_are_told_and_may_take_over(self, study: Study) -> None:
        first = await study.arrive("anna")
        await first.enter()
        second = await study.arrive("anna")
        await second.log_in()
        await second.ask_for_the_interview()
        await second.click("Continue here")
        await second.in_interview()
        await first.click("Continue here")
        await first.in_interview()
        await second.text("Continue here").wait_for()


class TestServerAway:
    @pytest.mark.parametrize("outage_s", OUTAGES_S)
    async def test_the_app_keeps_working_says_so_and_heals(
        self, spawn_server: SpawnServer, redis_url: str, tmp_path: Path, outage_s: int
    ) -> None:
        settings = {"PRESENCE_ALLOWED_ORIGINS": ORIGINS, "PRESENCE_PORT": str(free_port())}
        server = spawn_server(**settings)
        async with running(server, redis_url, tmp_path) as study:
            anna, ben, carla = [await study.arrive(name) for name in ("anna", "ben", "carla")]
            await anna.enter()
            await ben.enter()
            await carla.queue_up()
            before = await study.session_of("anna")
            server.kill()
            gone_at = time.monotonic()
            await anna.answer("To swim")
            await anna.text("Your place is being confirmed again").wait_for()
            await carla.text("cannot check for a free place").wait_for()
            await asyncio.sleep(max(0, outage_s - (time.monotonic() - gone_at)))  # as long as it lasts
            spawn_server(**settings)
            for name in ("anna", "carla"):
                await study.until(name, lambda session: session["connection"] == "ws", within_s=BACKOFF_S)
            await anna.answer("Patience")
            await anna.text("being confirmed again").wait_for(state="hidden")
            assert (await study.session_of("anna"))["interview"] == before["interview"]
            await carla.text("cannot check").wait_for(state="hidden")
            await study.api.complete((await study.session_of("ben"))["session_id"])
            await carla.in_interview()


class TestOperator:
    async def test_sees_how_full_it_is_who_is_here_and_the_day(self, study: Study) -> None:
        await study.fill()
        tab = await Tab.open(study.browser, f"{study.app.url}/operator")
        await tab.page.get_by_label("Operator password").fill("wrong")
        await tab.page.get_by_label("Operator password").press("Enter")
        await tab.page.get_by_label("Operator password").fill(OPERATOR_PASSWORD)
        await tab.page.get_by_label("Operator password").press("Enter")
        await tab.page.get_by_text("2 of 2").wait_for()
        await tab.page.get_by_text("This server has no DATABASE_URL").wait_for()
        await tab.page.get_by_test_id("stDataFrame").wait_for()
        await tab.page.get_by_test_id("stVegaLiteChart").wait_for()


class TestOldApp:
    async def test_with_new_secrets_only_it_goes_on_by_itself_when_a_place_is_free(
        self, spawn_server: SpawnServer, tmp_path: Path
    ) -> None:
        server = spawn_server(PRESENCE_ALLOWED_ORIGINS=ORIGINS)
        secrets = tmp_path / ".streamlit" / "secrets.toml"
        secrets.parent.mkdir()
        secrets.write_text(f'[presence]\nurl = "{server.url}"\napi_key = "{TEST_API_KEY}"\n')
        async with AsyncExitStack() as stack:
            app = await stack.enter_async_context(streamlit_app(OLD_APP, tmp_path))
            api = await stack.enter_async_context(NodeApi(server.url))
            holders = [await api.open(f"holder-{n}") for n in range(LIMIT)]
            browser = await stack.enter_async_context(chromium())
            tab = await Tab.open(browser, app.url)
            await tab.page.get_by_label("Username").fill("anna")
            await tab.page.get_by_role("button", name="Log in").click()
            await tab.page.get_by_text("Home").wait_for()
            for each in holders:
                assert (await api.claim(each["session_id"])).json()["state"] == "granted"
            await tab.page.get_by_role("button", name="Learn").click()
            await tab.page.get_by_test_id("stAlert").wait_for()
            await api.complete(holders[0]["session_id"])
            await tab.page.get_by_text("Learning").wait_for()
            assert app.complaints() == []
