"""While Postgres is away, what waits and what failed is told three times: in `/readyz`, to Prometheus, in the log."""

from __future__ import annotations

from structlog.testing import capture_logs

from persistence.migrations import migrate
from server.embedded import EmbeddedPostgres
from tests.conftest import TEST_API_KEY, Serve
from tests.integration.http.api import Api
from tests.integration.http.test_metrics import series

TRIES = 3
WAITING = 2
NAMES = ("postgres", "backlog", "flush_failures", "set_aside")


async def test_lag_backlog_and_failures_grow_are_told_and_end(
    serve: Serve, own_postgres: EmbeddedPostgres
) -> None:
    await migrate(own_postgres.url, "public")
    node = await serve(database_url=own_postgres.url, flush_s=3600)
    flusher, api = node.node.flusher, Api(node.url, TEST_API_KEY)
    assert flusher is not None
    assert await flusher.flush_once()
    with capture_logs() as logs:
        own_postgres.stop()
        for number in range(WAITING):
            await api.open(f"user-{number}")
        assert [await flusher.flush_once() for _ in range(TRIES)] == [False] * TRIES
        away = await api.call("GET", "/readyz")
        told = await series(node.url)
        own_postgres.restart()
        assert await flusher.flush_once()
    assert (away.status_code, away.json()["ready"]) == (200, True)
    assert [away.json()[name] for name in NAMES] == ["down", WAITING, TRIES, 0]
    assert away.json()["flush_lag_s"] > 0
    assert told["presence_postgres_up"] == 0
    assert told["presence_flush_failures_total"] == TRIES
    assert told['presence_flush_backlog{pool="main"}'] == WAITING
    assert told['presence_flush_lag_seconds{pool="main"}'] > 0
    assert [log["event"] for log in logs if "postgres" in log["event"]] == ["postgres_away", "postgres_back"]

    back, told = (await api.call("GET", "/readyz")).json(), await series(node.url)
    assert [back[name] for name in NAMES] == ["ok", 0, TRIES, 0]
    assert back["flush_lag_s"] == 0
    assert told["presence_postgres_up"] == 1
    assert told['presence_flush_backlog{pool="main"}'] == 0
    await api.close()
