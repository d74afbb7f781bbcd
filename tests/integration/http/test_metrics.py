"""What Prometheus gets to see: that it is true, that it parses, and that nobody from outside can make it grow."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus
from websockets.protocol import State

from server.domain.messages import Close
from server.http.metrics import MOST_CAUSES, MOST_POOLS, shown_pools
from server.measure.instruments import MOST_SERIES
from tests.browser import Browser
from tests.conftest import TEST_API_KEY, Serve, ServedNode, SpawnServer
from tests.integration.http.api import Api
from tests.prerequisites import demand

PATIENCE_S = 10.0
Series = dict[str, float]


async def scrape(url: str) -> str:
    async with httpx.AsyncClient(base_url=url) as http:
        return (await http.get("/metrics")).raise_for_status().text


def parsed(text: str) -> Series:
    """Each sample under `name{label="value",...}` with the labels in their order."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def series(url: str) -> Series:
    return parsed(await scrape(url))


async def until(url: str, is_so: Callable[[Series], bool]) -> Series:
    """Scrape until it is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so(found := await series(url)):  # noqa: ASYNC110 - what is asked for tells nobody
            await asyncio.sleep(0.05)
    return found


@pytest.fixture
async def node(serve: Serve) -> ServedNode:
    return await serve(max_concurrent=1)


@pytest.fixture
async def api(node: ServedNode) -> AsyncIterator[Api]:
    client = Api(node.url, TEST_API_KEY)
    yield client
    await client.close()


async def join(node: ServedNode, api: Api, user_id: str) -> Browser:
    return await Browser.join(node.ws_url, (await api.open(user_id))["token"])


async def play(node: ServedNode, api: Api, during: Callable[[], Awaitable[None]]) -> None:
    """Anna is in, Ben waits, is offered Anna's place, and takes it; then `during`, while Ben is in."""
    await follows(node)
    async with await join(node, api, "anna") as anna, await join(node, api, "ben") as ben:
        await anna.say("enter")
        await anna.next("interview", state="granted")
        await ben.say("enter")
        await ben.next("interview", state="waiting")
        await anna.say("complete")
        await ben.next("interview", state="offered")
        await ben.say("accept")
        await ben.next("interview", state="granted")
        await during()


async def follows(node: ServedNode) -> None:
    """Return when the node reads the pool's events."""
    await until(node.url, lambda found: found["presence_resyncs_total"] >= 1)


# What it tells


async def test_it_tells_of_a_place_that_went_from_one_to_the_next(node: ServedNode, api: Api) -> None:
    async def during() -> None:
        shown = await until(node.url, lambda found: found["presence_handover_seconds_count"] == 1)
        expected = {
            'presence_limit{pool="main"}': 1,
            'presence_active{pool="main"}': 1,
            'presence_available{pool="main"}': 0,
            'presence_online{pool="main"}': 1,
            'presence_offline{pool="main"}': 0,
            'presence_mode{mode="open",pool="main"}': 1,
            'presence_mode{mode="paused",pool="main"}': 0,
            'presence_sessions{phase="in_interview",pool="main"}': 1,
            'presence_sessions{phase="elsewhere",pool="main"}': 0,
            'presence_offers_total{outcome="made",pool="main"}': 1,
            'presence_offers_total{outcome="taken",pool="main"}': 1,
            'presence_offers_total{outcome="missed",pool="main"}': 0,
            'presence_events_total{pool="main",type="granted"}': 2,
            'presence_events_total{pool="main",type="kicked"}': 0,
            'presence_ghosts_reaped_total{pool="main"}': 0,
            'presence_claim_seconds_count{outcome="granted"}': 2,
            'presence_claim_seconds_count{outcome="waiting"}': 1,
            'presence_messages_total{type="enter"}': 2,
            "presence_connections": 1,
            "presence_connections_opened_total": 2,
            'presence_connections_closed_total{code="4410"}': 1,
            "presence_reconnects_total": 0,
            "presence_redis_up": 1,
            "presence_pools": 1,
            "presence_draining": 0,
            "presence_sse_readers": 0,
            'presence_redis_call_seconds_count{script="claim"}': 3,
            'presence_http_requests_total{method="POST",route="/v1/sessions",status="2xx"}': 2,
            'presence_http_request_seconds_count{route="/v1/sessions"}': 2,
        }
        assert {name: shown.get(name) for name in expected} == expected
        assert 0 <= shown["presence_handover_seconds_sum"] < PATIENCE_S
        assert shown["presence_event_lag_seconds_count"] > 0

    await play(node, api, during)


async def test_a_hand_over_is_counted_once_over_all_nodes(serve: Serve, node: ServedNode, api: Api) -> None:
    other = await serve(max_concurrent=1)
    await follows(other)

    async def during() -> None:
        both = "presence_handover_seconds_count"
        await until(node.url, lambda found: found[both] == 1)
        # By then the other node has read the same events.
        granted = 'presence_events_total{pool="main",type="granted"}'
        shown = await until(other.url, lambda found: found["presence_event_lag_seconds_count"] >= 8)
        assert shown[both] == 0
        assert shown[granted] == 2  # of the pool every node tells the same
        assert shown["presence_connections"] == 0

    await play(node, api, during)


async def test_leaves_are_told_by_their_cause_and_comings_back_are_counted(
    node: ServedNode, api: Api
) -> None:
    opened = await api.open("anna")
    async with await Browser.join(node.ws_url, opened["token"]):
        pass
    left = 'presence_leaves_total{cause="closed",pool="main",type="disconnected"}'
    await until(node.url, lambda found: found.get(left) == 1)
    async with await Browser.join(node.ws_url, opened["token"]):
        shown = await series(node.url)
        assert shown["presence_reconnects_total"] == 1
        assert shown["presence_connections"] == 1
        assert shown['presence_connections_closed_total{code="1000"}'] == 1


async def test_a_ghost_is_counted_when_its_deadline_has_run_out(serve: Serve) -> None:
    node = await serve(online_window_s=2.5, heartbeat_s=1)
    api = Api(node.url, TEST_API_KEY)
    await api.open("anna")
    ghosts = 'presence_ghosts_reaped_total{pool="main"}'
    shown = await until(node.url, lambda found: found[ghosts] == 1)
    assert shown['presence_leaves_total{cause="deadline",pool="main",type="offline"}'] == 1
    assert shown['presence_offline{pool="main"}'] == 1
    await api.close()


async def test_renewals_and_their_batches_are_counted(serve: Serve) -> None:
    node = await serve(renew_s=0.3)
    api = Api(node.url, TEST_API_KEY)
    async with await join(node, api, "anna"), await join(node, api, "ben"):
        shown = await until(node.url, lambda found: found['presence_renewals_total{outcome="renewed"}'] >= 2)
    assert shown['presence_renewals_total{outcome="lost"}'] == 0
    assert shown["presence_renewal_batch_size_sum"] == shown['presence_renewals_total{outcome="renewed"}']
    assert shown['presence_renewal_batch_size_bucket{le="2.0"}'] == shown["presence_renewal_batch_size_count"]
    await api.close()


async def test_who_reads_events_is_counted_while_reading(node: ServedNode, api: Api) -> None:
    async with api.http.stream("GET", "/v1/events") as response:
        assert response.is_success
        await until(node.url, lambda found: found["presence_sse_readers"] == 1)
    shown = await until(node.url, lambda found: found["presence_sse_readers"] == 0)
    # Counted when it began: a stream has no latency.
    assert shown['presence_http_requests_total{method="GET",route="/v1/events",status="2xx"}'] == 1
    assert shown['presence_http_request_seconds_sum{route="/v1/events"}'] < PATIENCE_S


async def test_refusals_are_told_by_their_reason(serve: Serve) -> None:
    node = await serve(allowed_origins=("https://study.example",))
    api = Api(node.url, TEST_API_KEY)
    async with await Browser.open(node.ws_url) as browser:
        await browser.say("hello", token="no-token")
        assert (await browser.closed())[0] == Close.BAD_TOKEN
    with pytest.raises(InvalidStatus):
        await Browser.open(node.ws_url, origin="https://evil.example")
    anna = await api.open("anna")
    await api.claim(anna["session_id"], wait="perhaps")
    await api.claim("nobody")
    await api.call("POST", "/dashboard/sign-in", {"api_key": "wrong"})
    await api.call("PUT", "/dashboard/sign-in")  # that is no sign-in
    expected = {
        'presence_connections_refused_total{reason="bad_token"}': 1,
        'presence_connections_refused_total{reason="forbidden_origin"}': 1,
        'presence_http_problems_total{code="invalid"}': 1,
        'presence_http_problems_total{code="unknown_session"}': 1,
        "presence_sign_in_failures_total": 1,
    }
    shown = await series(node.url)
    assert {name: shown.get(name) for name in expected} == expected
    await api.close()


async def test_denied_claims_are_told_by_their_reason(serve: Serve) -> None:
    node = await serve(max_concurrent=0, max_line=0)
    api = Api(node.url, TEST_API_KEY)
    await api.claim((await api.open("anna"))["session_id"])
    shown = await series(node.url)
    assert shown['presence_denied_claims_total{pool="main",reason="at_capacity"}'] == 1
    assert shown['presence_claim_seconds_count{outcome="denied"}'] == 1
    await api.close()


async def test_the_flush_is_told_of_with_what_still_waits(serve: Serve, database_url: str) -> None:
    node = await serve(database_url=database_url, flush_s=3600)
    api = Api(node.url, TEST_API_KEY)
    await until(node.url, lambda found: found["presence_flush_seconds_count"] >= 1)
    await api.open("anna")
    shown = await series(node.url)
    assert shown['presence_flush_backlog{pool="main"}'] == 1
    assert shown['presence_flush_lag_seconds{pool="main"}'] >= 0
    flusher = node.node.flusher
    assert flusher is not None
    await flusher.flush_once()
    shown = await series(node.url)
    assert shown['presence_flush_backlog{pool="main"}'] == 0
    assert shown["presence_flushed_rows_total"] >= 1
    assert shown["presence_postgres_up"] == 1
    assert shown["presence_flush_failures_total"] == 0
    await api.close()


# That it is well made


async def test_promtool_finds_nothing_in_it(node: ServedNode, api: Api) -> None:
    texts: list[str] = []

    async def during() -> None:
        texts.append(await scrape(node.url))

    await play(node, api, during)
    done = await asyncio.to_thread(
        subprocess.run,
        [demand("promtool"), "check", "metrics"],
        input=texts[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# That nobody makes it grow


async def test_paths_methods_messages_and_close_codes_of_somebodys_own_make_no_series(
    node: ServedNode, api: Api
) -> None:
    await api.open("anna", pool="main")
    async with await Browser.join(node.ws_url, (await api.open("ben"))["token"]) as ben:
        await ben.socket.close(3000)
    for path in ("/nothing", "/v1/sessions/nobody", "/v1/sessions/nobody/nothing"):
        await api.call("GET", path)
    await until(node.url, lambda found: found.get('presence_connections_closed_total{code="other"}') == 1)
    before = await series(node.url)
    for number in range(40):
        await api.call("GET", f"/nothing/{number}")
        await api.call("GET", f"/v1/sessions/nobody-{number}")
        await api.open(f"user-{number}", current_page=f"page {number}")
    for code in range(3001, 3011):
        async with await Browser.join(node.ws_url, (await api.open("ben"))["token"]) as ben:
            await ben.socket.close(code)
    after = await until(
        node.url, lambda found: found['presence_connections_closed_total{code="other"}'] == 11
    )
    new = {name.partition("{")[0] for name in after.keys() - before.keys()}
    # What happens for the first time may show for the first time, and nothing else.
    assert not {name for name in after if "nobody" in name or "page" in name or "user-" in name} - {
        'presence_messages_total{type="page"}',
        'presence_events_total{pool="main",type="page"}',
    }
    assert new <= {"presence_leaves_total", "presence_redis_call_seconds_bucket"}


def test_a_hundred_pools_are_shown_and_the_default_one_is_among_them() -> None:
    names = [f"a-{number:03}" for number in range(MOST_POOLS + 5)]
    assert shown_pools([*names, "main"]) == ["main", *names[: MOST_POOLS - 1]]


async def test_what_somebody_writes_into_the_tallies_makes_no_more_series_than_there_may_be(
    node: ServedNode, redis_url: str
) -> None:
    await series(node.url)
    async with Redis.from_url(redis_url) as redis:
        key = "presence:{main}:tallies"
        await redis.hset(key, mapping={f"disconnected:made_up_{'a' * number}": 1 for number in range(100)})
        await redis.hset(key, mapping={f'offline:"}} evil {number}': 1 for number in range(100)})
        await redis.hset(key, mapping={f"kind_{number}": 1 for number in range(100)})
    after = await series(node.url)
    assert after['presence_leaves_total{cause="other",pool="main",type="offline"}'] == 100
    made_up = [name for name in after if "made_up" in name]
    assert 0 < len(made_up) <= MOST_CAUSES
    assert not [name for name in after if "evil" in name or "kind_" in name]


async def test_no_instrument_is_without_bound(node: ServedNode) -> None:
    problems = node.node.measured.requests.problems
    for number in range(1000):
        problems.at(f"code-{number}").add()
    shown = await series(node.url)
    assert len([name for name in shown if name.startswith("presence_http_problems_total")]) == MOST_SERIES
    assert shown['presence_http_problems_total{code="other"}'] == 1000 - (MOST_SERIES - 1)


# Several workers


async def test_each_of_two_workers_tells_of_all_connections_and_a_dead_ones_go(
    spawn_server: SpawnServer,
) -> None:
    server = spawn_server(WEB_CONCURRENCY="2")
    api, opened = Api(server.url, TEST_API_KEY), "presence_connections_opened_total"
    async with AsyncExitStack() as stack:
        browsers = []
        for number in range(12):
            token = (await api.open(f"user-{number}"))["token"]
            browser = await Browser.join(f"ws{server.url.removeprefix('http')}/ws", token)
            browsers.append(await stack.enter_async_context(browser))
        shown = [await series(server.url) for _ in range(10)]
        assert [each["presence_connections"] for each in shown] == [12] * 10
        await until(server.url, lambda found: found[opened] == 12)
        folder = measured_folder(server.pid)
        psutil.Process(server.pid).children()[0].kill()
        await until(server.url, lambda found: found["presence_connections"] == still_open(browsers))
        assert (await series(server.url))[opened] == 12
    assert folder.stat().st_mode & 0o077 == 0
    await api.close()
    assert server.stop() == 0
    assert not folder.exists()


def still_open(browsers: list[Browser]) -> int:
    return sum(each.socket.state is State.OPEN for each in browsers)


def measured_folder(pid: int) -> Path:
    (folder,) = {child.environ()["PROMETHEUS_MULTIPROC_DIR"] for child in psutil.Process(pid).children()}
    return Path(folder)
