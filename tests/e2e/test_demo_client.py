"""The browser client in a real browser and against the real server: what fakes can't show."""

import httpx
import pytest
from playwright.async_api import Browser

from tests.browser import Network
from tests.conftest import TEST_API_KEY, Serve, ServedNode
from tests.e2e.chromium import Tab

pytestmark = pytest.mark.browser

CONNECT = """
async ([url, token]) => {
  const { connect } = await import("/client.js");
  window.heard = [];
  window.presence = connect({ url, token, page: "test" });
  for (const name of ["online", "offline", "interview", "ended", "error"]) {
    presence.on(name, (detail) => heard.push([name, detail]));
  }
}
"""
EMBED = """
(token) => {
  const script = Object.assign(document.createElement("script"), { type: "module", src: "/client.js" });
  Object.assign(script.dataset, { token, page: "learning" });
  document.head.append(script);
}
"""
IS_ONLINE = "presence.state === 'online'"


async def api(server: ServedNode, method: str, path: str, **options: object) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {TEST_API_KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
        answer = await client.request(method, path, **options)  # type: ignore[arg-type]
        assert answer.is_success, answer.text
        return dict(answer.json())


async def token_of(server: ServedNode, user: str = "anna") -> tuple[str, str]:
    opened = await api(server, "POST", "/v1/sessions", json={"user_id": user})
    return str(opened["session_id"]), str(opened["token"])


async def test_the_script_tag_connects_by_itself(serve: Serve, browser: Browser) -> None:
    server = await serve()
    session_id, token = await token_of(server)
    tab = await Tab.open(browser, f"{server.url}/healthz")  # any page of this origin that has no client yet
    await tab.page.evaluate(EMBED, token)
    await tab.until("import('/client.js').then(({ presence }) => presence?.state === 'online')")
    session = await api(server, "GET", f"/v1/sessions/{session_id}")
    assert (session["online"], session["connection"], session["current_page"]) == (True, "ws", "learning")


async def test_a_page_in_the_back_forward_cache_is_gone_and_comes_back(
    serve: Serve, browser: Browser
) -> None:
    server = await serve(demo=True)
    session_id, token = await token_of(server)
    tab = await Tab.open(browser, f"{server.url}/demo")
    await tab.page.evaluate(CONNECT, [server.url, token])
    await tab.until(IS_ONLINE)
    await tab.page.goto(f"{server.url}/client.js")
    session = await api(server, "GET", f"/v1/sessions/{session_id}")
    assert session["connection"] is None
    await tab.page.go_back(wait_until="commit")
    await tab.until(IS_ONLINE)
    heard = await tab.page.evaluate("heard.map(([name]) => name)")
    assert heard == ["online", "interview", "offline", "online", "interview"]  # the same page, not a new one


async def test_a_kicked_session_ends_in_the_page(serve: Serve, browser: Browser) -> None:
    server = await serve(demo=True)
    session_id, token = await token_of(server)
    tab = await Tab.open(browser, f"{server.url}/demo")
    await tab.page.evaluate(CONNECT, [server.url, token])
    await tab.until(IS_ONLINE)
    await api(server, "DELETE", f"/v1/sessions/{session_id}")
    await tab.until("presence.state === 'ended'")
    assert (await tab.page.evaluate("heard.at(-1)")) == ["ended", {"code": 4410, "reason": "kicked"}]


async def test_a_refused_origin_is_one_warning_that_names_the_settings(
    serve: Serve, browser: Browser
) -> None:
    server = await serve(demo=True)
    _, token = await token_of(server)
    tab = Tab(await browser.new_page())
    warnings: list[str] = []
    tab.page.on("console", lambda line: warnings.append(line.text) if line.type == "warning" else None)
    await tab.page.goto(f"{server.url.replace('127.0.0.1', 'localhost')}/demo")
    await tab.page.evaluate(CONNECT, [server.url, token])
    await tab.until("heard.some(([name, detail]) => detail?.code === 'refused')")
    assert [line for line in warnings if "PRESENCE_ALLOWED_ORIGINS" in line] == warnings[:1]
    assert await tab.page.evaluate("presence.state") == "offline"


async def test_a_dead_network_is_noticed_by_the_missing_answer(serve: Serve, browser: Browser) -> None:
    server = await serve(demo=True, heartbeat_s=0.5)
    _, token = await token_of(server)
    host, port = server.url.removeprefix("http://").split(":")
    async with Network(host, int(port)).running() as network:
        tab = await Tab.open(browser, f"http://127.0.0.1:{network.port}/demo")
        await tab.page.evaluate(CONNECT, [f"http://127.0.0.1:{network.port}", token])
        await tab.until(IS_ONLINE)
        network.cut()
        await tab.until("presence.state === 'offline'", within_s=15)
        await tab.page.close()
