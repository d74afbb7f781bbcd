"""The routing layer: validation, admission and problems, where no store is needed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from structlog.testing import capture_logs

from server.domain import errors
from server.domain.origins import Origins
from server.domain.pool import Mode
from server.domain.token import TokenClaims, Tokens
from server.http import problems
from server.http.addresses import public_url, websocket_url
from server.http.api import EXCEPTION_HANDLERS, OPERATIONS, routes
from server.http.auth import Access
from server.http.cors import Cors
from server.http.routing import Answer, Call, Input, Params, PoolParams, operation, routes_of
from server.node.hub import Hub
from server.settings import Settings

KEY = "a-key-of-at-least-24-characters"
OTHER_KEY = "another-key-of-24-characters-or-more"
SECRET = "a-secret-of-at-least-32-bytes-for-tests"
PAGE = "https://study.example"
AS_SERVER = {"Authorization": f"Bearer {KEY}"}


class Toy(Input, frozen=True):
    name: str
    size: int = 1
    free: dict[str, Any] | None = None
    taste: Literal["sweet", "sour"] | None = None


class ToyParams(PoolParams, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    dash: int | None = msgspec.field(name="with-dash", default=None)
    online: bool | None = None
    mode: Mode | None = None


class Echo(msgspec.Struct, frozen=True):
    pool: str
    by_key: bool
    name: str | None = None
    limit: int | None = None


@operation("POST", "/toys", Access.KEY, answers={201: Echo})
async def make(call: Call[Toy, ToyParams]) -> Answer:
    """Make a toy.

    Of any size.
    """
    return Answer(Echo(call.pool, call.by_key, call.body.name, call.query.limit), 201)


@operation("GET", "/toys", Access.ANYONE, answers={200: Echo})
async def see(call: Call[None, None]) -> Answer:
    """See toys."""
    return Answer(Echo(call.pool, call.by_key))


@operation("GET", "/toys/{session_id}", Access.KEY_OR_OWN_TOKEN, answers={200: Echo})
async def own(call: Call[None, PoolParams]) -> Answer:
    """See one's own."""
    return Answer(Echo(call.pool, call.by_key))


@operation("GET", "/broken", Access.ANYONE, answers={})
async def broken(call: Call[None, Params]) -> Answer:
    """Break."""
    raise ZeroDivisionError("the inside story")


@operation("GET", "/away", Access.ANYONE, answers={})
async def away(call: Call[None, Params]) -> Answer:
    """Find nobody."""
    raise errors.RedisAwayError


def settings(**overrides: str) -> Settings:
    return Settings.model_validate({"secret": SECRET, "api_key": f"{OTHER_KEY},{KEY}", **overrides})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Talks to an application without Redis: what needs no store must work without one."""
    app = Starlette(
        routes=[*routes(development=True), *routes_of([make, see, own, broken, away])],
        exception_handlers=EXCEPTION_HANDLERS,
        middleware=[Middleware(Cors, Origins([PAGE]))],
    )
    app.state.node = SimpleNamespace(settings=settings(), tokens=Tokens([SECRET], ttl_s=600), hub=Hub())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        yield client


def as_session(session_id: str = "s1", pool: str = "main", *, age_s: float = 0) -> dict[str, str]:
    token = Tokens([SECRET], ttl_s=600).issue(TokenClaims(session_id, pool, "anna", 1), time.time() - age_s)
    return {"Authorization": f"bearer {token}"}


def is_problem(response: httpx.Response, status: int, code: str) -> bool:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert body["detail"]
    return (response.status_code, body["status"], body["code"]) == (status, status, code)


async def test_a_valid_request_reaches_its_handler(client: httpx.AsyncClient) -> None:
    response = await client.post("/toys?pool=lab&limit=7", json={"name": "ball"}, headers=AS_SERVER)
    assert response.status_code == 201
    assert response.json() == {"pool": "lab", "by_key": True, "name": "ball", "limit": 7}
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"


async def test_the_content_type_of_a_body_does_not_matter(client: httpx.AsyncClient) -> None:
    headers = AS_SERVER | {"Content-Type": "text/plain"}
    assert (await client.post("/toys", content=b'{"name": "ball"}', headers=headers)).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"name": "\xff"}',
        b'{"name": NaN}',
        b'{"name": "a", "free": {"a": ' + b"[" * 30_000,
    ],
)
async def test_a_body_that_is_no_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    assert is_problem(await client.post("/toys", content=body, headers=AS_SERVER), 400, "unparsable")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"name": 3}',
        b'{"name": "a", "nmae": "b"}',
        b'{"name": "a", "size": "b"}',
    ],
)
async def test_a_body_with_missing_wrong_or_unknown_fields_is_422(
    client: httpx.AsyncClient, body: bytes
) -> None:
    response = await client.post("/toys", content=body, headers=AS_SERVER)
    assert is_problem(response, 422, "invalid")
    assert response.json()["detail"].startswith("In the body: ")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=11",
        "limit=x",
        "online=perhaps",
        "pool=",
        "pool=no%20spaces",
        "pool=a%0A",
        "colour=red",
        "limit=2&limit=3",
        "mode=null",
        "with-dash=null",
    ],
)
async def test_a_query_with_wrong_or_unknown_parameters_is_422(client: httpx.AsyncClient, query: str) -> None:
    assert is_problem(
        await client.post(f"/toys?{query}", json={"name": "a"}, headers=AS_SERVER), 422, "invalid"
    )


async def test_a_wrong_choice_is_told_the_right_ones(client: httpx.AsyncClient) -> None:
    response = await client.post("/toys?mode=ajar", json={"name": "a"}, headers=AS_SERVER)
    assert response.json()["detail"] == (
        "In the query: Invalid enum value 'ajar' - at `$.mode`: it may be open, paused, closed."
    )
    response = await client.post("/toys", json={"name": "a", "taste": "bitter"}, headers=AS_SERVER)
    assert response.json()["detail"].endswith("at `$.taste`: it may be sweet, sour.")


async def test_a_body_over_64_kib_is_413(client: httpx.AsyncClient) -> None:
    fits = b'{"name": "' + b"x" * (64 * 1024 - 12) + b'"}'
    assert (await client.post("/toys", content=fits, headers=AS_SERVER)).status_code == 201
    response = await client.post("/toys", content=fits + b" ", headers=AS_SERVER)
    assert is_problem(response, 413, "too_large")


@pytest.mark.parametrize("session_id", ["no%20spaces", ".dot", "x" * 129, "a%00", "a%0A", "%C3%A4"])
async def test_an_id_with_bad_characters_is_422(client: httpx.AsyncClient, session_id: str) -> None:
    assert is_problem(await client.get(f"/toys/{session_id}", headers=AS_SERVER), 422, "invalid")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", KEY])
async def test_without_a_credential_it_is_401(client: httpx.AsyncClient, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = await client.post("/toys", headers=headers)
    assert is_problem(response, 401, "no_credential")
    assert response.headers["www-authenticate"] == 'Bearer realm="presence"'


async def test_a_wrong_key_and_a_forged_token_are_401(client: httpx.AsyncClient) -> None:
    forged = Tokens(["x" * 32], 600).issue(TokenClaims("s1", "main", "anna", 1), time.time())
    for credential in (KEY[:-1], KEY + "x", forged, "\xe4"):
        header = b"Bearer " + credential.encode("latin-1")
        response = await client.get("/toys/s1", headers={b"Authorization": header})
        assert is_problem(response, 401, "bad_credential")
        assert 'error="invalid_token"' in response.headers["www-authenticate"]


async def test_every_key_opens(client: httpx.AsyncClient) -> None:
    for key in (KEY, OTHER_KEY):
        response = await client.get("/toys/s1", headers={"Authorization": f"Bearer {key}"})
        assert response.json() == {"pool": "main", "by_key": True, "name": None, "limit": None}


async def test_a_token_opens_its_own_session_in_its_own_pool(client: httpx.AsyncClient) -> None:
    for query in ("", "?pool=lab"):
        response = await client.get(f"/toys/s1{query}", headers=as_session(pool="lab"))
        assert response.json() == {"pool": "lab", "by_key": False, "name": None, "limit": None}


async def test_a_token_opens_no_other_session_no_other_pool_and_nothing_of_an_operator(
    client: httpx.AsyncClient,
) -> None:
    assert is_problem(await client.get("/toys/s2", headers=as_session()), 403, "forbidden")
    assert is_problem(await client.get("/toys/s1?pool=lab", headers=as_session()), 403, "forbidden")
    assert is_problem(await client.post("/toys", headers=as_session()), 403, "forbidden")


async def test_an_expired_token_is_401(client: httpx.AsyncClient) -> None:
    assert is_problem(await client.get("/toys/s1", headers=as_session(age_s=601)), 401, "token_expired")


async def test_a_key_gives_no_heartbeat(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/sessions/s1/heartbeat", json={"tab": "t"}, headers=AS_SERVER)
    assert is_problem(response, 403, "forbidden")


async def test_an_expired_token_may_connect_but_not_go_on(client: httpx.AsyncClient) -> None:
    body = {"tab": "t", "connection_id": "c1"}
    response = await client.post("/v1/sessions/s1/heartbeat", json=body, headers=as_session(age_s=601))
    assert is_problem(response, 401, "token_expired")


async def test_bye_takes_its_token_from_the_body(client: httpx.AsyncClient) -> None:
    token = as_session()["Authorization"].removeprefix("bearer ")
    for session_id, text, status, code in (
        ("s1", "x", 401, "bad_token"),
        ("s2", token, 403, "forbidden"),
    ):
        body = {"token": text, "connection_id": "c1"}
        response = await client.post(f"/v1/sessions/{session_id}/bye", json=body)
        assert is_problem(response, status, code)


async def test_an_unknown_address_is_404(client: httpx.AsyncClient) -> None:
    assert is_problem(await client.get("/nowhere"), 404, "not_found")
    assert is_problem(await client.get("/client/nothing.js"), 404, "not_found")
    assert is_problem(await client.get("/v1/sessions/a/b/c", headers=AS_SERVER), 404, "not_found")


async def test_an_unknown_method_is_405_and_told_the_known_ones(client: httpx.AsyncClient) -> None:
    response = await client.delete("/toys")
    assert is_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"


async def test_head_is_answered_like_get(client: httpx.AsyncClient) -> None:
    assert (await client.head("/healthz")).status_code == 200


async def test_what_breaks_inside_is_500_logged_and_kept_inside(client: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        response = await client.get("/broken")
    assert is_problem(response, 500, "internal")
    assert "story" not in response.text
    assert [(line["event"], line["log_level"]) for line in logs] == [("request_failed", "error")]


async def test_a_refused_request_is_one_line_in_the_log_without_its_credential(
    client: httpx.AsyncClient,
) -> None:
    with capture_logs() as logs:
        await client.get("/toys/s2", headers=as_session())
    assert len(logs) == 1
    assert logs[0]["code"] == "forbidden"
    assert "eyJ" not in str(logs)


async def test_redis_away_is_503_and_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    response = await client.get("/away")
    assert is_problem(response, 503, "redis_away")
    assert int(response.headers["retry-after"]) > 0


async def test_health_and_client_files_ignore_what_is_appended_to_their_address(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.get("/healthz?x=1")).json() == {"status": "ok"}
    assert (await client.get("/client.js?v=2")).status_code == 200


async def test_the_root_leads_to_the_demo_in_development(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/demo")


async def test_the_client_is_served_to_every_page_and_revalidated(client: httpx.AsyncClient) -> None:
    for path, kind in (("/client.js", "text/javascript"), ("/client.d.ts", "application/typescript")):
        first = await client.get(path, headers={"Origin": "https://anywhere.example"})
        assert first.headers["content-type"] == f"{kind}; charset=utf-8"
        assert first.headers["access-control-allow-origin"] == "*"
        assert "no-cache" in first.headers["cache-control"]
        etag = first.headers["etag"]
        assert etag.startswith('"')
        for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
            again = await client.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert (await client.get(path, headers={"If-None-Match": '"x"'})).status_code == 200


async def test_every_module_that_the_client_imports_is_served(client: httpx.AsyncClient) -> None:
    missing = []
    for name in _imported(await client.get("/client.js"), "/"):
        response = await client.get(name)
        if response.status_code != 200:
            missing.append(name)
    assert not missing


def _imported(response: httpx.Response, base: str) -> list[str]:
    lines = [
        line
        for line in response.text.splitlines()
        if line.startswith(("import", "export")) and " from " in line
    ]
    return [base + line.rpartition(" from ")[2].strip("\"'; ").removeprefix("./") for line in lines]


@pytest.mark.parametrize(
    "path", ["/client/package.json", "/client/client.test.js", "/client/..%2F__init__.py", "/client/x.py"]
)
async def test_nothing_else_of_the_package_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_pages_of_allowed_origins_may_read_the_answers_and_the_problems(
    client: httpx.AsyncClient,
) -> None:
    for path in ("/toys", "/nowhere", "/broken"):
        response = await client.get(path, headers={"Origin": PAGE})
        assert response.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in response.headers["vary"]


async def test_pages_of_other_origins_may_not(client: httpx.AsyncClient) -> None:
    response = await client.get("/toys", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers
    assert "Origin" in response.headers["vary"]


@pytest.mark.parametrize(
    ("origin", "status"), [(PAGE, 204), ("http://here", 204), ("https://evil.example", 403)]
)
async def test_a_preflight_is_answered_for_allowed_origins(
    client: httpx.AsyncClient, origin: str, status: int
) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "PATCH"}
    response = await client.options("/v1/sessions/s1", headers=headers)
    assert response.status_code == status
    if status == 204:
        assert response.headers["access-control-allow-origin"] == origin
        assert "PATCH" in response.headers["access-control-allow-methods"]
        assert "Authorization" in response.headers["access-control-allow-headers"]


def test_every_operation_declares_what_it_takes_gives_and_is_for() -> None:
    for each in OPERATIONS:
        body, query = each.types
        assert each.summary.endswith("."), each.path
        assert each.answers, each.path
        assert body is type(None) or msgspec.json.schema(body)
        assert query is type(None) or issubclass(query, Params)
        for answer in each.answers.values():
            assert answer in (None, bytes) or msgspec.json.schema(answer)
    assert make.summary == "Make a toy."
    assert make.description == "Of any size."


def test_no_two_operations_share_method_and_path() -> None:
    declared = [(each.method, each.path) for each in OPERATIONS]
    assert len(set(declared)) == len(declared)


def test_every_error_of_the_domain_has_a_status_of_its_own() -> None:
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.PresenceError):
            assert error in problems.STATUS, error


@pytest.mark.parametrize(
    ("overrides", "headers", "expected"),
    [
        ({"public_url": "https://presence.example/"}, {}, "https://presence.example"),
        ({}, {}, "http://here:8000"),
        ({}, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example"}, "http://here:8000"),
        (
            {"trusted_proxies": "10.0.0.0/8"},
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example"},
            "https://a.example",
        ),
        (
            {"trusted_proxies": "10.1.2.3"},
            {"X-Forwarded-Proto": "http, https", "X-Forwarded-Host": "evil.example, a.example"},
            "https://a.example",
        ),
        ({"trusted_proxies": "*"}, {"X-Forwarded-Proto": "https"}, "https://here:8000"),
        ({"trusted_proxies": "192.168.0.1"}, {"X-Forwarded-Proto": "https"}, "http://here:8000"),
        ({"trusted_proxies": "*"}, {"X-Forwarded-Host": "a/b?c"}, "http://here:8000"),
        ({"trusted_proxies": "*"}, {"X-Forwarded-Proto": "javascript"}, "http://here:8000"),
    ],
)
def test_only_a_trusted_proxy_says_how_browsers_reach_us(
    overrides: dict[str, str], headers: dict[str, str], expected: str
) -> None:
    sent = {"Host": "here:8000", **headers}
    scope = {
        "type": "http",
        "scheme": "http",
        "path": "/v1/sessions",
        "query_string": b"",
        "client": ("10.1.2.3", 4711),
        "server": ("10.9.9.9", 8000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
    }
    assert public_url(Request(scope), settings(**overrides)) == expected


def test_the_websocket_is_as_secure_as_the_page() -> None:
    assert websocket_url("https://presence.example") == "wss://presence.example/ws"
    assert websocket_url("http://127.0.0.1:8000") == "ws://127.0.0.1:8000/ws"
