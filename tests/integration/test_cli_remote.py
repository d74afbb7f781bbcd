"""The operators' commands against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import httpx
import pytest

from tests.commands import complaints, presence_here
from tests.conftest import TEST_API_KEY, SpawnedServer, SpawnServer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server(spawn_server: SpawnServer) -> SpawnedServer:
    return spawn_server()


@pytest.fixture
def run(server: SpawnedServer) -> Run:
    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return presence_here(
            *arguments, **{"PRESENCE_URL": server.url, "PRESENCE_API_KEY": TEST_API_KEY, **environment}
        )

    return call


def open_session(server: SpawnedServer, user_id: str, page: str = "home") -> str:
    answer = httpx.post(
        f"{server.url}/v1/sessions",
        headers={"Authorization": f"Bearer {TEST_API_KEY}"},
        json={"user_id": user_id, "language_code": "de", "current_page": page},
    )
    return str(answer.raise_for_status().json()["session_id"])


def test_limit_and_mode_change_the_pool_and_capacity_shows_it(run: Run) -> None:
    assert run("limit", "7").returncode == 0
    assert run("mode", "paused").returncode == 0
    shown = json.loads(run("capacity", "--json").stdout)
    assert (shown["limit"], shown["mode"], shown["pool"]) == (7, "paused", "main")
    table = run("capacity").stdout
    assert "limit" in table
    assert "7" in table


def test_a_pool_of_another_name_is_reached_by_its_name(run: Run) -> None:
    assert run("limit", "2", "--pool", "study-b").returncode == 0
    assert json.loads(run("capacity", "--pool", "study-b", "--json").stdout)["limit"] == 2
    assert json.loads(run("capacity", "--json").stdout)["limit"] == 3


def test_sessions_are_listed_for_people_and_for_programs(run: Run, server: SpawnedServer) -> None:
    session_id = open_session(server, "anna")
    listed = json.loads(run("sessions", "--json").stdout)["sessions"]
    assert [session["session_id"] for session in listed] == [session_id]
    (row,) = [line for line in run("sessions").stdout.splitlines() if session_id in line]
    assert {"anna", "de", "home", "active"} <= set(row.split())


def test_the_name_of_a_page_is_neither_markup_nor_a_command_to_the_terminal(
    run: Run, server: SpawnedServer
) -> None:
    open_session(server, "anna", page="[/home][red]x\x9b31m")
    listed = run("sessions")
    assert listed.returncode == 0, listed.stderr
    assert "[/home][red]x\N{REPLACEMENT CHARACTER}31m" in listed.stdout


def test_a_status_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    done = presence_here("sessions", "--status", "gone")
    assert done.returncode == 2
    assert all(status in done.stderr for status in ("active", "completed", "abandoned"))


def test_kick_ends_the_session(run: Run, server: SpawnedServer) -> None:
    session_id = open_session(server, "anna")
    assert run("kick", session_id).returncode == 0
    shown = httpx.get(
        f"{server.url}/v1/sessions/{session_id}", headers={"Authorization": f"Bearer {TEST_API_KEY}"}
    )
    assert shown.status_code == 410 or shown.json()["status"] == "abandoned"


def test_cleanup_says_how_many_it_ended(run: Run) -> None:
    assert json.loads(run("cleanup", "--hours", "3", "--json").stdout) == {"abandoned": 0}


def test_token_prints_a_token_that_opens_its_own_session(run: Run, server: SpawnedServer) -> None:
    session_id = open_session(server, "anna")
    token = run("token", session_id).stdout.strip()
    own = httpx.get(f"{server.url}/v1/sessions/{session_id}", headers={"Authorization": f"Bearer {token}"})
    assert own.status_code == 200


def test_an_unknown_session_is_one_sentence(run: Run) -> None:
    assert len(complaints(run("kick", "nobody"), exit_code=1)) == 1
    assert len(complaints(run("token", "nobody"), exit_code=1)) == 1


def test_a_refused_key_is_one_sentence_without_the_key(run: Run) -> None:
    wrong = "a-wrong-key-that-is-long-enough"
    (line,) = complaints(run("capacity", PRESENCE_API_KEY=wrong), exit_code=1)
    assert "401" in line
    assert wrong not in line


def test_a_server_that_is_away_is_one_sentence() -> None:
    done = presence_here("capacity", PRESENCE_URL="http://127.0.0.1:1", PRESENCE_API_KEY=TEST_API_KEY)
    (line,) = complaints(done, exit_code=1)
    assert "http://127.0.0.1:1 can't be reached" in line


def test_a_missing_key_is_one_sentence() -> None:
    (line,) = complaints(presence_here("capacity", PRESENCE_URL="http://127.0.0.1:1"), exit_code=2)
    assert line.startswith("PRESENCE_API_KEY is not set")


def test_an_address_that_is_none_is_one_sentence() -> None:
    done = presence_here("capacity", PRESENCE_URL="presence.example", PRESENCE_API_KEY=TEST_API_KEY)
    (line,) = complaints(done, exit_code=2)
    assert line.startswith("PRESENCE_URL must start with")


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_named_and_not_shown(key: str) -> None:
    done = presence_here("capacity", PRESENCE_API_KEY=key, PRESENCE_URL="http://127.0.0.1:1")
    (line,) = complaints(done, exit_code=2)
    assert line.startswith("PRESENCE_API_KEY must be of printable ASCII")
    assert key not in line
