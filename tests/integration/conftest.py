"""The server in the test's own loop, on a port of its own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import pytest

from server.node.node import Node
from server.serve import Server, serving
from server.settings import Settings
from tests.conftest import TEST_API_KEY


@dataclass(frozen=True, slots=True)
class Served:
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


Serve = Callable[[Settings], Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Make servers in this test's loop; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(settings: Settings) -> Served:
            sock = socket.create_server(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            server = await stack.enter_async_context(serving(settings, sock))
            http = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TEST_API_KEY}"}
            )
            return Served(server, port, await stack.enter_async_context(http))

        yield start
