"""A browser for those tests that need none of their own: it starts once a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.e2e.chromium import connected_to, shared_chromium


@pytest.fixture(scope="module")
def profile() -> Iterator[Path]:
    """A browser for the tests of a module."""
    with shared_chromium() as started:
        yield started


@pytest.fixture
async def browser(profile: Path) -> AsyncIterator[Browser]:
    """The module's browser, in this test's loop. Contexts and pages of its own end with the test."""
    async with connected_to(profile) as connected:
        yield connected
