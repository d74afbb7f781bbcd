"""A server in the test's own loop, with an HTTP client that has the API key."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import httpx
import pytest

from server.node.node import Node
from server.serve import Server, serving
from server.settings import Settings
from tests.conftest import TEST_API_KEY


@dataclass(frozen=True, slots=True)
class Site:
    """A running server; `http` speaks to it with the API key."""

    server: Server
    port: int
    http: httpx.AsyncClient

    @property
    def node(self) -> Node:
        return self.server.node

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def open(self, user_id: str = "anna", **fields: object) -> dict[str, str]:
        """Open a session; the answer has its `session_id` and `token`."""
        response = await self.http.post("/v1/sessions", json={"user_id": user_id, **fields})
        opened: dict[str, str] = response.raise_for_status().json()
        return opened

    async def session(self, session_id: str) -> dict[str, object]:
        """A session as HTTP shows it."""
        shown: dict[str, object] = (
            (await self.http.get(f"/v1/sessions/{session_id}")).raise_for_status().json()
        )
        return shown


class MakeSite(Protocol):
    """Start a server with these settings changed."""

    async def __call__(self, **overrides: object) -> Site: ...


@pytest.fixture
async def make_site(settings: Callable[..., Settings]) -> AsyncIterator[MakeSite]:
    """Make servers in this test's loop; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: object) -> Site:
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = sock.getsockname()[1]
            server = await stack.enter_async_context(serving(settings(**overrides), sock))
            http = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TEST_API_KEY}"}
            )
            return Site(server, port, await stack.enter_async_context(http))

        yield start
