"""Claims over HTTP, since that is how a Streamlit app lets its visitors in."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from benchmarks.ground import API_KEY, POOL, Ground, Server
from benchmarks.load import open_sessions
from benchmarks.table import Row
from server.domain.pool import PoolChanges

CLAIMS = 5000
WARM_UP = 100
CONNECTIONS = 64
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def measure(ground: Ground) -> list[Row]:
    """Claims per second and CPU µs per claim of one server process; the floor answers without doing anything."""
    claims, warm_up = ground.sized(CLAIMS), ground.sized(WARM_UP)
    async with ground.store(PoolChanges(limit=claims // 2, max_line=1_000_000, offer_s=0)) as store:
        paths = [
            f"/v1/sessions/{one.session_id}/interview" for one in await open_sessions(store, claims + warm_up)
        ]
        async with ground.floor() as server:
            await _claim(server, paths[:warm_up])
            floor_per_s, floor_us = await _claim(server, paths[warm_up:])
        async with ground.presence() as server:
            await _claim(server, paths[:warm_up])
            per_s, us = await _claim(server, paths[warm_up:])
        state = await store.state(POOL)
    if (state.active, state.waiting) != (claims // 2, claims + warm_up - claims // 2):
        raise RuntimeError(f"not all were admitted as they should be: {state}")
    return [
        Row("claims over HTTP", per_s, "/s", None, floor_per_s),
        Row("claim over HTTP", us, "µs CPU", None, floor_us),
    ]


async def _claim(server: Server, paths: Sequence[str]) -> tuple[float, float]:
    """Claims per second, and the server's CPU µs per claim."""
    cpu, began = server.cpu_us(), time.perf_counter()
    waiting = iter(paths)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(CONNECTIONS, len(paths))):
            group.create_task(_post_each(server, waiting))
    took = time.perf_counter() - began
    return len(paths) / took, (server.cpu_us() - cpu) / len(paths)


async def _post_each(server: Server, paths: Iterator[str]) -> None:
    """Requests one after the other on one connection; a client library would cost more than the server."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"Host: {address.netloc}\r\nAuthorization: Bearer {API_KEY}\r\nContent-Length: 0\r\n\r\n"
    for path in paths:
        writer.write(f"POST {path} HTTP/1.1\r\n{head}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        status, length = answer[9:12], _LENGTH.search(answer)
        if status not in (b"200", b"202") or length is None:
            raise RuntimeError(f"a claim was answered with {answer.decode()}")
        await reader.readexactly(int(length[1]))
    writer.close()
    await writer.wait_closed()
