"""The examples in the OpenAPI document come from a real server; UPDATE_DOCS=1 records them anew."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.http.api import OPERATIONS
from server.http.openapi import operation_id
from server.http.problems import MEDIA_TYPE
from tests.conftest import TEST_API_KEY, Serve, ServedNode

EXAMPLES = Path(__file__).parents[3] / "server/http/examples.json"
UPDATE = "run UPDATE_DOCS=1 pytest tests/integration/http/test_openapi_examples.py"
TOKEN = re.compile(r"(eyJ[\w-]+)\.[\w-]+\.[\w-]+")
PATTERNS = [(each, re.compile(re.sub(r"{[^}]*}", "[^/]+", each.path))) for each in OPERATIONS]
Json = dict[str, Any]


class Recorder:
    """Keeps the first body and answer of each operation, and the first problem of each status."""

    def __init__(self) -> None:
        self.found: dict[str, Json] = {}

    async def see(self, response: httpx.Response) -> None:
        """Note an answer."""
        await response.aread()
        request = response.request
        if response.headers.get("content-type") == MEDIA_TYPE:
            self._note("problems", str(response.status_code), response.content)
            return
        name = _operation(request)
        if response.content:
            self._note(name, str(response.status_code), response.content)
        if request.content:
            self._note(name, "body", request.content)

    def _note(self, of: str, part: str, content: bytes) -> None:
        text = TOKEN.sub(r"\1.…", content.decode())
        self.found.setdefault(of, {}).setdefault(part, json.loads(text))


def _operation(request: httpx.Request) -> str:
    (name,) = {
        operation_id(each)
        for each, pattern in PATTERNS
        if each.method == request.method and pattern.fullmatch(request.url.path)
    }
    return name


class Caller:
    """Calls a server, with the API key unless it is told otherwise."""

    def __init__(self, url: str, recorder: Recorder) -> None:
        hooks = {"response": [recorder.see]}
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, event_hooks=hooks)

    async def __call__(
        self, method: str, path: str, body: object = None, *, by: str | None = TEST_API_KEY
    ) -> Json:
        headers = {} if by is None else {"Authorization": f"Bearer {by}"}
        answer = await self.http.request(method, path, json=body, headers=headers)
        return dict(answer.json()) if answer.content else {}


@pytest.fixture
async def served(serve: Serve, database_url: str) -> ServedNode:
    """A server with a history, as the outside knows it."""
    return await serve(
        database_url=database_url, public_url="https://presence.example", max_concurrent=1, flush_s=3600
    )


async def test_the_examples_are_what_a_server_says(served: ServedNode, serve: Serve) -> None:
    recorder = Recorder()
    call = Caller(served.url, recorder)
    anna = await interviews(call)
    await refusals(call, anna)
    await served.node.flush()
    await operators(call, anna)
    without_history = Caller((await serve()).url, recorder)
    await without_history("GET", "/v1/analytics/plan")
    served.node.draining = True
    await call("GET", "/readyz", by=None)
    for each in (call, without_history):
        await each.http.aclose()
    if "UPDATE_DOCS" in os.environ:
        EXAMPLES.write_text(json.dumps(recorder.found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    assert _shape(kept) == _shape(recorder.found), UPDATE


def _shape(examples: Json) -> dict[str, set[str]]:
    return {name: set(parts) for name, parts in examples.items()}


async def interviews(call: Caller) -> Json:
    """Anna gets in, Ben waits, Cem finds the line closed; Anna's page beats over HTTP."""
    person = {"user_id": "anna", "language_code": "de", "current_page": "home", "metadata": {"arm": "B"}}
    anna = await call("POST", "/v1/sessions", person)
    await call("POST", "/v1/sessions", person)
    ben = await call("POST", "/v1/sessions", {"user_id": "ben", "language_code": "en"})
    own = f"/v1/sessions/{anna['session_id']}"
    beat = await call("POST", f"{own}/heartbeat", {"tab": "t-1", "visible": True}, by=anna["token"])
    await call("POST", f"{own}/interview", {"takeover": False, "wait": True})
    waiting = f"/v1/sessions/{ben['session_id']}/interview"
    await call("POST", waiting)
    await call("GET", waiting)
    cem = await call("POST", "/v1/sessions", {"user_id": "cem"})
    await call("POST", f"/v1/sessions/{cem['session_id']}/interview", {"wait": False})
    await call("PATCH", own, {"current_page": "interview"})
    await call("GET", own)
    await call("GET", "/v1/sessions")
    await call("GET", "/v1/capacity")
    await call("POST", f"{own}/token")
    await call(
        "POST", f"{own}/bye", {"token": anna["token"], "connection_id": beat["connection_id"]}, by=None
    )
    return anna


async def refusals(call: Caller, anna: Json) -> None:
    """One problem of each status."""
    own = f"/v1/sessions/{anna['session_id']}"
    await call("GET", "/v1/capacity", by=None)
    await call("GET", "/v1/pools/main", by=anna["token"])
    await call("GET", "/v1/sessions/nobody")
    await call("DELETE", f"{own}/interview?fence=1")
    await call("PUT", "/v1/pools/main", {"mode": "ajar"})
    await call("POST", f"{own}/complete", {})
    await call("POST", f"{own}/token")
    key = {"Authorization": f"Bearer {TEST_API_KEY}"}
    await call.http.post("/v1/cleanup", content="{", headers=key)
    await call.http.post("/v1/cleanup", content=" " * 70_000, headers=key)


async def operators(call: Caller, anna: Json) -> None:
    """What those who run a study ask and change."""
    for path in ("/healthz", "/readyz"):
        await call("GET", path, by=None)
    await call("PUT", "/v1/pools/main", {"limit": 5, "offer_s": 60})
    await call("GET", "/v1/pools/main")
    await call("GET", "/v1/pools")
    await call("POST", "/v1/cleanup", {"hours": 3})
    for name in ("languages", "durations", "waits", "endings", "peak-hours", "concurrency", "recent", "plan"):
        await call("GET", f"/v1/analytics/{name}")
    sessions = (await call("GET", "/v1/sessions?status=active"))["sessions"]
    left, thrown_out = (f"/v1/sessions/{each['session_id']}" for each in sessions)
    await call("DELETE", f"{left}/interview")
    await call("DELETE", thrown_out)
    await call("DELETE", "/v1/users/anna")
