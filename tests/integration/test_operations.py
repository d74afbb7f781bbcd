"""What docs/operations.md promises: rotation without a refusal, changes that count at once, small sessions."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack

import httpx
import pytest

from server.domain.messages import Close
from tests.browser import Browser
from tests.conftest import TEST_API_KEY
from tests.documentation import ROOT
from tests.integration.conftest import MakeSite, Site

OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
OLD, NEW = "an-old-secret-of-more-than-32-bytes-0", "a-new-secret-of-more-than-32-bytes-01"
NEW_KEY = "another-api-key-for-tests-987654321"


async def enters(site: Site, token: str) -> bool:
    """Whether a node takes a page with this token."""
    async with await Browser.open(site.ws_url) as browser:
        await browser.say("hello", token=token)
        if "welcome" in str(await browser.socket.recv()):
            return True
        assert (await browser.closed())[0] == Close.BAD_TOKEN
        return False


def listed(setting: str) -> list[str]:
    """The values of a setting in the steps of its rotation."""
    return re.findall(rf"^\d\. .*?`{setting}=([a-z,]+)`", OPERATIONS, re.MULTILINE)


async def test_secrets_are_rotated_by_the_steps_of_the_page_without_refusing_a_page(
    make_site: MakeSite,
) -> None:
    words = {"old": OLD, "new": NEW}
    steps = [["old"], *(step.split(",") for step in listed("PRESENCE_SECRET"))]
    assert steps == [["old"], ["old", "new"], ["new", "old"], ["new"]]
    nodes = [await make_site(secret=tuple(words[word] for word in step)) for step in steps]
    tokens = [(await node.open(f"user-{number}"))["token"] for number, node in enumerate(nodes)]
    # While one step replaces the one before it, a page of either comes to a node of either.
    for step in range(1, len(nodes) - 1):
        assert await enters(nodes[step], tokens[step - 1])
        assert await enters(nodes[step - 1], tokens[step])
    # The last step waits until no token of the old secret is left: one would be refused.
    assert await enters(nodes[3], tokens[2])
    assert await enters(nodes[2], tokens[3])
    assert not await enters(nodes[3], tokens[0])


async def test_a_new_secret_at_once_would_refuse_pages_on_the_nodes_that_do_not_know_it(
    make_site: MakeSite,
) -> None:
    before, after = await make_site(secret=(OLD,)), await make_site(secret=(NEW, OLD))
    assert not await enters(before, (await after.open())["token"])


async def test_keys_are_rotated_by_the_steps_of_the_page(make_site: MakeSite) -> None:
    words = {"old": TEST_API_KEY, "new": NEW_KEY}
    steps = [step.split(",") for step in listed("PRESENCE_API_KEY")]
    assert steps == [["old", "new"], ["new"]]
    opened = []
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient())
        for step in steps:
            site = await make_site(api_key=tuple(words[word] for word in step))
            for key in words.values():
                headers = {"Authorization": f"Bearer {key}"}
                opened.append((await http.get(f"{site.url}/v1/capacity", headers=headers)).status_code)
    assert opened == [200, 200, 401, 200]


async def test_a_session_takes_no_more_of_redis_than_the_page_says(make_site: MakeSite) -> None:
    most = max(
        int(number.replace(",", ""))
        for number in re.findall(
            r"^\| the same, waiting in line \| .*?-([\d,]+) \|$", OPERATIONS, re.MULTILINE
        )
    )
    site = await make_site(max_concurrent=0)
    opened = await site.open(language_code="de", current_page="learning")
    session_id = opened["session_id"]
    async with await Browser.join(site.ws_url, opened["token"]) as page:
        await page.say("enter")
        await page.next("interview", state="waiting")
        keys = site.node.store.keys("main")
        own = (
            keys.session(session_id),
            keys.alive(session_id),
            keys.user("anna"),
            f"{keys.prefix}holding:anna",
        )
        sizes = [await site.node.store.scripts.command("MEMORY", "USAGE", key) for key in own]
    assert all(sizes)
    assert sum(sizes) < most


@pytest.mark.parametrize("name", ["limit", "mode"])
async def test_an_operators_change_counts_on_every_node_at_once(make_site: MakeSite, name: str) -> None:
    here, there = await make_site(), await make_site()
    change = {"limit": 7} if name == "limit" else {"mode": "paused"}
    await here.http.put("/v1/pools/main", json=change)
    seen = (await there.http.get("/v1/capacity")).json()
    assert seen[name] == change[name]
