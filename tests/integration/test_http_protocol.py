"""What may come before a request is bounded in size and time."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from server.node import http_protocol
from tests.conftest import Serve

PATIENCE_S = 5
HTTPX_KEEPS_FOR_S = 5.0


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionResetError:
        return b""


async def test_a_head_without_end_is_refused(serve: Serve) -> None:
    node = await serve()
    reader, writer = await connect(node.url)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: here\r\n")
    for number in range(64):
        writer.write(f"x-{number}: {'a' * 1000}\r\n".encode())
    answer = await until_closed(reader)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    writer.close()


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nhost: he"])
async def test_a_connection_that_never_asks_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_WITHIN_S", 0.2)
    node = await serve()
    reader, writer = await connect(node.url)
    writer.write(begun)
    await until_closed(reader)
    writer.close()


async def test_a_large_body_is_no_large_head_and_a_connection_may_be_used_again(serve: Serve) -> None:
    node = await serve()
    reader, writer = await connect(node.url)
    for _ in range(2):
        body = b" " * 60_000
        writer.write(b"POST /v1/sessions HTTP/1.1\r\nhost: here\r\ncontent-length: 60000\r\n\r\n" + body)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        assert head.startswith(b"HTTP/1.1 401 ")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()


async def test_it_is_the_client_who_closes_an_idle_connection(serve: Serve) -> None:
    node = await serve()
    reader, writer = await connect(node.url)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n")
    assert (await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_S)).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), HTTPX_KEEPS_FOR_S + 0.5)
    writer.close()
