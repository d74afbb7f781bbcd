"""What a browser somewhere else does, through a proxy that speaks TLS."""

from __future__ import annotations

import json
import ssl
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.embedded.child import LOOPBACK
from tests.conftest import TEST_API_KEY
from tests.frontends import HOST, Frontend
from tests.node_api import Json
from tests.visitor import OPTIONS

ANSWER_WITHIN_S = 15.0
# httpx looks for this name in the certificate, wherever the address leads.
NAMED = {"sni_hostname": HOST}
Headers = dict[str, str]


class Outside:
    """Pages, and the app, on the other side of `front`."""

    def __init__(self, front: Frontend, trust: ssl.SSLContext) -> None:
        self.front = front
        self._trust = trust
        self.http = httpx.AsyncClient(
            base_url=f"https://{LOOPBACK}:{front.port}",
            headers={"Authorization": f"Bearer {TEST_API_KEY}", "Host": f"{HOST}:{front.port}"},
            verify=trust,
            timeout=ANSWER_WITHIN_S,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def open(self, user_id: str = "anna") -> Json:
        """A session, as the app opens it."""
        body = {"user_id": user_id}
        response = await self.http.post("/v1/sessions", json=body, extensions=NAMED)
        opened: Json = response.raise_for_status().json()
        return opened

    async def dial(
        self, address: str = LOOPBACK, headers: Headers | None = None, origin: str | None = None
    ) -> ClientConnection:
        """A WebSocket that comes from `address`."""
        return await connect(
            f"wss://{HOST}:{self.front.port}/ws",
            host=LOOPBACK,
            port=self.front.port,
            ssl=self._trust,
            local_addr=(address, 0),
            additional_headers={**(headers or {}), **({"Origin": origin} if origin else {})},
            **OPTIONS,
        )

    async def join(
        self, user_id: str, address: str = LOOPBACK, headers: Headers | None = None, origin: str | None = None
    ) -> ClientConnection:
        """A page that has been welcomed."""
        socket = await self.dial(address, headers, origin)
        assert await greet(socket, (await self.open(user_id))["token"]) == "welcome"
        return socket

    async def close_code(self, address: str, headers: Headers | None = None) -> int | None:
        """How a page is refused."""
        socket = await self.dial(address, headers)
        try:
            while await greet(socket, "a token that nobody looks at"):
                pass
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else int(closed.rcvd.code)
        return None


async def greet(socket: ClientConnection, token: str) -> str:
    """Say hello; the type of the answer."""
    await socket.send(json.dumps({"type": "hello", "token": token}))
    answer: Any = json.loads(await socket.recv())
    return str(answer["type"])


async def answers(socket: ClientConnection) -> bool:
    """Whether a heartbeat gets there, and its answer back."""
    await socket.send(json.dumps({"type": "heartbeat", "seq": 7}))
    heard: Any = json.loads(await socket.recv())
    return bool(heard == {"type": "ack", "seq": 7})
