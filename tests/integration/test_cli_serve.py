"""`presence serve`: what it refuses, what it says, and its worker processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from server.cli.listening import listen
from server.cli.serve import Workers
from server.embedded import EmbeddedRedis
from server.settings import DEV_API_KEY, DEV_SECRET, ProductionSettings
from tests.commands import complaints, presence
from tests.conftest import TEST_API_KEY, TEST_SECRET, SpawnedServer, SpawnServer

BOUND_S = 20.0


def test_it_refuses_to_start_without_what_it_needs_in_a_line_each() -> None:
    lines = complaints(presence("serve"), exit_code=2)
    assert [line.split()[0] for line in lines] == ["REDIS_URL", "PRESENCE_SECRET", "PRESENCE_API_KEY"]


def test_it_refuses_weak_and_development_values_without_showing_any() -> None:
    done = presence(
        "serve", REDIS_URL="redis://:hunter2@127.0.0.1", PRESENCE_SECRET="weak", PRESENCE_API_KEY=DEV_API_KEY
    )
    lines = complaints(done, exit_code=2)
    assert [line.split()[0] for line in lines] == ["PRESENCE_SECRET", "PRESENCE_API_KEY"]
    assert "hunter2" not in done.stderr
    assert DEV_API_KEY not in done.stderr + done.stdout
    assert DEV_SECRET not in done.stderr + done.stdout


def test_it_does_not_read_an_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"REDIS_URL=redis://127.0.0.1\nPRESENCE_SECRET={TEST_SECRET}\n")
    assert len(complaints(presence("serve", cwd=tmp_path), exit_code=2)) == 3


def test_its_help_lists_every_setting_with_its_default() -> None:
    text = presence("serve", "--help").stdout
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert set(ProductionSettings.variables()) <= lines.keys()
    assert "[60]" in lines["PRESENCE_ONLINE_WINDOW_S"]
    assert "[required]" in lines["PRESENCE_SECRET"]


@pytest.mark.parametrize(
    ("name", "value"), [("WEB_CONCURRENCY", "many"), ("WEB_CONCURRENCY", "0"), ("PORT", "web")]
)
def test_what_the_host_sets_is_checked_too(name: str, value: str, redis_url: str) -> None:
    done = presence(
        "serve",
        REDIS_URL=redis_url,
        PRESENCE_SECRET=TEST_SECRET,
        PRESENCE_API_KEY=TEST_API_KEY,
        **{name: value},
    )
    (line,) = complaints(done, exit_code=2)
    assert line.startswith(f"{name} must be")


def test_a_taken_port_is_one_line(redis_url: str) -> None:
    with listen("127.0.0.1", 0) as sock:
        port = str(sock.getsockname()[1])
        done = presence(
            "serve",
            "--port",
            port,
            REDIS_URL=redis_url,
            PRESENCE_SECRET=TEST_SECRET,
            PRESENCE_API_KEY=TEST_API_KEY,
            DATABASE_URL="postgresql://127.0.0.1:1/none",
        )
    assert complaints(done, exit_code=2) == [f"port {port} on 127.0.0.1 is taken"]


def test_a_redis_that_may_evict_any_key_is_refused_in_one_line() -> None:
    with EmbeddedRedis.start(None, extra=("--maxmemory-policy", "allkeys-lru")) as redis:
        done = presence(
            "serve",
            REDIS_URL=redis.url,
            PRESENCE_SECRET=TEST_SECRET,
            PRESENCE_API_KEY=TEST_API_KEY,
            PRESENCE_PORT="0",
            PRESENCE_LOG_LEVEL="error",
            DATABASE_URL="postgresql://127.0.0.1:1/none",
        )
    (line,) = complaints(done, exit_code=2)
    assert line.startswith("REDIS_URL: this Redis may evict any key")
    assert "noeviction" in line
    assert "Traceback" not in done.stderr


def test_a_redis_that_may_evict_what_expires_is_warned_of(spawn_server: SpawnServer) -> None:
    with EmbeddedRedis.start(None, extra=("--maxmemory-policy", "volatile-ttl")) as redis:
        server = spawn_server(REDIS_URL=redis.url)
        warned = [event for event in server.events() if event["event"] == "redis_may_evict_keys"]
        server.stop()
    assert [event["policy"] for event in warned] == ["volatile-ttl"]


def test_without_a_database_it_serves_and_warns_once(spawn_server: SpawnServer) -> None:
    server = spawn_server()
    warnings = [event for event in server.events() if event["event"] == "no_history"]
    assert [warning["level"] for warning in warnings] == ["warning"]
    assert httpx.get(f"{server.url}/readyz").json()["postgres"] == "off"


def test_it_stops_cleanly_when_told_to(spawn_server: SpawnServer) -> None:
    server = spawn_server()
    assert server.stop() == 0
    assert TEST_SECRET not in server.log.read_text()
    assert TEST_API_KEY not in server.log.read_text()


def workers_of(server: SpawnedServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def test_a_worker_that_dies_is_replaced_and_all_end_with_the_parent(spawn_server: SpawnServer) -> None:
    server = spawn_server(WEB_CONCURRENCY="2")
    first, second = workers_of(server)
    first.kill()
    deadline = time.monotonic() + BOUND_S
    while first in (now := workers_of(server)) or len(now) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert second in now
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(BOUND_S) == 0
    assert not psutil.wait_procs(now, timeout=BOUND_S)[1]


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_a_worker_that_is_just_being_started_hears_of_the_stop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(_: Workers) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(Workers, "_start", start)
    with listen("127.0.0.1", 0) as sock:
        Workers(sock, 2).supervise()
    (process,) = started
    assert process.returncode == -signal.SIGTERM


def test_workers_do_not_outlive_a_killed_parent(spawn_server: SpawnServer) -> None:
    server = spawn_server(WEB_CONCURRENCY="2")
    workers = workers_of(server)
    assert len(workers) == 2
    measured = Path(workers[0].environ()["PROMETHEUS_MULTIPROC_DIR"])
    assert measured.is_dir()
    server.kill()
    assert not psutil.wait_procs(workers, timeout=BOUND_S)[1]
    assert not measured.exists()
