"""A node in the test's own process."""

from __future__ import annotations

import httpx

from tests.conftest import Serve


async def test_two_nodes_in_one_process_serve_one_redis(serve: Serve, database_url: str) -> None:
    first = await serve(database_url=database_url)
    second = await serve(demo=True)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{first.url}/readyz")).json()["ready"] is True
        assert (await client.get(f"{first.url}/demo")).status_code == 404
        assert (await client.get(f"{second.url}/demo")).status_code == 200
    assert first.node.store.node != second.node.store.node
