"""Signing in to the dashboard over HTTP, and what its cookie opens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.conftest import TEST_API_KEY, Serve
from tests.integration.http.api import Api, outcome

COOKIE = "presence_dashboard"
CSRF = {"X-Presence-CSRF": "1"}
NEW_KEY = "a-newer-api-key-for-tests-0123456789"
TRIES = 10
SignIn = Callable[..., Awaitable[httpx.Response]]
OpenClient = Callable[[str], httpx.AsyncClient]


@pytest.fixture
async def client_of() -> AsyncIterator[OpenClient]:
    """Clients that keep cookies, as browsers do."""
    async with AsyncExitStack() as stack:
        clients: list[httpx.AsyncClient] = []

        def make(url: str) -> httpx.AsyncClient:
            clients.append(httpx.AsyncClient(base_url=url, timeout=10, trust_env=False))
            stack.push_async_callback(clients[-1].aclose)
            return clients[-1]

        yield make


@pytest.fixture
async def client(serve: Serve, client_of: OpenClient) -> httpx.AsyncClient:
    """A browser at a running server."""
    return client_of((await serve(offer_s=0)).url)


async def sign_in(client: httpx.AsyncClient, key: str = TEST_API_KEY, **headers: str) -> httpx.Response:
    return await client.post("/dashboard/sign-in", data={"api_key": key}, headers=headers)


async def test_without_a_sign_in_the_dashboard_is_a_form(client: httpx.AsyncClient) -> None:
    answer = await client.get("/dashboard")
    assert answer.status_code == 200
    assert 'action="/dashboard/sign-in"' in answer.text
    assert "<script" not in answer.text
    assert 'type="password"' in answer.text


async def test_the_right_key_opens_the_dashboard_and_the_api(client: httpx.AsyncClient) -> None:
    answer = await sign_in(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    assert 'action="/dashboard/sign-in"' not in (await client.get("/dashboard")).text
    assert (await client.get("/v1/capacity", headers=CSRF)).json()["pool"] == "main"
    changed = await client.put("/v1/pools/main", json={"limit": 7}, headers=CSRF)
    assert changed.json()["limit"] == 7


async def test_the_cookie_is_for_this_site_and_for_no_script(client: httpx.AsyncClient) -> None:
    cookie = (await sign_in(client)).headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= attributes
    assert "secure" not in attributes
    assert TEST_API_KEY not in cookie


async def test_behind_https_the_cookie_is_secure(serve: Serve, client_of: OpenClient) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "presence.example"}
    trusting = client_of((await serve(trusted_proxies=("127.0.0.1",))).url)
    assert "secure" in (await sign_in(trusting, **forwarded)).headers["set-cookie"].lower()
    wary = client_of((await serve()).url)
    assert "secure" not in (await sign_in(wary, **forwarded)).headers["set-cookie"].lower()
    public = client_of((await serve(public_url="https://presence.example")).url)
    assert "secure" in (await sign_in(public, Host="presence.example")).headers["set-cookie"].lower()
    assert "secure" not in (await sign_in(public)).headers["set-cookie"].lower()


@pytest.mark.parametrize("key", ["", "wrong", TEST_API_KEY + "x", TEST_API_KEY[:-1], "ключ", "\x00", "<b>"])
async def test_a_wrong_key_is_refused_and_not_repeated(client: httpx.AsyncClient, key: str) -> None:
    answer = await sign_in(client, key)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert 'role="alert">That is not an API key of this server.' in answer.text
    assert key == "" or key not in answer.text.replace("<body", "")
    assert (await client.get("/v1/capacity", headers=CSRF)).status_code == 401


async def test_the_address_of_a_refused_sign_in_leads_back_to_the_form(client: httpx.AsyncClient) -> None:
    refused = await sign_in(client, "wrong")
    answer = await client.get(refused.url.path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")


@pytest.mark.parametrize("body", [b"", b"api_key", b"x=1", b"\xff\xfe", b"api_key=" + b"a" * 100_000])
async def test_what_is_no_form_is_a_wrong_key(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post("/dashboard/sign-in", content=body)).status_code == 401


async def test_the_cookie_opens_nothing_without_the_header(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    for method, path in (("GET", "/v1/capacity"), ("PUT", "/v1/pools/main"), ("GET", "/v1/sessions")):
        answer = await client.request(method, path, json={} if method == "PUT" else None)
        assert outcome(answer) == (403, "forbidden"), path
        assert "X-Presence-CSRF" in answer.json()["detail"]


async def test_the_header_alone_opens_nothing(client: httpx.AsyncClient) -> None:
    assert outcome(await client.get("/v1/capacity", headers=CSRF)) == (401, "no_credential")


async def test_the_cookie_is_no_bearer_token_and_a_session_token_no_cookie(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    stolen = {"Authorization": f"Bearer {client.cookies[COOKIE]}", **CSRF}
    client.cookies.clear()
    assert outcome(await client.get("/v1/capacity", headers=stolen)) == (401, "bad_credential")
    api = Api(str(client.base_url), TEST_API_KEY)
    opened = await api.open("anna")
    await api.close()
    client.cookies.set(COOKIE, opened["token"])
    assert outcome(await client.get("/v1/capacity", headers=CSRF)) == (401, "bad_credential")
    assert 'action="/dashboard/sign-in"' in (await client.get("/dashboard")).text


async def test_a_page_of_an_allowed_origin_may_send_a_token_but_not_ride_on_the_cookie(
    serve: Serve, client_of: OpenClient
) -> None:
    client = client_of((await serve(allowed_origins=("https://app.example",))).url)
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-presence-csrf",
    }
    answer = await client.options("/v1/capacity", headers=asked)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "csrf" not in answer.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_bearer_goes_before_the_cookie(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    answer = await client.get("/v1/capacity", headers={"Authorization": "Bearer nonsense", **CSRF})
    assert outcome(answer) == (401, "bad_credential")


async def test_the_cookie_does_not_pass_for_a_browsers_own_token(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    answer = await client.post("/v1/sessions/s1/heartbeat", json={"tab": "t"}, headers=CSRF)
    assert outcome(answer) == (403, "forbidden")


async def test_another_key_signs_everybody_out_who_came_with_the_old_one(
    serve: Serve, client_of: OpenClient
) -> None:
    before = client_of((await serve(api_key=(TEST_API_KEY,))).url)
    await sign_in(before)
    both = client_of((await serve(api_key=(NEW_KEY, TEST_API_KEY))).url)
    after = client_of((await serve(api_key=(NEW_KEY,))).url)
    for client in (both, after):
        client.cookies.set(COOKIE, before.cookies[COOKIE])
    assert (await both.get("/v1/capacity", headers=CSRF)).status_code == 200
    answer = await after.get("/v1/capacity", headers=CSRF)
    assert outcome(answer) == (401, "bad_credential")
    assert "no longer in use" in answer.json()["detail"]
    assert 'action="/dashboard/sign-in"' in (await after.get("/dashboard")).text


async def test_after_ten_tries_in_a_minute_even_the_right_key_must_wait(client: httpx.AsyncClient) -> None:
    for _ in range(TRIES):
        assert (await sign_in(client, "wrong")).status_code == 401
    answer = await sign_in(client)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "set-cookie" not in answer.headers
    assert (await client.get("/dashboard")).status_code == 200


async def test_each_address_behind_a_trusted_proxy_has_its_own_tries(
    serve: Serve, client_of: OpenClient
) -> None:
    client = client_of((await serve(trusted_proxies=("127.0.0.1",))).url)
    addresses = [f"2001:db8::{number:x}" for number in range(TRIES)]  # one network, one client
    for address in addresses:
        assert (await sign_in(client, "wrong", **{"X-Forwarded-For": address})).status_code == 401
    for address, status in (("2001:db8::ffff", 429), ("2001:db8:0:1::1", 303), ("203.0.113.9", 303)):
        assert (await sign_in(client, **{"X-Forwarded-For": address})).status_code == status, address


async def test_nobody_escapes_the_count_by_claiming_another_address(client: httpx.AsyncClient) -> None:
    statuses = {
        (await sign_in(client, "wrong", **{"X-Forwarded-For": f"203.0.113.{number}"})).status_code
        for number in range(TRIES + 1)
    }
    assert statuses == {401, 429}


@pytest.mark.parametrize("path", ["/dashboard/sign-in", "/dashboard/sign-out"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_form_of_another_site_does_nothing(
    client: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    await sign_in(client)
    answer = await client.post(path, data={"api_key": TEST_API_KEY}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_our_own_form_is_taken_also_behind_a_proxy_that_renames_the_host(
    serve: Serve, client_of: OpenClient
) -> None:
    client = client_of((await serve(trusted_proxies=("127.0.0.1",))).url)
    own = {"Origin": "https://presence.example", "Sec-Fetch-Site": "same-origin"}
    assert (await sign_in(client, **own, **{"X-Forwarded-Host": "presence.example"})).status_code == 303
    assert (await sign_in(client, **own)).status_code == 403


async def test_signing_out_takes_the_cookie_back(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    answer = await client.post("/dashboard/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    assert COOKIE not in client.cookies
    assert 'action="/dashboard/sign-in"' in (await client.get("/dashboard")).text


@pytest.mark.parametrize("is_in", [False, True])
async def test_the_page_is_not_kept_framed_or_fed_from_elsewhere(
    client: httpx.AsyncClient, is_in: bool
) -> None:
    if is_in:
        await sign_in(client)
    headers = (await client.get("/dashboard")).headers
    policy = headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]


async def test_who_follows_a_link_on_another_site_is_not_asked_for_the_key_again(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/dashboard", headers={"Sec-Fetch-Site": "cross-site"})
    assert 'http-equiv="refresh"' in answer.text
    again = await client.get("/dashboard", headers={"Sec-Fetch-Site": "same-origin"})
    assert 'action="/dashboard/sign-in"' in again.text


async def test_the_root_leads_to_the_dashboard_and_in_development_to_the_demo(
    serve: Serve, client_of: OpenClient
) -> None:
    for demo, place in ((False, "/dashboard"), (True, "/demo")):
        answer = await client_of((await serve(demo=demo)).url).get("/")
        assert (answer.status_code, answer.headers["location"]) == (307, place)


async def test_the_events_tell_a_change_from_the_dashboard_from_one_of_a_program(
    client: httpx.AsyncClient, redis_url: str
) -> None:
    await sign_in(client)
    await client.put("/v1/pools/lab", json={"limit": 2}, headers=CSRF)
    await client.put("/v1/pools/lab", json={"limit": 3}, headers={"Authorization": f"Bearer {TEST_API_KEY}"})
    async with Redis.from_url(redis_url) as redis:
        events: Any = await redis.xrange("presence:{lab}:events")
    actors = [fields[b"actor"] for _, fields in events if fields[b"type"] == b"pool_changed"]
    assert actors[-2:] == [b"dashboard", b"api"]


async def test_the_pools_are_listed_by_name(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    for pool in ("zoo", "lab"):
        await client.put(f"/v1/pools/{pool}", json={}, headers=CSRF)
    assert (await client.get("/v1/pools", headers=CSRF)).json() == {"pools": ["lab", "main", "zoo"]}
    assert outcome(await client.get("/v1/pools")) == (403, "forbidden")


async def test_files_of_the_dashboard_are_asked_for_again_and_not_sent_again(
    client: httpx.AsyncClient,
) -> None:
    first = await client.get("/dashboard/dashboard.css")
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get("/dashboard/dashboard.css", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    for name in ("index.html", "sign_in.html", "../demo.js", "tsconfig.json"):
        assert (await client.get(f"/dashboard/{name}")).status_code == 404
