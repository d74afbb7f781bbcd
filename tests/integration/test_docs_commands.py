"""The commands of the pages, run in the case that the page tells of, answer as the page shows."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from unittest import mock

import httpx
import pytest
from redis import Redis

from server.cli import main
from server.embedded import EmbeddedRedis
from tests.browser import Browser
from tests.conftest import TEST_API_KEY, TEST_SECRET, SpawnedServer, SpawnServer
from tests.documentation import PAGES, ROOT, runs
from tests.prerequisites import demand

PUBLIC_URL = "https://presence.example"
NOWHERE = "postgresql://presence:presence@127.0.0.1:1/presence"
COMMAND_S = 30.0
CASES = sorted({case for page in PAGES for case in runs(page)})


@dataclass
class Stage:
    """Where the commands of a case are run."""

    redis: EmbeddedRedis
    spawn: SpawnServer
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    server: SpawnedServer | None = None
    logs: list[Path] = field(default_factory=list)

    def serve(self, **settings: str) -> SpawnedServer:
        """A server, which the commands know of."""
        told = {"REDIS_URL": self.redis.url, **settings}
        self.server = self.spawn(**told)
        self.logs.append(self.server.log)
        keys = {"PRESENCE_SECRET": TEST_SECRET, "PRESENCE_API_KEY": TEST_API_KEY}
        self.environment = {**keys, **told, "PRESENCE_URL": self.server.url}
        return self.server

    def ask(self, method: str, path: str, **body: object) -> httpx.Response:
        """The API, with the key."""
        assert self.server is not None
        headers = {"Authorization": f"Bearer {TEST_API_KEY}"}
        url = f"{self.server.url}/v1{path}"
        return httpx.request(method, url, headers=headers, json=body or None).raise_for_status()

    def open(self, user_id: str) -> str:
        """A session of this user's; returns its token."""
        opened = self.ask(
            "POST", "/sessions", user_id=user_id, session_id=f"{user_id}-1", current_page="home"
        )
        return str(opened.json()["token"])

    def claim(self, user_id: str) -> None:
        """Ask for a place."""
        self.ask("POST", f"/sessions/{user_id}-1/interview")

    def run(self, command: str) -> str:
        """What a command prints, errors last."""
        first, pipe, rest = command.partition(" | ")
        program, *arguments = shlex.split(first)
        if program != "presence" or arguments == ["serve"]:
            return self._run(command)
        # In this process: to start Python anew for each would take most of the test's time.
        printed, complained = self._run_here(arguments)
        return (self._run(rest, printed) if pipe else printed) + complained

    def _run(self, command: str, given: str = "") -> str:
        here = PUBLIC_URL if self.server is None else self.server.url
        path = f"{self._programs()}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", command.replace(PUBLIC_URL, here)],
            check=False,
            capture_output=True,
            text=True,
            input=given,
            timeout=COMMAND_S,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment, "PATH": path},
        )
        return done.stdout + done.stderr

    def _run_here(self, arguments: list[str]) -> tuple[str, str]:
        with (
            mock.patch.dict(os.environ, self.environment),
            mock.patch.object(sys, "argv", ["presence", *arguments]),
            redirect_stdout(StringIO()) as printed,
            redirect_stderr(StringIO()) as complained,
            suppress(SystemExit),
        ):
            main()
        return printed.getvalue(), complained.getvalue()

    def _programs(self) -> Path:
        """The programs that a page names, as they are on an operator's machine."""
        logs = shlex.join(map(str, self.logs)) or "/dev/null"
        lines = {
            "redis-cli": f'{demand("redis-cli")} -p {self.redis.port} "$@" | sed "s/^$/(nil)/"',
            "presence": f'{shlex.quote(sys.executable)} -m server.cli "$@"',
            "journalctl": f"cat {logs}",
            "curl": f'{demand("curl")} "$@"',
        }
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        for name, line in lines.items():
            (folder / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
            (folder / name).chmod(0o755)
        return folder


def a_full_pool(stage: Stage) -> None:
    server = stage.serve(PRESENCE_MAX_CONCURRENT="1")
    for user_id in ("anna", "ben"):
        stage.open(user_id)
        stage.claim(user_id)
    asyncio.run(_refused(server))


def a_place_that_is_offered(stage: Stage) -> None:
    a_full_pool(stage)
    stage.ask("DELETE", "/sessions/anna-1/interview")


def a_tab_that_was_closed(stage: Stage) -> None:
    server = stage.serve(PRESENCE_MAX_CONCURRENT="1")
    token = stage.open("anna")
    stage.claim("anna")
    asyncio.run(_come_and_go(server, token))
    with Redis.from_url(stage.redis.url) as redis:
        while not redis.exists("presence:{main}:grace"):
            pass


def redis_away(stage: Stage) -> None:
    stage.serve()
    stage.redis.stop()
    while '"event": "redis_away"' not in stage.logs[-1].read_text(encoding="utf-8"):
        time.sleep(0.02)


def redis_full(stage: Stage) -> None:
    stage.serve()
    with Redis.from_url(stage.redis.url) as redis:
        redis.config_set("maxmemory", "1mb")


def redis_that_evicts(stage: Stage) -> None:
    keys = {"PRESENCE_SECRET": TEST_SECRET, "PRESENCE_API_KEY": TEST_API_KEY}
    stage.environment = {**keys, "REDIS_URL": stage.redis.url, "PRESENCE_PORT": "0"}
    with Redis.from_url(stage.redis.url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")


def postgres_away(stage: Stage) -> None:
    stage.serve(DATABASE_URL=NOWHERE)
    stage.open("anna")


def a_paused_pool_and_a_server_started_again_with_another_limit(stage: Stage) -> None:
    first = stage.serve(PRESENCE_MAX_CONCURRENT="1")
    stage.ask("PUT", "/pools/main", mode="paused")
    assert first.stop() == 0
    stage.serve(PRESENCE_MAX_CONCURRENT="7")


def nothing_is_set(stage: Stage) -> None:
    stage.environment = {}


STAGINGS: dict[str, Callable[[Stage], None]] = {
    each.__name__.replace("_", " "): each
    for each in (
        a_full_pool,
        a_place_that_is_offered,
        a_tab_that_was_closed,
        redis_away,
        redis_full,
        redis_that_evicts,
        postgres_away,
        a_paused_pool_and_a_server_started_again_with_another_limit,
        nothing_is_set,
    )
}


async def _refused(server: SpawnedServer) -> None:
    """A page with another server's token."""
    async with await Browser.open(server.ws_url) as browser:
        await browser.say("hello", token="no-token-of-ours")
        await browser.closed()


async def _come_and_go(server: SpawnedServer, token: str) -> None:
    async with await Browser.join(server.ws_url, token):
        pass


@pytest.fixture
def stage(own_redis: EmbeddedRedis, spawn_server: SpawnServer, tmp_path: Path) -> Stage:
    return Stage(own_redis, spawn_server, tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_every_command_answers_as_its_page_shows(stage: Stage, case: str) -> None:
    STAGINGS[case.lower()](stage)
    answers = [(step, stage.run(step.command)) for page in PAGES for step in runs(page).get(case, ())]
    others = [f"$ {step.command}\n{output}" for step, output in answers if not step.is_answered_by(output)]
    assert not others, "\n".join(others)
