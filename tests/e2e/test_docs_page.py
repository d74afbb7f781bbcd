"""The readable API in a real browser: every operation is there, nothing breaks, and nothing comes from elsewhere."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Browser

from server.http.api import OPERATIONS
from tests.conftest import TEST_API_KEY, Serve
from tests.e2e.chromium import Tab

OPENED = "document.querySelectorAll('.opblock').length"
WIDER_THAN_THE_SCREEN = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


async def shown(browser: Browser, url: str) -> tuple[Tab, list[str]]:
    """The page with everything in it, and the addresses that it asked."""
    tab = Tab(await browser.new_page())
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    await tab.page.goto(f"{url}/docs")
    await tab.until(f"{OPENED} === {len(OPERATIONS)}", within_s=30)
    return tab, asked


@pytest.mark.browser
async def test_every_operation_is_shown_and_nothing_comes_from_elsewhere(
    browser: Browser, serve: Serve
) -> None:
    served = await serve()
    tab, asked = await shown(browser, served.url)
    here = urlsplit(served.url).netloc
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {here}
    await tab.page.click("#operations-sessions-open_session .opblock-summary-control")
    await tab.page.wait_for_selector("#operations-sessions-open_session .responses-table")
    assert tab.complaints == []


@pytest.mark.browser
async def test_it_fits_a_phone(browser: Browser, serve: Serve) -> None:
    tab, _ = await shown(browser, (await serve()).url)
    await tab.page.set_viewport_size({"width": 360, "height": 740})
    await tab.page.click("#operations-sessions-list_sessions .opblock-summary-control")
    await tab.page.wait_for_selector("#operations-sessions-list_sessions .responses-table")
    assert not await tab.page.evaluate(WIDER_THAN_THE_SCREEN)


@pytest.mark.browser
async def test_a_key_typed_in_there_opens_the_api(browser: Browser, serve: Serve) -> None:
    tab, _ = await shown(browser, (await serve()).url)
    operation = "#operations-pools-list_pools"
    await tab.page.click(".auth-wrapper .authorize")
    await tab.page.fill("#auth-bearer-value >> nth=0", TEST_API_KEY)
    await tab.page.click(".auth-container .authorize >> nth=0")
    await tab.page.click(".btn-done")
    await tab.page.click(f"{operation} .opblock-summary-control")
    await tab.page.click(f"{operation} .try-out__btn")
    await tab.page.click(f"{operation} .execute")
    await tab.page.wait_for_selector(f"{operation} .live-responses-table .response")
    assert "200" in await tab.page.inner_text(
        f"{operation} .live-responses-table .response-col_status >> nth=-1"
    )
    assert tab.complaints == []


async def test_its_files_are_fetched_once_and_nothing_else_of_the_package_is_served(serve: Serve) -> None:
    async with httpx.AsyncClient(base_url=(await serve()).url, trust_env=False) as http:
        page = await http.get("/docs")
        assert "unsafe" not in page.headers["content-security-policy"]
        assert (await http.get("/docs", headers={"If-None-Match": page.headers["etag"]})).status_code == 304
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "docs.js"):
            file = await http.get(f"/docs/{name}")
            assert file.is_success
            assert "immutable" in file.headers["cache-control"]
            assert f"/docs/{name}?v={file.headers['etag'].strip(chr(34))}" in page.text
        for name in ("swagger-editor-bundle.js", "..%2F__init__.py", "docs.html"):
            assert (await http.get(f"/docs/{name}")).status_code == 404
