"""The HTTP API of one server process, with room for hundreds of requests at once."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx

from tests.conftest import TEST_API_KEY

Json = dict[str, Any]
MOST_REQUESTS = 300


class NodeApi:
    """Asks a node, with the API key or, `by` a session token, as a browser does."""

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=MOST_REQUESTS, max_keepalive_connections=MOST_REQUESTS)
        self.url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=20, limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        by: str | None = TEST_API_KEY,
        **request: Any,  # noqa: ANN401
    ) -> httpx.Response:
        """Any request; `request` as httpx takes it."""
        headers = {**request.pop("headers", {}), **({} if by is None else {"Authorization": f"Bearer {by}"})}
        return await self._http.request(method, path, headers=headers, **request)

    async def ask(self, method: str, path: str, body: object = None, *, by: str = TEST_API_KEY) -> Json:
        """The answer of a request that must succeed."""
        response = await self.send(method, path, by=by, json=body)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return dict(response.json())

    async def open(self, user_id: str, **fields: object) -> Json:
        """Open a session."""
        return await self.ask("POST", "/v1/sessions", {"user_id": user_id, **fields})

    async def session(self, session_id: str) -> Json:
        """A session as it stands."""
        return await self.ask("GET", f"/v1/sessions/{session_id}")

    async def interview(self, session_id: str, *, by: str = TEST_API_KEY) -> Json:
        """The session's interview object."""
        return await self.ask("GET", f"/v1/sessions/{session_id}/interview", by=by)

    async def claim(self, session_id: str, *, by: str = TEST_API_KEY) -> httpx.Response:
        """Claim a permit."""
        return await self.send("POST", f"/v1/sessions/{session_id}/interview", by=by, json={})

    async def complete(self, session_id: str, *, by: str = TEST_API_KEY, **body: object) -> httpx.Response:
        """Complete the session."""
        return await self.send("POST", f"/v1/sessions/{session_id}/complete", by=by, json=body)

    async def release(self, session_id: str, *, by: str = TEST_API_KEY) -> httpx.Response:
        """Give back the permit, or leave the line."""
        return await self.send("DELETE", f"/v1/sessions/{session_id}/interview", by=by)

    async def kick(self, session_id: str) -> httpx.Response:
        """Throw the session out."""
        return await self.send("DELETE", f"/v1/sessions/{session_id}")

    async def configure(self, **changes: object) -> Json:
        """Change the pool."""
        return await self.ask("PUT", "/v1/pools/main", changes)

    async def ready(self) -> tuple[int, Json]:
        """Status and body of `/readyz`."""
        response = await self.send("GET", "/readyz", by=None)
        return response.status_code, dict(response.json())
