"""People who come, turn pages, enter, leave and finish, at random from a seed; and what must be true of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from tests.node_api import NodeApi

MOST_AT_ONCE = 12
RETRY_S = 0.05
THINK_S = 0.02
DONE = frozenset({200, 201, 202})


class Traffic:
    """Some people at a time, each looked after by one worker, so that it is known how each was left.

    `nodes` may change while it runs; what a node does not answer is asked again, of any, until it is answered.
    `expected` has the columns of each session as the last answer made them.
    """

    def __init__(self, nodes: list[NodeApi], *, seed: int, workers: int = 4) -> None:
        self.nodes = nodes
        self.expected: dict[str, dict[str, object]] = {}
        self.answers = 0
        self.retries = 0
        self._seed = seed
        self._workers = workers
        self._over = asyncio.Event()

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[Traffic]:
        """Traffic while this is entered; afterwards every request has its answer."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(f"w{number}"), name=f"traffic {number}")
            try:
                yield self
            finally:
                self._over.set()

    async def until_more(self, answers: int, within_s: float = 30) -> None:
        """Wait until so many more requests are answered."""
        wanted = self.answers + answers
        async with asyncio.timeout(within_s):
            while self.answers < wanted:  # noqa: ASYNC110 - it is only told by the number
                await asyncio.sleep(RETRY_S)

    async def _work(self, name: str) -> None:
        rng, count = random.Random(f"{self._seed} {name}"), 0
        here: list[str] = []
        while not self._over.is_set():
            if len(here) < MOST_AT_ONCE:
                count += 1
                here.append(f"{name}-{count}")
                await self._come(rng, here[-1])
            else:
                await self._do_something(rng, here)
            await asyncio.sleep(rng.uniform(0, THINK_S))

    async def _do_something(self, rng: random.Random, here: list[str]) -> None:
        session_id = rng.choice(here)
        match rng.choices(("turn", "claim", "leave", "complete", "kick"), (5, 4, 1, 2, 1))[0]:
            case "turn":
                page = f"page-{rng.randint(1, 10**9)}"
                await self._ask(rng, "PATCH", f"/v1/sessions/{session_id}", {"current_page": page})
                self.expected[session_id]["current_page"] = page
            case "claim":
                await self._ask(rng, "POST", f"/v1/sessions/{session_id}/interview", {})
            case "leave":
                await self._ask(rng, "DELETE", f"/v1/sessions/{session_id}/interview")
            case "complete":
                await self._ask(rng, "POST", f"/v1/sessions/{session_id}/complete", {})
                self._ends(here, session_id, status="completed", end_reason="completed")
            case "kick":
                await self._ask(rng, "DELETE", f"/v1/sessions/{session_id}")
                self._ends(here, session_id, status="abandoned", end_reason="kicked")

    async def _come(self, rng: random.Random, session_id: str) -> None:
        who = {"user_id": f"user-{session_id}", "language_code": rng.choice(["de", "en", "tr"])}
        body = {**who, "session_id": session_id, "current_page": "home"}
        await self._ask(rng, "POST", "/v1/sessions", body)
        self.expected[session_id] = {**who, "current_page": "home", "status": "active", "end_reason": None}

    def _ends(self, here: list[str], session_id: str, **columns: object) -> None:
        here.remove(session_id)
        self.expected[session_id] |= {**columns, "is_in_interview": False}

    async def _ask(self, rng: random.Random, method: str, path: str, body: Any = None) -> None:  # noqa: ANN401
        while True:
            with suppress(httpx.TransportError):
                response = await rng.choice(self.nodes).send(method, path, json=body)
                if response.status_code < 500:
                    assert response.status_code in DONE, f"{method} {path}: {response.text}"
                    self.answers += 1
                    return
            self.retries += 1
            await asyncio.sleep(RETRY_S)
