"""`presence dev`: one command starts everything, and nothing of it stays."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from server.settings import DEV_API_KEY
from tests.commands import COMMAND, complaints, presence
from tests.prerequisites import demand

GONE_S = 15.0


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `presence dev`, and what it printed before it was ready."""

    process: subprocess.Popen[str]
    printed: str

    def line(self, name: str) -> str:
        """What it says after a name."""
        found = re.search(rf"^  {name} +(.+)$", self.printed, re.MULTILINE)
        assert found, self.printed
        return found[1]

    @property
    def url(self) -> str:
        return self.line("Open").removesuffix("/demo")

    @property
    def started(self) -> list[psutil.Process]:
        """Everything that it started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def capacity(self) -> dict[str, object]:
        answer = httpx.get(f"{self.url}/v1/capacity", headers={"Authorization": f"Bearer {DEV_API_KEY}"})
        shown: dict[str, object] = answer.raise_for_status().json()
        return shown


StartDev = Callable[..., Dev]


@pytest.fixture
def start_dev(tmp_path: Path) -> Iterator[StartDev]:
    with ExitStack() as stack:

        def start(**environment: str) -> Dev:
            process = subprocess.Popen(
                [*COMMAND, "dev"],
                env={**os.environ, "PRESENCE_PORT": "0", **environment},
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(end, process)
            return Dev(process, read_welcome(process))

        yield start


def read_welcome(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("  Stop"):
            break
    return "".join(lines)


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.terminate()
    process.wait(GONE_S)
    process.stdout.close()


def test_it_prints_what_to_open_and_every_line_of_it_works(start_dev: StartDev) -> None:
    dev = start_dev()
    assert httpx.get(dev.line("Open")).status_code == 200
    assert dev.line("API key") == DEV_API_KEY
    assert dev.capacity()["limit"] == 3
    redis_cli = [demand("redis-cli"), *shlex.split(dev.line("Redis"))[1:], "exists", "presence:{main}:config"]
    assert subprocess.run(redis_cli, capture_output=True, text=True, check=True).stdout.strip() == "1"
    psql = [*shlex.split(dev.line("Postgres")), "-tAc", "select count(*) from presence"]
    assert subprocess.run(psql, capture_output=True, text=True, check=True).stdout.strip() == "0"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_everything_it_started_when_told_to(start_dev: StartDev, number: signal.Signals) -> None:
    dev = start_dev()
    assert dev.capacity()["limit"] == 3
    started = dev.started
    assert len(started) >= 2
    dev.process.send_signal(number)
    assert dev.process.wait(GONE_S) == 0
    assert not psutil.wait_procs(started, timeout=0)[1]


def test_told_to_stop_while_it_starts_it_stops_too(start_dev: StartDev) -> None:
    dev = start_dev()
    started = dev.started
    dev.process.terminate()
    assert dev.process.wait(GONE_S) == 0
    assert not psutil.wait_procs(started, timeout=0)[1]


def test_killed_it_leaves_nothing_running_and_starts_again_on_the_same_data(start_dev: StartDev) -> None:
    dev = start_dev()
    started = dev.started
    httpx.put(
        f"{dev.url}/v1/pools/main", headers={"Authorization": f"Bearer {DEV_API_KEY}"}, json={"limit": 9}
    ).raise_for_status()
    dev.process.kill()
    dev.process.wait(GONE_S)
    assert not psutil.wait_procs(started, timeout=5)[1]
    assert start_dev().capacity()["limit"] == 9


def test_a_second_one_beside_it_says_who_runs_where(start_dev: StartDev, tmp_path: Path) -> None:
    dev = start_dev()
    (line,) = complaints(presence("dev", "--port", "0", cwd=tmp_path), exit_code=1)
    assert dev.url in line
    assert str(dev.process.pid) in line
    assert dev.capacity()["limit"] == 3


def test_the_operators_commands_find_it_without_being_told(start_dev: StartDev, tmp_path: Path) -> None:
    start_dev()
    done = presence("capacity", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"limit": 3' in done.stdout


def test_settings_of_the_user_count_but_not_where_it_has_its_own(start_dev: StartDev) -> None:
    dev = start_dev(PRESENCE_MAX_CONCURRENT="5", REDIS_URL="redis://127.0.0.1:1", PRESENCE_API_KEY="another")
    assert dev.capacity()["limit"] == 5
    assert dev.line("Ignored").startswith("REDIS_URL, PRESENCE_API_KEY")


def test_pages_of_any_loopback_origin_may_call_and_no_others(start_dev: StartDev) -> None:
    dev = start_dev()

    def allowed(origin: str) -> object:
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        return httpx.options(f"{dev.url}/v1/capacity", headers=asked).headers.get(
            "access-control-allow-origin"
        )

    assert allowed("http://localhost:8501") in ("http://localhost:8501", "*")
    assert allowed("https://evil.example") is None


def test_bad_settings_are_named_before_anything_starts(tmp_path: Path) -> None:
    done = presence("dev", cwd=tmp_path, PRESENCE_RENEW_S="-1", PRESENCE_LOG_LEVEL="loud")
    assert len(complaints(done, exit_code=2)) == 2
    assert not (tmp_path / ".presence").exists()
