"""The flusher between a model of the live state and a real Postgres: nothing lost, doubled or going backwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from structlog.testing import capture_logs

from persistence.connect import connect
from persistence.flusher import LONGEST_RETRY_S, Flusher
from persistence.migrations import migrate
from persistence.port import ALL_WRITTEN, Refusal, Taken, Written
from persistence.repository import Repository
from persistence.rows import PresenceRow
from server.embedded import EmbeddedPostgres
from tests.contract.persistence_model import START_MS, LiveModel, ended, lines, row
from tests.postgres_faults import frozen

PATIENCE_S = 30.0
DAY_S = 86_400.0


class Clock:
    """Seconds that pass only when somebody sleeps, and how long each sleep was."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0.01)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live() -> LiveModel:
    return LiveModel()


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[Repository]:
    pool = await connect(database_url)
    yield Repository(pool, "public")
    await pool.close()


@pytest.fixture
def flusher(live: LiveModel, repository: Repository, clock: Clock) -> Flusher:
    return Flusher(live, repository, holder="node-1", clock=clock, sleep=clock.sleep, batch=10)


async def stored(repository: Repository, session_id: str = "s1") -> PresenceRow:
    found = await repository.session(session_id)
    assert found is not None
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the flusher does."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - many conditions, one wait
            await asyncio.sleep(0.005)


async def several_failures(flusher: Flusher) -> None:
    """Wait until it has failed a few times more."""
    enough = flusher.status.failures + 5
    await until(lambda: flusher.status.failures >= enough)


@asynccontextmanager
async def running(flusher: Flusher) -> AsyncIterator[None]:
    task = asyncio.create_task(flusher.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_flush_writes_everything_in_batches_and_leaves_nothing_dirty(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    for number in range(35):
        live.change(row(f"s{number:02d}"))
    assert await flusher.flush_once()
    assert len(await repository.sessions("main")) == 35
    assert not live.dirty
    assert flusher.status.postgres == "ok"
    assert (flusher.status.backlog, flusher.status.lag_s) == (0, 0.0)


async def test_a_source_that_gives_less_than_it_was_asked_for_is_asked_again(
    live: LiveModel, repository: Repository
) -> None:
    class Sparing(LiveModel):
        async def take(self, pool: str, limit: int, skip: int = 0) -> Taken:
            return await super().take(pool, limit - 3, skip)

    sparing = Sparing()
    for number in range(25):
        sparing.change(row(f"s{number:02d}"))
    assert await Flusher(sparing, repository, holder="node-1", batch=10).flush_once()
    assert not sparing.dirty


async def test_no_row_is_read_or_written_twice_though_batches_overlap(repository: Repository) -> None:
    class Halting(LiveModel):
        """Gives and confirms a few at a time, as Redis does."""

        taken = 0

        async def take(self, pool: str, limit: int, skip: int = 0) -> Taken:
            found: list[str] = []
            receipts: list[bytes] = []
            for start in range(0, limit, 5):
                part = await super().take(pool, min(5, limit - start), skip + start)
                found += part.lines
                receipts += part.receipts
                await asyncio.sleep(0.002)
            self.taken += len(found)
            return Taken(found, receipts)

        async def ack(self, pool: str, taken: Taken, written: Written = ALL_WRITTEN) -> None:
            for receipt in taken.receipts:
                await super().ack(pool, Taken((), [receipt]), written)
                await asyncio.sleep(0.002)

    halting = Halting()
    for number in range(200):
        halting.change(row(f"s{number:03d}"))
    assert await Flusher(halting, repository, holder="node-1", batch=20).flush_once()
    assert not halting.dirty
    assert halting.taken == len(halting.acked) == 200


async def test_last_seen_of_those_who_are_present_follows_with_each_flush(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    live.change(row())
    await flusher.flush_once()
    live.now_ms += 10_000
    await flusher.flush_once()
    assert (await stored(repository)).last_seen_ms == START_MS + 10_000


async def test_an_ended_session_is_forgotten_once_its_last_row_is_committed(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    live.change(ended())
    await flusher.flush_once()
    assert (await stored(repository)).status == "completed"
    assert not live.sessions


async def test_the_pools_limit_is_written_too(flusher: Flusher, live: LiveModel, database_url: str) -> None:
    live.limits = {"main": 7, "other": 2}
    await flusher.flush_once()
    pool = await connect(database_url)
    limits = {each["pool"]: each["limit"] for each in await pool.fetch("select * from presence_pools")}
    await pool.close()
    assert limits == live.limits


async def test_a_session_that_changes_while_it_is_written_stays_dirty(
    flusher: Flusher, live: LiveModel, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = repository.write

    async def slow_write(given: list[str]) -> list[Refusal]:
        refused = await write(given)
        live.change(row(current_page="learning"))
        return refused

    live.change(row())
    with monkeypatch.context() as patch:
        patch.setattr(repository, "write", slow_write)
        await flusher.flush_once()
    assert "s1" in live.dirty
    await flusher.flush_once()
    assert (await stored(repository)).current_page == "learning"


async def test_a_lost_ack_after_the_commit_only_repeats_the_write(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    live.change(ended())
    live.lose_acks = 1
    assert not await flusher.flush_once()
    assert live.sessions
    assert await flusher.flush_once()
    assert not live.sessions
    assert (await stored(repository)).status == "completed"


async def test_a_row_refused_as_old_by_somebody_elses_write_is_written_in_the_same_flush_once_raised(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    await repository.write(lines([row(version=500, current_page="of a lost memory")]))
    live.change(row(version=3, current_page="now"))
    await flusher.flush_once()
    assert (await stored(repository)).current_page == "now"
    assert not live.dirty


async def test_a_stay_that_the_table_holds_as_completed_is_not_tried_for_ever(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    await repository.write(lines([ended()]))
    live.change(row(version=99))
    await flusher.flush_once()
    assert not live.dirty
    assert (await stored(repository)).status == "completed"


async def test_only_the_holder_of_the_lease_flushes_and_the_other_still_sees_postgres(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    live.leases["main"] = "node-2"
    live.change(row())
    assert await flusher.flush_once()
    assert live.dirty
    assert flusher.status.postgres == "ok"
    assert flusher.status.backlog == 1


async def test_two_flushers_at_once_do_no_harm(live: LiveModel, repository: Repository) -> None:
    class NoLease(LiveModel):
        async def lease(self, pool: str, holder: str, ttl_ms: int) -> bool:
            return True

    shared = NoLease()
    for number in range(200):
        shared.change(row(f"s{number:03d}"))
    both = [Flusher(shared, repository, holder=f"node-{n}", batch=20) for n in range(2)]
    for turn in range(5):
        shared.now_ms += 1
        shared.change(row("s007", current_page=f"page {turn}"))
        assert all(await asyncio.gather(*(each.flush_once() for each in both)))
    await both[0].flush_once()
    assert not shared.dirty
    rows = await repository.sessions("main", limit=300)
    assert {(each.session_id, each.version, each.last_seen_ms) for each in rows} == {
        (each.session_id, each.version, each.last_seen_ms) for each in shared.sessions.values()
    }


async def test_of_two_calls_at_once_the_second_waits(flusher: Flusher, live: LiveModel) -> None:
    live.change(row())
    assert all(await asyncio.gather(flusher.flush_once(), flusher.flush_once()))
    # The first wrote the row, and what the second found to do came after that.
    assert live.acked == live.acked_touches == ["s1"]


async def test_an_unwritable_row_is_repaired_and_stops_nobody(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    for number in range(25):
        live.change(row(f"s{number:02d}"))
    live.change(row("s03", metadata='{"a": "x\\u0000y", "b": "back\\\\u0000"}', current_page="p\x00\ud800"))
    live.change(row("s04", metadata="no json"))
    with capture_logs() as logs:
        for _ in range(3):
            live.now_ms += 1
            assert await flusher.flush_once()
    assert not live.dirty
    assert len(await repository.sessions("main")) == 25
    assert (await stored(repository, "s03")).metadata == '{"a": "x\ufffdy", "b": "back\\\\u0000"}'
    assert (await stored(repository, "s03")).current_page == "p\ufffd?"
    assert (await stored(repository, "s04")).metadata == "{}"
    assert [(log["event"], log["session_id"]) for log in logs] == [
        ("presence_row_repaired", "s03"),
        ("presence_row_repaired", "s04"),
    ]


async def test_a_row_that_can_not_be_repaired_is_set_aside_told_once_and_tried_again(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    for number in range(25):
        live.change(row(f"s{number:02d}", status="asleep" if number < 12 else "active"))
    with capture_logs() as logs:
        assert await flusher.flush_once()
        assert await flusher.flush_once()
    assert len(logs) == 12
    assert {log["event"] for log in logs} == {"presence_row_set_aside"}
    assert flusher.status.set_aside == 12
    assert len(await repository.sessions("main")) == 13
    for number in range(12):
        live.change(row(f"s{number:02d}"))
    assert await flusher.flush_once()
    assert flusher.status.set_aside == 0
    assert len(await repository.sessions("main")) == 25


async def test_it_flushes_every_interval(flusher: Flusher, live: LiveModel, clock: Clock) -> None:
    async with running(flusher):
        await until(lambda: len(clock.slept) >= 3)
    assert clock.slept[:3] == [10.0, 10.0, 10.0]


async def test_the_live_state_may_be_away_for_a_while(
    flusher: Flusher, live: LiveModel, clock: Clock
) -> None:
    live.change(row())
    live.away = True
    with capture_logs() as logs:
        async with running(flusher):
            await until(lambda: len(clock.slept) >= 10)
            live.away = False
            await until(lambda: not live.dirty)
    assert [log["event"] for log in logs] == ["flush_source_away", "flush_source_back"]
    assert all(0 < pause <= LONGEST_RETRY_S for pause in clock.slept[:10])
    assert flusher.status.failures >= 10


@pytest.fixture
async def own_repository(own_postgres: EmbeddedPostgres) -> AsyncIterator[Repository]:
    await migrate(own_postgres.url, "public")
    pool = await connect(own_postgres.url)
    yield Repository(pool, "public")
    await pool.close()


async def test_postgres_killed_under_traffic_loses_doubles_and_reverses_nothing(
    own_postgres: EmbeddedPostgres, own_repository: Repository, live: LiveModel, clock: Clock
) -> None:
    flusher = Flusher(live, own_repository, holder="node-1", batch=20, clock=clock, sleep=clock.sleep)

    async def traffic() -> None:
        for turn in range(100_000):
            live.now_ms += 1
            live.change(row(f"s{turn % 200:03d}", current_page=f"page {turn}", last_seen_ms=live.now_ms))
            await asyncio.sleep(0 if turn % 5 else 0.001)

    with capture_logs() as logs:
        async with running(flusher):
            visitors = asyncio.create_task(traffic())
            for _ in range(2):
                await until(lambda: len(live.acked) > 200)
                await asyncio.to_thread(own_postgres.kill)
                await until(lambda: flusher.status.postgres == "down")
                assert not live.leases
                await several_failures(flusher)
                await asyncio.to_thread(own_postgres.restart)
                await until(lambda: flusher.status.postgres == "ok")
                live.acked.clear()
            visitors.cancel()
            await asyncio.gather(visitors, return_exceptions=True)
        assert await flusher.final()
    assert [log["event"] for log in logs] == ["postgres_away", "postgres_back"] * 2
    rows = await own_repository.sessions("main", limit=1000)
    assert {(each.session_id, each.current_page, each.version) for each in rows} == {
        (each.session_id, each.current_page, each.version) for each in live.sessions.values()
    }


async def test_the_server_starts_while_postgres_is_away_and_catches_up(
    own_postgres: EmbeddedPostgres, own_repository: Repository, live: LiveModel, clock: Clock
) -> None:
    await asyncio.to_thread(own_postgres.stop)
    pool = await connect(own_postgres.url)
    flusher = Flusher(live, Repository(pool), holder="node-1", clock=clock, sleep=clock.sleep)
    live.change(row())
    live.now_ms += 4_000
    assert not await flusher.flush_once()
    status = flusher.status
    assert (status.postgres, status.backlog, status.lag_s, status.failures) == ("down", 1, 4.0, 1)
    await asyncio.to_thread(own_postgres.restart)
    assert await flusher.flush_once()
    assert (await stored(own_repository)).version == 1
    await pool.close()


async def test_a_postgres_that_hangs_is_given_up_in_bounded_time_and_the_lag_goes_on_growing(
    own_postgres: EmbeddedPostgres, own_repository: Repository, live: LiveModel, clock: Clock
) -> None:
    pool = await connect(own_postgres.url)
    repository = Repository(pool, answer_s=0.2, work_s=0.2)
    flusher = Flusher(live, repository, holder="node-1", clock=clock, sleep=clock.sleep)
    assert await flusher.flush_once()
    live.change(row())
    with capture_logs() as logs, frozen(own_postgres):
        # The patience of a command is 30 s, and that of its rollback again.
        async with asyncio.timeout(PATIENCE_S / 2):
            assert not await flusher.flush_once()
        assert flusher.status.postgres == "down"
        lag_s = flusher.status.lag_s
        clock.now += 7
        assert flusher.status.lag_s == lag_s + 7
    assert [log["error"] for log in logs] == ["TimeoutError: Postgres did not answer within 0.2 s"]
    assert await flusher.flush_once()
    assert not live.dirty
    assert flusher.status.lag_s == 0
    await pool.close()


async def test_a_database_without_the_tables_heals_when_it_is_migrated(
    empty_database_url: str, live: LiveModel
) -> None:
    pool = await connect(empty_database_url)
    flusher = Flusher(live, Repository(pool), holder="node-1")
    live.change(row())
    with capture_logs() as logs:
        assert not await flusher.flush_once()
        await migrate(empty_database_url, "public")
        assert await flusher.flush_once()
    assert [log["event"] for log in logs] == ["postgres_away", "postgres_back"]
    await pool.close()


async def test_the_final_flush_writes_what_is_left_and_gives_the_lease_back(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    await flusher.flush_once()
    assert live.leases == {"main": "node-1"}
    live.change(row())
    assert await flusher.final()
    assert (await stored(repository)).version == 1
    assert live.leases == {}


async def test_the_final_flush_does_not_wait_for_ever(
    flusher: Flusher, live: LiveModel, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(given: list[str]) -> list[Refusal]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(repository, "write", hang)
    live.change(row())
    assert not await flusher.final(timeout_s=0.05)
    assert live.dirty


async def test_the_final_flush_is_calm_when_the_live_state_is_gone(flusher: Flusher, live: LiveModel) -> None:
    await flusher.flush_once()
    live.away = True
    assert not await flusher.final()


async def test_what_only_the_table_knows_becomes_abandoned_after_a_flush_and_daily(
    flusher: Flusher, live: LiveModel, repository: Repository, clock: Clock
) -> None:
    lost = [row(f"lost{n:02d}") for n in range(25)]
    await repository.write(lines([*lost, row("elsewhere", pool="forgotten"), row("known", version=1)]))
    live.sessions["known"] = row("known", version=1, status="offline")
    live.change(ended("ending", status="completed"))
    await repository.write(lines([row("ending", version=1)]))
    await flusher.flush_once()
    assert {each.session_id for each in await repository.sessions("main", status="abandoned")} == {
        each.session_id for each in lost
    }
    assert (await stored(repository, "elsewhere")).status == "abandoned"
    assert (await stored(repository, "known")).status == "active"
    assert (await stored(repository, "ending")).status == "completed"

    await repository.write(lines([row("later")]))
    await flusher.flush_once()
    assert (await stored(repository, "later")).status == "active"
    clock.now += DAY_S
    await flusher.flush_once()
    assert (await stored(repository, "later")).status == "abandoned"


async def test_a_recovery_lets_the_next_flush_look_for_lost_sessions(
    flusher: Flusher, repository: Repository
) -> None:
    await flusher.flush_once()
    await repository.write(lines([row("lost")]))
    flusher.sweep_soon()
    await flusher.flush_once()
    assert (await stored(repository, "lost")).status == "abandoned"


async def test_nothing_is_abandoned_before_the_backlog_is_flushed(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    await repository.write(lines([row("lost")]))
    live.change(row("other"))
    live.lose_acks = 1
    assert not await flusher.flush_once()
    assert (await stored(repository, "lost")).status == "active"


def test_errors_that_mean_that_postgres_is_away_are_all_told_apart_from_bugs() -> None:
    from persistence.errors import POSTGRES_AWAY  # noqa: PLC0415 - the subject of this test alone

    assert issubclass(asyncpg.ConnectionDoesNotExistError, POSTGRES_AWAY)
    assert issubclass(asyncpg.CannotConnectNowError, POSTGRES_AWAY)
    assert not issubclass(TypeError, POSTGRES_AWAY)
