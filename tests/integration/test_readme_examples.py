"""The README's examples, run as they are written."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from redis import Redis

from tests.conftest import TEST_API_KEY, SpawnedServer, SpawnServer
from tests.prerequisites import demand

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
DEVELOPMENT_URL = "http://127.0.0.1:8000"
BOUND_S = 20.0


def blocks(language: str, about: str) -> list[str]:
    """The code blocks in a language that mention something."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for block in found if about in block]


@pytest.fixture
def server(spawn_server: SpawnServer, database_url: str) -> SpawnedServer:
    return spawn_server(DATABASE_URL=database_url, PRESENCE_FLUSH_S="0.1")


@pytest.fixture
def session_id(server: SpawnedServer) -> Iterator[str]:
    """A participant in an interview."""
    headers = {"Authorization": f"Bearer {TEST_API_KEY}"}
    with httpx.Client(base_url=f"{server.url}/v1", headers=headers) as api:
        opened = api.post("/sessions", json={"user_id": "ben", "current_page": "home"}).json()["session_id"]
        assert api.post(f"/sessions/{opened}/interview").status_code == 200
        yield opened


@pytest.fixture
def waiter_id(server: SpawnedServer, session_id: str) -> str:
    """A participant who waits, since the one place is taken."""
    headers = {"Authorization": f"Bearer {TEST_API_KEY}"}
    with httpx.Client(base_url=f"{server.url}/v1", headers=headers) as api:
        assert api.put("/pools/main", json={"limit": 1}).is_success
        opened = str(api.post("/sessions", json={"user_id": "anna"}).json()["session_id"])
        assert api.post(f"/sessions/{opened}/interview").status_code == 202
    return opened


class Cookbook:
    """The README's redis-cli lines, by what they say they show, to be run as written."""

    def __init__(self, redis_url: str, session_id: str, folder: Path) -> None:
        program = folder / "redis-cli"
        program.write_text(f'#!/bin/sh\nexec {demand("redis-cli")} -e -p {urlsplit(redis_url).port} "$@"\n')
        program.chmod(0o755)
        self._environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
        (lines,) = blocks("sh", "redis-cli --scan")
        parts = (line.partition("#") for line in lines.replace("SESSION_ID", session_id).splitlines())
        self.lines = {meaning.strip(): command for command, _, meaning in parts}

    def shows(self, meaning: str) -> list[str]:
        """The words that a line prints."""
        command = ["sh", "-c", self.lines.pop(meaning)]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=True)
        return done.stdout.split()

    def start(self, meaning: str) -> subprocess.Popen[str]:
        """A line that goes on and on."""
        command = ["sh", "-c", f"exec {self.lines.pop(meaning)}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)


def test_every_redis_cli_line_shows_what_it_says(
    session_id: str, waiter_id: str, redis_url: str, tmp_path: Path
) -> None:
    cookbook = Cookbook(redis_url, session_id, tmp_path)
    shows = cookbook.shows
    assert sorted(shows("who is here")) == sorted(
        f"presence:{{main}}:alive:{each}" for each in (session_id, waiter_id)
    )
    assert shows("who is in") == [session_id]
    assert shows("who waits, in order") == [waiter_id]
    assert shows("the limit and the mode") == ["1", "open"]
    assert shows("how full") == ["1"]
    assert {"granted", "waiting"} <= set(shows("what just happened"))
    assert 0 < int(shows("how long a session has left (ms)")[0]) <= 60_000
    assert "ben" in shows("everything about a session")
    with cookbook.start("watch how full it is, each second") as watching:
        assert watching.stdout is not None
        assert [watching.stdout.readline() for _ in range(2)] == ["1\n", "1\n"]
        watching.kill()
    with (
        cookbook.start("wait for the next thing that happens") as waiting,
        Redis.from_url(redis_url) as redis,
    ):
        while not _blocked(redis):
            time.sleep(0.02)
        redis.xadd("presence:{main}:events", {"type": "next"})
        assert "next" in waiting.communicate()[0].split()
    assert not cookbook.lines, "each line is shown to be true"


def _blocked(redis: Redis) -> bool:
    """Whether redis-cli waits for an event: the nodes' own waiting ends each second, its does not."""
    return any(each["lib-name"] == "" and each["cmd"] == "xread" for each in redis.client_list())


def test_every_sql_line_shows_the_session(session_id: str, database_url: str) -> None:
    (queries,) = blocks("sql", "active_sessions_view")

    async def rows(query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    deadline = time.monotonic() + BOUND_S
    while not asyncio.run(rows("select from presence where is_in_interview")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    active, capacity, newest = (asyncio.run(rows(line)) for line in queries.splitlines())
    assert [row["session_id"] for row in active] == [session_id]
    assert [(row["max_concurrent"], row["active_interviews"], row["available"]) for row in capacity] == [
        (3, 1, 2)
    ]
    assert [row["session_id"] for row in newest] == [session_id]


def test_the_python_lines_get_a_participant_in(server: SpawnedServer) -> None:
    (lines,) = blocks("python", "httpx")
    program = (
        f"api_key = {TEST_API_KEY!r}\n{lines.replace(DEVELOPMENT_URL, server.url)}\nprint(interview['state'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("granted\n", "")


def test_the_curl_line_opens_a_session(server: SpawnedServer) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing")
    (line,) = blocks("sh", "curl")
    environment = {**os.environ, "PRESENCE_API_KEY": TEST_API_KEY}
    done = subprocess.run(
        ["sh", "-c", line.replace(DEVELOPMENT_URL, server.url)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert '"token"' in done.stdout
