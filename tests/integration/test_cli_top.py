"""`presence top` in a real terminal: what a person at it sees."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.commands import presence
from tests.conftest import TEST_API_KEY, SpawnedServer, SpawnServer
from tests.prerequisites import demand

SEEN_WITHIN_S = 20.0
LOOK_EVERY_S = 0.1


class Terminal:
    """A tmux of its own that runs one command, 110 columns by 36 lines."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        self._tmux = [demand("tmux"), "-L", f"presence-{uuid.uuid4().hex[:8]}", "-f", "/dev/null"]
        # The shell stays when the command ends, so that its last words can be read.
        shell = f"{command}; echo ended with $?; exec cat"
        self._run(
            "new-session", "-d", "-x", "110", "-y", "36", shell,
            environment={**os.environ, **environment, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    def _run(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout

    def picture(self) -> str:
        """What stands on the screen."""
        return self._run("capture-pane", "-p")

    def press(self, key: str) -> None:
        """A key of the keyboard."""
        self._run("send-keys", key)

    def until(self, shows: Callable[[str], bool]) -> str:
        """The picture as soon as it shows what is asked."""
        deadline = time.monotonic() + SEEN_WITHIN_S
        while not shows(picture := self.picture()):
            assert time.monotonic() < deadline, picture
            time.sleep(LOOK_EVERY_S)
        return picture

    def close(self) -> None:
        """End it, and what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def server(spawn_server: SpawnServer) -> SpawnedServer:
    return spawn_server(PRESENCE_MAX_CONCURRENT="1", PRESENCE_OFFER_S="0")


@pytest.fixture
def environment(server: SpawnedServer) -> dict[str, str]:
    return {"PRESENCE_URL": server.url, "PRESENCE_API_KEY": TEST_API_KEY}


@pytest.fixture
def api(server: SpawnedServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TEST_API_KEY}"}
    with httpx.Client(base_url=f"{server.url}/v1", headers=headers) as client:
        yield client


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(f"{shlex.quote(sys.executable)} -m server.cli top", environment)
    yield terminal
    terminal.close()


def claim(api: httpx.Client, user_id: str) -> str:
    session_id = str(api.post("/sessions", json={"user_id": user_id}).json()["session_id"])
    assert api.post(f"/sessions/{session_id}/interview").is_success
    return session_id


def test_the_terminal_shows_who_is_in_who_waits_and_each_change_at_once(
    terminal: Terminal, api: httpx.Client
) -> None:
    terminal.until(lambda picture: "0 of 1 in interview" in picture)
    anna = claim(api, "anna")
    claim(api, "bert")
    picture = terminal.until(lambda picture: re.search(r"^anna .* bert ", picture, re.MULTILINE) is not None)
    assert "In line (1)" in picture
    assert "In interview (1)" in picture
    assert "granted" in picture
    api.post(f"/sessions/{anna}/complete")
    picture = terminal.until(lambda picture: "In line (0)" in picture and "completed" in picture)
    assert "1 of 1 in interview" in picture
    api.put("/pools/main", json={"limit": 4, "mode": "paused"})
    assert "paused" in terminal.until(lambda picture: "1 of 4 in interview" in picture)
    terminal.press("q")
    assert "ended with 0" in terminal.until(lambda picture: "ended with" in picture)


def test_it_says_that_the_server_is_gone_and_goes_on_when_it_is_back(
    terminal: Terminal, server: SpawnedServer, spawn_server: SpawnServer, api: httpx.Client
) -> None:
    claim(api, "anna")
    terminal.until(lambda picture: "anna" in picture)
    server.kill()
    terminal.until(lambda picture: "trying again" in picture)
    spawn_server(PRESENCE_PORT=server.url.rsplit(":", 1)[1])
    picture = terminal.until(lambda picture: "trying again" not in picture)
    assert "anna" in picture


def test_into_a_pipe_it_shows_one_picture(environment: dict[str, str], api: httpx.Client) -> None:
    claim(api, "anna")
    done = presence("top", **environment)
    assert done.returncode == 0
    assert "1 of 1 in interview" in done.stdout
    assert "anna" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_wrong_key_and_an_unknown_pool_are_one_sentence(environment: dict[str, str]) -> None:
    wrong = presence("top", **{**environment, "PRESENCE_API_KEY": "wrong-key-wrong-key-wrong-key"})
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert len(wrong.stderr.splitlines()) == 1
    unknown = presence("top", "--pool", "nowhere", **environment)
    assert unknown.returncode == 1
    assert "nowhere" in unknown.stderr


def test_the_keyboard_is_given_back(terminal: Terminal) -> None:
    terminal.until(lambda picture: "of 1 in interview" in picture)
    terminal.press("C-c")
    picture = terminal.until(lambda picture: "ended with" in picture)
    assert "ended with 0" in picture
    assert "Traceback" not in picture
    terminal.press("x")
    assert "x" in terminal.until(lambda picture: picture.rstrip().endswith("x"))
