"""Sessions over HTTP: opening, resuming, looking, changing, kicking."""

from __future__ import annotations

import base64
import time

import jwt
import pytest

from server.domain.token import TokenClaims, Tokens
from tests.conftest import TEST_SECRET
from tests.integration.http.api import Api, outcome

COLUMNS = {
    "session_id", "user_id", "language_code", "current_page", "last_seen", "started_at", "completed_at",
    "is_in_interview", "status", "pool", "interview_started_at", "interview_ended_at", "waited_s", "end_reason",
    "metadata", "version",
}  # fmt: skip
# Cursors as nobody was ever given: behind all time, and with an id that can't be one.
HUGE = base64.urlsafe_b64encode(b'[9000000000000000000,"a"]').decode().rstrip("=")
NO_ID = base64.urlsafe_b64encode(b'[1,"a\\u0000"]').decode().rstrip("=")


def nested(depth: int) -> dict[str, object]:
    """An object in which objects are nested so many levels deep."""
    value: dict[str, object] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


async def test_opening_a_session_gives_the_browser_all_it_needs(api: Api) -> None:
    response = await api.call("POST", "/v1/sessions", {"user_id": "anna", "language_code": "de"})
    body = response.json()
    assert response.status_code == 201
    assert set(body) == {"session_id", "token", "ws_url", "client_url", "resumed", "interview"}
    assert body["resumed"] is False
    assert body["ws_url"] == f"{api.url.replace('http', 'ws')}/ws"
    assert body["client_url"] == f"{api.url}/client.js"
    assert body["interview"]["state"] == "none"
    assert body["interview"]["message"].startswith("Sie können")
    claims = jwt.decode(body["token"], TEST_SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["pool"], claims["uid"], claims["lang"]) == (
        body["session_id"],
        "main",
        "anna",
        "de",
    )


async def test_the_same_user_resumes_the_session(api: Api) -> None:
    first = await api.open("anna")
    again = await api.call("POST", "/v1/sessions", {"user_id": "anna"})
    assert again.status_code == 200
    assert again.json()["resumed"] is True
    assert again.json()["session_id"] == first["session_id"]


async def test_a_session_may_have_an_id_of_the_callers_choice(api: Api) -> None:
    assert (await api.open("anna", session_id="anna@2026.1"))["session_id"] == "anna@2026.1"
    again = await api.call("POST", "/v1/sessions", {"user_id": "anna", "session_id": "anna@2026.1"})
    assert (again.status_code, again.json()["resumed"]) == (200, True)


async def test_an_id_that_is_another_users_or_another_pools_is_409(api: Api) -> None:
    await api.open("anna", session_id="s1")
    other_user = await api.call("POST", "/v1/sessions", {"user_id": "ben", "session_id": "s1"})
    other_pool = await api.call("POST", "/v1/sessions", {"user_id": "anna", "session_id": "s1"}, pool="lab")
    assert outcome(other_user) == outcome(other_pool) == (409, "session_id_taken")


async def test_opening_a_session_in_a_new_pool_creates_the_pool(api: Api) -> None:
    assert (await api.call("GET", "/v1/pools/lab")).status_code == 404
    await api.open("anna", pool="lab")
    assert (await api.ok("GET", "/v1/pools/lab"))["limit"] == (await api.ok("GET", "/v1/pools/main"))["limit"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": ""},
        {"user_id": "two words"},
        {"user_id": "anna\n"},
        {"user_id": "anna", "session_id": "a/b"},
        {"user_id": "anna", "language_code": "no language"},
        {"user_id": "anna", "current_page": "x" * 201},
        {"user_id": "anna", "current_page": "a\x00b"},
        {"user_id": "anna", "metadata": []},
        {"user_id": "anna", "metadata": {"a": "x" * 4096}},
        {"user_id": "anna", "metadata": {"a": "\x00"}},
        {"user_id": "anna", "metadata": nested(33)},
        {"user_id": "anna", "name": "Anna"},
    ],
)
async def test_a_session_with_invalid_values_is_not_opened(api: Api, body: dict[str, object]) -> None:
    assert outcome(await api.call("POST", "/v1/sessions", body)) == (422, "invalid")
    assert (await api.ok("GET", "/v1/capacity"))["sessions_active"] == 0


async def test_a_value_that_does_not_fit_is_explained_in_words(api: Api) -> None:
    refused = await api.call("POST", "/v1/sessions", {"user_id": "two words"})
    assert refused.json()["detail"] == (
        "In the body: Expected 1-128 of A-Z a-z 0-9 _ . : @ -, the first a letter or digit - at `$.user_id`."
    )
    for body in ({"language_code": "no language"}, {"current_page": "a\nb"}):
        refused = await api.call("POST", "/v1/sessions", {"user_id": "anna", **body})
        assert "regex" not in refused.json()["detail"]


async def test_a_browser_can_not_store_what_a_listing_could_not_show(api: Api) -> None:
    anna = await api.open("anna")
    path = f"/v1/sessions/{anna['session_id']}"
    for depth in (33, 900):
        changed = await api.browser(anna["token"]).call("PATCH", path, {"metadata": nested(depth)})
        assert outcome(changed) == (422, "invalid")
    await api.browser(anna["token"]).ok("PATCH", path, {"metadata": nested(32)})
    assert (await api.ok("GET", "/v1/sessions"))["sessions"][0]["metadata"] == nested(32)


async def test_metadata_comes_back_as_it_was_given(api: Api) -> None:
    metadata = {"group": "ä\\u0000 is text", "n": [1, 2.5, None, True], "deep": {"a": {}}}
    opened = await api.open("anna", metadata=metadata, current_page="home")
    session = await api.session(opened["session_id"])
    assert session["metadata"] == metadata
    assert session["current_page"] == "home"


async def test_a_session_shows_the_columns_of_the_table_and_what_is_live(api: Api) -> None:
    opened = await api.open("anna", language_code="nl")
    session = await api.session(opened["session_id"])
    assert set(session) == COLUMNS | {"online", "connection", "visible", "interview"}
    assert (session["status"], session["online"], session["connection"]) == ("active", True, None)
    assert session["started_at"].endswith("Z")
    assert session["interview"] == opened["interview"]


async def test_a_browser_sees_its_own_session_only(api: Api) -> None:
    anna, ben = await api.open("anna"), await api.open("ben")
    browser = api.browser(anna["token"])
    assert (await browser.session(anna["session_id"]))["user_id"] == "anna"
    foreign = f"/v1/sessions/{ben['session_id']}"
    for method, path in (
        ("GET", foreign),
        ("PATCH", foreign),
        ("POST", f"{foreign}/interview"),
        ("GET", f"{foreign}/interview"),
        ("DELETE", f"{foreign}/interview"),
        ("POST", f"{foreign}/complete"),
        ("POST", f"{foreign}/heartbeat"),
    ):
        assert outcome(await browser.call(method, path)) == (403, "forbidden"), (method, path)


async def test_a_browser_does_nothing_that_is_an_operators(api: Api) -> None:
    anna = await api.open("anna")
    browser, own = api.browser(anna["token"]), f"/v1/sessions/{anna['session_id']}"
    for method, path in (
        ("GET", "/v1/sessions"),
        ("POST", "/v1/sessions"),
        ("POST", f"{own}/token"),
        ("DELETE", own),
        ("GET", "/v1/pools/main"),
        ("PUT", "/v1/pools/main"),
        ("POST", "/v1/cleanup"),
    ):
        assert outcome(await browser.call(method, path)) == (403, "forbidden"), (method, path)
    assert (await api.session(anna["session_id"]))["status"] == "active"


async def test_without_or_with_an_expired_credential_nothing_opens(api: Api) -> None:
    anna = await api.open("anna")
    path = f"/v1/sessions/{anna['session_id']}"
    assert outcome(await api.browser(None).call("GET", path)) == (401, "no_credential")
    assert outcome(await api.browser("nonsense").call("GET", path)) == (401, "bad_credential")
    old = Tokens([TEST_SECRET], 60).issue(
        TokenClaims(anna["session_id"], "main", "anna", 1), time.time() - 61
    )
    assert outcome(await api.browser(old).call("GET", path)) == (401, "token_expired")


async def test_an_unknown_session_is_404_everywhere(api: Api) -> None:
    for method, path in (
        ("GET", "/v1/sessions/nobody"),
        ("PATCH", "/v1/sessions/nobody"),
        ("DELETE", "/v1/sessions/nobody"),
        ("POST", "/v1/sessions/nobody/token"),
        ("POST", "/v1/sessions/nobody/interview"),
        ("GET", "/v1/sessions/nobody/interview"),
        ("DELETE", "/v1/sessions/nobody/interview"),
        ("POST", "/v1/sessions/nobody/complete"),
    ):
        assert outcome(await api.call(method, path)) == (404, "unknown_session"), (method, path)
        assert outcome(await api.call(method, path, pool="nowhere")) == (404, "unknown_pool"), (method, path)


async def test_page_and_metadata_are_changed_by_patch_and_nothing_else(api: Api) -> None:
    anna = await api.open("anna", current_page="home", metadata={"a": 1})
    path = f"/v1/sessions/{anna['session_id']}"
    changed = await api.ok("PATCH", path, {"current_page": "learning"})
    assert (changed["current_page"], changed["metadata"]) == ("learning", {"a": 1})
    changed = await api.browser(anna["token"]).ok("PATCH", path, {"metadata": {"b": 2}})
    assert (changed["current_page"], changed["metadata"]) == ("learning", {"b": 2})
    assert (await api.ok("PATCH", path, {}))["version"] >= changed["version"]
    assert outcome(await api.call("PATCH", path, {"user_id": "ben"})) == (422, "invalid")
    assert outcome(await api.call("PATCH", path, {"status": "completed"})) == (422, "invalid")


async def test_a_new_token_speaks_for_the_session_and_carries_its_fence(api: Api) -> None:
    anna = await api.open("anna")
    granted = (await api.claim(anna["session_id"])).json()
    token = (await api.ok("POST", f"/v1/sessions/{anna['session_id']}/token"))["token"]
    assert jwt.decode(token, TEST_SECRET, algorithms=["HS256"])["fence"] == granted["fence"]
    assert (await api.browser(token).session(anna["session_id"]))["user_id"] == "anna"


async def test_a_kick_frees_the_permit_and_ends_the_session_once(api: Api) -> None:
    anna = await api.open("anna")
    await api.claim(anna["session_id"])
    for _ in range(2):
        assert outcome(await api.kick(anna["session_id"])) == (200, "none.kicked")
    assert (await api.ok("GET", "/v1/capacity"))["active"] == 0
    assert outcome(await api.complete(anna["session_id"])) == (410, "session_ended")


async def test_an_ended_session_takes_no_more_writes(api: Api) -> None:
    anna = await api.open("anna")
    path = f"/v1/sessions/{anna['session_id']}"
    assert (await api.complete(anna["session_id"])).status_code == 200
    assert outcome(await api.call("PATCH", path, {"current_page": "x"})) == (410, "session_ended")
    assert outcome(await api.call("POST", f"{path}/token")) == (410, "session_ended")
    browser = api.browser(anna["token"])
    assert outcome(await browser.beat(anna["session_id"])) == (410, "session_ended")
    assert outcome(await api.kick(anna["session_id"])) == (410, "session_ended")


async def test_sessions_are_listed_newest_first_page_by_page(api: Api) -> None:
    opened = [(await api.open(f"user-{number}"))["session_id"] for number in range(7)]
    listed, cursor = [], None
    for _ in range(4):
        page = await api.ok("GET", "/v1/sessions", limit=2, **({} if cursor is None else {"cursor": cursor}))
        listed += [session["session_id"] for session in page["sessions"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert len(listed) == 7
    assert set(listed) == set(opened)
    keys = [
        (one["started_at"], one["session_id"]) for one in (await api.ok("GET", "/v1/sessions"))["sessions"]
    ]
    assert keys == sorted(keys, reverse=True)


async def test_the_listing_is_filtered(api: Api) -> None:
    await api.open("anna", language_code="de")
    ben = await api.open("ben", language_code="tr")
    await api.open("cleo", language_code="de")
    await api.browser(ben["token"]).beat(ben["session_id"])
    for filters, expected in (
        ({"language_code": "de"}, {"anna", "cleo"}),
        ({"user_id": "ben"}, {"ben"}),
        ({"status": "active"}, {"anna", "ben", "cleo"}),
        ({"status": "completed"}, set()),
        ({"online": "true"}, {"anna", "ben", "cleo"}),
        ({"online": "false"}, set()),
        ({"online": "true", "language_code": "tr"}, {"ben"}),
    ):
        page = await api.ok("GET", "/v1/sessions", **filters)
        assert {session["user_id"] for session in page["sessions"]} == expected, filters
        assert page["next_cursor"] is None


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 1001},
        {"cursor": "x"},
        {"cursor": "W10"},
        {"cursor": HUGE},
        {"cursor": NO_ID},
        {"status": "gone"},
        {"page": 2},
    ],
)
async def test_a_listing_with_invalid_parameters_is_422(api: Api, params: dict[str, object]) -> None:
    assert outcome(await api.call("GET", "/v1/sessions", **params)) == (422, "invalid")
