"""Trackers as plain Python programs have them, and the node that they ask, in a thread of this process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import httpx
import pytest

from presence_tracker import PresenceApi, PresenceTracker, get_presence_tracker
from presence_tracker import start as start_module
from server.cli.listening import LOOPBACK, listen, url_of
from server.serve import serving
from server.settings import Settings
from tests.conftest import TEST_API_KEY, MakeSettings
from tests.tracker.servers import Operator

STARTED_S = 30.0


class StartNode(Protocol):
    """Start a node with these settings; its address."""

    def __call__(self, **overrides: object) -> str: ...


class MakeTracker(Protocol):
    """A tracker of another program: with a session of its own."""

    def __call__(self, max_concurrent: int | None = None, **options: object) -> PresenceTracker: ...


@pytest.fixture(autouse=True)
def plain_environment(apis: list[PresenceApi], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither a proxy nor what an earlier test found out of a server."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    start_module._kept_api.cache_clear()
    yield
    start_module._kept_api.cache_clear()


@pytest.fixture
def apis(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PresenceApi]]:
    """All connections to servers that the test makes; they are closed in the end."""
    made: list[PresenceApi] = []
    really_made = PresenceApi.__init__

    def make(self: PresenceApi, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        really_made(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(PresenceApi, "__init__", make)
    yield made
    for api in made:
        api.close()


@contextmanager
def _running(settings: Settings) -> Iterator[str]:
    up, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    with listen(LOOPBACK, 0) as sock:

        async def serve() -> None:
            async with serving(settings, sock):
                up.set()
                await stop.wait()

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())

        thread = threading.Thread(target=run, name="node")
        thread.start()
        try:
            assert up.wait(STARTED_S)
            yield url_of(sock)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(STARTED_S)


@pytest.fixture
def start_node(settings: MakeSettings) -> Iterator[StartNode]:
    """Start nodes on this test's Redis."""
    with ExitStack() as stack:

        def start(**overrides: object) -> str:
            return stack.enter_context(_running(settings(**overrides)))

        yield start


@pytest.fixture
def node_url(start_node: StartNode) -> str:
    """A node with the usual settings: three places."""
    return start_node()


@pytest.fixture
def tracker(node_url: str) -> MakeTracker:
    """Make trackers that ask the node."""

    def make(max_concurrent: int | None = None, **options: object) -> PresenceTracker:
        given = {"url": node_url, "api_key": TEST_API_KEY, **options}
        return get_presence_tracker(max_concurrent, **given)  # type: ignore[arg-type]

    return make


@pytest.fixture
def operator(node_url: str) -> Iterator[Operator]:
    """The operator of the node."""
    headers = {"Authorization": f"Bearer {TEST_API_KEY}"}
    with httpx.Client(base_url=node_url, headers=headers, timeout=20) as http:
        yield Operator(http)
