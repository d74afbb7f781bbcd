"""What really goes over the sockets is what the protocol's schemas say; the page's example is such traffic.

UPDATE_DOCS=1 records it anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, get_args

import jsonschema_rs
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.domain.messages import FromBrowser, ToBrowser, type_of
from server.http.protocol import document
from tests.documentation import ROOT, generated
from tests.integration.conftest import MakeSite, Site

PAGE = ROOT / "docs/protocol.md"
PATIENCE_S = 8.0
TOKEN = re.compile(r"(eyJ[\w-]{8})[\w-]+\.[\w-]+\.[\w-]+")
Json = dict[str, Any]


def _of_direction(name: str) -> Json:
    return {**document(), "anyOf": [{"$ref": f"#/$defs/{name}"}]}


SENT = jsonschema_rs.validator_for(_of_direction("FromBrowser"))
RECEIVED = jsonschema_rs.validator_for(_of_direction("ToBrowser"))


class Line:
    """A socket whose every frame is held against the schemas, and kept."""

    def __init__(self, url: str) -> None:
        self._connecting = connect(url, subprotocols=["presence.v1"], proxy=None, close_timeout=1)  # type: ignore[list-item]
        self.frames: list[tuple[str, Json]] = []

    async def __aenter__(self) -> Self:
        self._socket: ClientConnection = await self._connecting
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()

    async def say(self, kind: str, **fields: object) -> None:
        """Send a message."""
        message = {"type": kind, **fields}
        SENT.validate(message)
        self.frames.append((">", message))
        await self._socket.send(json.dumps(message))

    async def hear(self, kind: str, **expected: object) -> Json:
        """Read up to a message of this type and with these values."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = json.loads(await self._socket.recv())
                RECEIVED.validate(message)
                self.frames.append(("<", message))
                if message["type"] == kind and expected.items() <= message.items():
                    return dict(message)

    async def end(self) -> int:
        """Read to the close; its code."""
        with pytest.raises(ConnectionClosed) as closed:
            await self.hear("nothing that there is")
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code

    def types(self, direction: str) -> set[str]:
        return {message["type"] for way, message in self.frames if way == direction}


@pytest.fixture
async def site(make_site: MakeSite) -> Site:
    """One place."""
    return await make_site(max_concurrent=1)


async def bens_visit(site: Site) -> Line:
    """Ben waits for Anna, is offered her place, accepts it and completes."""
    anna, ben = await site.open("anna"), await site.open("ben", language_code="en")
    await site.http.post(f"/v1/sessions/{anna['session_id']}/interview", json={})
    async with Line(site.ws_url) as line:
        await line.say("hello", token=ben["token"], tab="tab-1", attempt=1, page="home", visible=True)
        await line.hear("welcome")
        await line.say("heartbeat", seq=1)
        await line.hear("ack", seq=1)
        await line.say("enter")
        await line.hear("interview", state="waiting")
        await line.hear("token")
        await site.http.delete(f"/v1/sessions/{anna['session_id']}/interview")
        await line.hear("interview", state="offered")
        await line.say("accept")
        await line.hear("interview", state="granted")
        await line.hear("token")
        await line.say("page", page="interview")
        await line.say("complete")
        await line.hear("interview", reason="completed")
        assert await line.end() == 4410
    return line


async def everything_else(site: Site) -> Line:
    """What Ben has no need of."""
    cem = await site.open("cem")
    async with Line(site.ws_url) as line:
        await line.say("hello", token=cem["token"])
        await line.hear("welcome")
        await line.say("watch")
        await line.hear("capacity")
        await line.say("visible", visible=False)
        await line.say("leave")
        await line.hear("interview", state="none")
        await line.say("unwatch")
        draining = asyncio.create_task(site.node.drain(within_s=2))
        await line.hear("drain")
        assert await line.end() == 4000
        await draining
    return line


async def test_real_traffic_is_what_the_schemas_say_and_the_page_shows_some(site: Site) -> None:
    visit, rest = await bens_visit(site), await everything_else(site)
    refused = await turned_away(site)
    for direction, union in ((">", FromBrowser), ("<", ToBrowser)):
        seen = visit.types(direction) | rest.types(direction) | refused.types(direction)
        assert seen == {type_of(kind) for kind in get_args(union)}
    text = "".join(f"{way} {json.dumps(message, ensure_ascii=False)}\n" for way, message in visit.frames)
    example = f"```text\n{TOKEN.sub(lambda found: found[1] + '…', text)}```\n"
    if "UPDATE_DOCS" in os.environ:
        generated(PAGE, "example", example)


async def turned_away(site: Site) -> Line:
    """Who comes while the node stops."""
    async with Line(site.ws_url) as line:
        await line.hear("error")
        assert await line.end() == 4000
    return line


def test_every_line_of_the_example_is_a_message() -> None:
    validators: dict[str, Callable[[Any], None]] = {">": SENT.validate, "<": RECEIVED.validate}
    lines = re.findall(r"^([<>]) (\{.*\})$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) > 10
    for way, text in lines:
        validators[way](json.loads(text))
