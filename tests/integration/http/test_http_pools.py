"""Pools, capacity, cleaning up, health and metrics over HTTP."""

from __future__ import annotations

import pytest

from server.domain.pool import PoolConfig
from tests.integration.http.api import Api, outcome

FIELDS = set(PoolConfig.__struct_fields__)


async def test_capacity_counts_permits_places_and_people(api: Api) -> None:
    await api.ok("PUT", "/v1/pools/main", {"limit": 1})
    anna, ben = await api.open("anna"), await api.open("ben")
    await api.claim(anna["session_id"])
    await api.claim(ben["session_id"])
    capacity = await api.ok("GET", "/v1/capacity")
    assert capacity.pop("as_of").endswith("Z")
    assert capacity == {
        "pool": "main", "mode": "open", "limit": 1, "active": 1, "available": 0, "offered": 0, "waiting": 1,
        "sessions_online": 2, "sessions_active": 2, "eta_s": None, "eta_max_s": None, "recovering": False,
    }  # fmt: skip
    assert (await api.browser(anna["token"]).ok("GET", "/v1/capacity"))["active"] == 1


async def test_a_browser_sees_the_capacity_of_its_own_pool_only(api: Api) -> None:
    anna = await api.open("anna", pool="lab")
    browser = api.browser(anna["token"])
    assert (await browser.ok("GET", "/v1/capacity"))["pool"] == "lab"
    assert (await browser.ok("GET", "/v1/capacity", pool="lab"))["pool"] == "lab"
    assert outcome(await browser.call("GET", "/v1/capacity", pool="main")) == (403, "forbidden")


async def test_an_unknown_pool_is_404(api: Api) -> None:
    for method, path, params in (
        ("GET", "/v1/pools/lab", {}),
        ("GET", "/v1/capacity", {"pool": "lab"}),
        ("GET", "/v1/sessions", {"pool": "lab"}),
        ("POST", "/v1/cleanup", {"pool": "lab"}),
    ):
        assert outcome(await api.call(method, path, **params)) == (404, "unknown_pool"), path


async def test_put_changes_what_is_named_and_creates_the_pool(api: Api) -> None:
    created = await api.ok("PUT", "/v1/pools/lab", {"limit": 7})
    assert set(created) == FIELDS
    assert created["limit"] == 7
    changed = await api.ok("PUT", "/v1/pools/lab", {"mode": "paused", "offer_s": 30})
    assert changed == created | {"mode": "paused", "offer_s": 30}
    assert await api.ok("GET", "/v1/pools/lab") == changed
    assert await api.ok("PUT", "/v1/pools/lab", {}) == changed


async def test_every_field_of_a_pool_can_be_set(api: Api) -> None:
    config = await api.ok("GET", "/v1/pools/main")
    numbers = {name: value for name, value in config.items() if name not in ("mode", "declared_limit")}
    other = {name: value + 1 for name, value in numbers.items()} | {"mode": "paused", "declared_limit": 9}
    assert await api.ok("PUT", "/v1/pools/main", other) == other


async def test_an_app_declares_its_limit_without_undoing_an_operators(api: Api) -> None:
    limit_of = {}
    for step, body in enumerate(
        ({"declared_limit": 5}, {"limit": 2}, {"declared_limit": 5}, {"declared_limit": 6})
    ):
        limit_of[step] = (await api.ok("PUT", "/v1/pools/main", body))["limit"]
    assert list(limit_of.values()) == [5, 2, 2, 6]
    assert (await api.ok("GET", "/v1/pools/main"))["declared_limit"] == 6


async def test_a_declaration_makes_the_pool_and_lets_the_next_in(api: Api) -> None:
    created = await api.ok("PUT", "/v1/pools/lab", {"declared_limit": 1})
    assert (created["limit"], created["declared_limit"]) == (1, 1)
    sessions = [await api.open(name, pool="lab") for name in ("anna", "ben")]
    for opened in sessions:
        await api.call("POST", f"/v1/sessions/{opened['session_id']}/interview", {}, pool="lab")
    await api.ok("PUT", "/v1/pools/lab", {"declared_limit": 2})
    assert (await api.ok("GET", "/v1/capacity", pool="lab"))["waiting"] == 0


async def test_raising_the_limit_lets_the_next_in_at_once(api: Api) -> None:
    await api.ok("PUT", "/v1/pools/main", {"limit": 0})
    anna = await api.open("anna")
    assert outcome(await api.claim(anna["session_id"])) == (202, "waiting")
    await api.ok("PUT", "/v1/pools/main", {"limit": 1})
    assert (await api.session(anna["session_id"]))["interview"]["state"] == "granted"


@pytest.mark.parametrize(
    "body",
    [
        {"limit": -1},
        {"declared_limit": -1},
        {"declared_limit": "3"},
        {"limit": "3"},
        {"limit": 1.5},
        {"mode": "shut"},
        {"offer_s": -1},
        {"permit_grace_max_s": 19},
        {"permit_grace_min_s": 61},
        {"online_window_s": 49},
        {"colour": "red"},
        [],
    ],
)
async def test_what_does_not_fit_is_refused_and_changes_nothing(api: Api, body: object) -> None:
    before = await api.ok("GET", "/v1/pools/main")
    assert outcome(await api.call("PUT", "/v1/pools/main", body)) == (422, "invalid")
    assert await api.ok("GET", "/v1/pools/main") == before
    assert outcome(await api.call("PUT", "/v1/pools/new", body)) == (422, "invalid")
    assert outcome(await api.call("GET", "/v1/pools/new")) == (404, "unknown_pool")


async def test_a_misfit_names_the_value_that_would_do(api: Api) -> None:
    response = await api.call("PUT", "/v1/pools/main", {"permit_grace_max_s": 5})
    assert "20 would do" in response.json()["detail"]


async def test_a_pool_name_with_bad_characters_is_422(api: Api) -> None:
    assert outcome(await api.call("PUT", "/v1/pools/a%7Bb%7D", {})) == (422, "invalid")
    assert outcome(await api.call("POST", "/v1/sessions", {"user_id": "anna"}, pool="{main}")) == (
        422,
        "invalid",
    )


async def test_cleaning_up_leaves_those_who_are_here(api: Api) -> None:
    await api.open("anna")
    assert await api.ok("POST", "/v1/cleanup") == {"abandoned": 0}
    assert await api.ok("POST", "/v1/cleanup", {"hours": 0.5}) == {"abandoned": 0}
    for hours in (0, -1, "3"):
        assert outcome(await api.call("POST", "/v1/cleanup", {"hours": hours})) == (422, "invalid")


async def test_readiness_says_how_everything_is(api: Api) -> None:
    response = await api.browser(None).call("GET", "/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "ready": True, "redis": "ok", "postgres": "off", "recovering": False, "draining": False,
        "flush_lag_s": None, "backlog": None, "flush_failures": None, "set_aside": None,
    }  # fmt: skip


async def test_metrics_show_each_pool(api: Api) -> None:
    anna = await api.open("anna")
    await api.claim(anna["session_id"])
    await api.open("ben", pool="lab")
    response = await api.browser(None).call("GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    for line in (
        'presence_active{pool="main"} 1.0',
        'presence_active{pool="lab"} 0.0',
        'presence_online{pool="lab"} 1.0',
        'presence_limit{pool="main"} 3.0',
        "presence_connections 0.0",
        "presence_redis_up 1.0",
    ):
        assert line in lines
