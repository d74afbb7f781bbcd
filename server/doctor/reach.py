"""Checks of a running server, from outside: ready, with our key, and WebSockets reach it. Opens no session."""

from __future__ import annotations

import asyncio
import json

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from server.doctor.finding import Finding, careful, failed, ok
from server.domain.messages import SUBPROTOCOL, Close

ANSWER_WITHIN_S = 10.0
UNAUTHORIZED, FORBIDDEN = 401, 403
# No server ever signed this: the only right answer is the refusal, and nothing is left behind.
HELLO = json.dumps({"type": "hello", "token": "presence-doctor"})


async def check_server(url: str, api_key: str | None) -> list[Finding]:
    """Ask the server at `url`; without a key, less of it."""
    url = url.rstrip("/")
    try:
        async with httpx.AsyncClient(timeout=ANSWER_WITHIN_S) as http:
            findings = [_ready(await http.get(f"{url}/readyz"))]
            if api_key is not None:
                headers = {"Authorization": f"Bearer {api_key}"}
                findings.append(_key(await http.get(f"{url}/v1/capacity", headers=headers)))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what = f"{url} can't be reached: {str(error) or type(error).__name__}"
        return [failed("server", what, "start it, or correct PRESENCE_URL")]
    return [*findings, await _websocket(url)]


def _ready(response: httpx.Response) -> Finding:
    try:
        told = response.json()
        parts = f"redis {told['redis']}, postgres {told['postgres']}"
        ready = bool(told["ready"])
    except (ValueError, KeyError, TypeError):
        what = f"answers {response.status_code}, not like a presence server"
        return failed("server", what, "correct PRESENCE_URL")
    if not ready:
        return failed("server", f"not ready: {parts}", "see its log, or wait a moment")
    if told["postgres"] == "down":
        return careful("server", f"ready: {parts}", "see what is said of Postgres; sessions go on meanwhile")
    return ok("server", f"ready: {parts}")


def _key(response: httpx.Response) -> Finding:
    if response.status_code in (UNAUTHORIZED, FORBIDDEN):
        mend = "set PRESENCE_API_KEY to the same as the server's"
        return failed("server key", "the server refuses PRESENCE_API_KEY", mend)
    return ok("server key", "accepted")


async def _websocket(url: str) -> Finding:
    address = f"{url.replace('http', 'ws', 1)}/ws"
    mend = "let the proxy in front pass WebSockets on (Upgrade and Connection headers)"
    try:
        async with connect(
            address, subprotocols=[Subprotocol(SUBPROTOCOL)], open_timeout=ANSWER_WITHIN_S
        ) as socket:
            what = await _refusal(socket)
    except InvalidStatus as error:
        what = f"the handshake is answered with {error.response.status_code}"
    except (WebSocketException, OSError, TimeoutError) as error:
        what = str(error) or type(error).__name__
    if what is None:
        return ok("server websocket", "there and back")
    return failed("server websocket", what, mend)


async def _refusal(socket: ClientConnection) -> str | None:
    """Say hello, and be refused: None if it was for the right reason."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await socket.send(HELLO)
            await socket.recv()  # the reason in words; the close follows
            await socket.recv()
    except ConnectionClosed as closed:
        code = None if closed.rcvd is None else closed.rcvd.code
        return None if code == Close.BAD_TOKEN else f"a bad token is answered by close code {code}"
    except TimeoutError:
        return "no answer comes back"
    return "a bad token is not refused"
