"""The real server on the real Redis, and a client of its HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import TEST_API_KEY, Serve
from tests.conftest import serve as serve  # noqa: PLC0414 - the fixture that all tests share
from tests.integration.http.api import Api


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Api]:
    """An operator's view of a server without history; free places are granted outright."""
    node = await serve(offer_s=0)
    client = Api(node.url, TEST_API_KEY)
    yield client
    await client.close()
