"""The floor: uvicorn with a raw ASGI application that echoes WebSocket messages and answers any request."""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn

from server.domain.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL
from server.settings import Settings

# As long as the answer to a claim.
ANSWER = b'{"state":"waiting","message":"%s","position":1234,"waiting":1234}' % (b"." * 100)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]

Scope = dict[str, Any]


async def echo(scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's callables
    """The application."""
    await receive()
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})
        return
    del scope
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


def main(fd: int) -> None:
    """Serve on the socket `fd`, set as the real server is."""
    pings = Settings.model_fields
    config = uvicorn.Config(
        echo,
        interface="asgi3",
        lifespan="off",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=pings["ping_s"].default,
        ws_ping_timeout=pings["ping_timeout_s"].default,
        ws_per_message_deflate=False,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
