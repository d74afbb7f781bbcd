"""The HTTP API of a server process, and how to ask for the same thing hundreds of times in one instant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tests.conftest import TEST_API_KEY

Json = dict[str, Any]


class NodeApi:
    """Asks a node, with the API key or, `by` a session token, as a browser does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=20, trust_env=False)

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


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the node at `url`, `by` the bearer of a key or token."""

    url: str
    method: str
    path: str
    by: str = TEST_API_KEY
    body: object = None

    def encoded(self) -> bytes:
        """As it goes over the wire."""
        content = b"" if self.body is None else json.dumps(self.body).encode()
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: presence\r\nConnection: close"
        head += f"\r\nAuthorization: Bearer {self.by}\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content


async def at_once(asks: Sequence[Ask]) -> list[tuple[int, Json]]:
    """Ask all in the same instant; statuses and bodies.

    Every connection is open before the first request is written; an HTTP client would write them one by one.
    """
    places = [urlsplit(ask.url) for ask in asks]
    streams = [await asyncio.open_connection(place.hostname, place.port) for place in places]
    for (_, writer), ask in zip(streams, asks, strict=True):
        writer.write(ask.encoded())
    answers = await asyncio.gather(*(reader.read() for reader, _ in streams))
    for _, writer in streams:
        writer.close()
        await writer.wait_closed()
    return [_parsed(answer) for answer in answers]


def _parsed(answer: bytes) -> tuple[int, Json]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), dict(json.loads(body))
