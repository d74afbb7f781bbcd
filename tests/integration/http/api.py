"""A client of the HTTP API for tests: an API key's view, or a browser's."""

from __future__ import annotations

from typing import Any

import httpx

Json = dict[str, Any]


class Api:
    """Talks to a server over HTTP with an API key; `browser` talks with a session token instead."""

    def __init__(self, url: str, credential: str | None) -> None:
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, headers=headers, timeout=10)
        self._children: list[Api] = []

    def browser(self, token: str | None) -> Api:
        """The same server, seen by the bearer of `token`."""
        child = Api(self.url, token)
        self._children.append(child)
        return child

    async def close(self) -> None:
        for child in self._children:
            await child.close()
        await self.http.aclose()

    async def call(self, method: str, path: str, body: object = None, **params: Any) -> httpx.Response:  # noqa: ANN401
        return await self.http.request(method, path, json=body, params=params or None)

    async def ok(self, method: str, path: str, body: object = None, **params: Any) -> Json:  # noqa: ANN401
        response = await self.call(method, path, body, **params)
        assert response.is_success, response.text
        return dict(response.json())

    async def open(self, user_id: str, *, pool: str = "main", **fields: object) -> Json:
        return await self.ok("POST", "/v1/sessions", {"user_id": user_id, **fields}, pool=pool)

    async def claim(self, session_id: str, **fields: object) -> httpx.Response:
        return await self.call("POST", f"/v1/sessions/{session_id}/interview", fields)

    async def session(self, session_id: str) -> Json:
        return await self.ok("GET", f"/v1/sessions/{session_id}")

    async def complete(self, session_id: str, **fields: object) -> httpx.Response:
        return await self.call("POST", f"/v1/sessions/{session_id}/complete", fields)

    async def kick(self, session_id: str) -> httpx.Response:
        return await self.call("DELETE", f"/v1/sessions/{session_id}")

    async def beat(self, session_id: str, **fields: object) -> httpx.Response:
        return await self.call("POST", f"/v1/sessions/{session_id}/heartbeat", {"tab": "t1", **fields})


def outcome(response: httpx.Response) -> tuple[int, str]:
    """Status, and the code of a problem or the state of an interview."""
    body = response.json()
    if response.headers["content-type"] == "application/problem+json":
        assert body["status"] == response.status_code
        return response.status_code, str(body["code"])
    return response.status_code, ".".join(filter(None, (body["state"], body.get("reason"))))
