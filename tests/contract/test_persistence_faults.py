"""The flush under fire: whatever Postgres or the live state does in the middle, the table ends as the truth."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import pytest
from structlog.testing import capture_logs

from persistence.connect import connect
from persistence.flusher import Flusher
from persistence.migrations import migrate
from persistence.port import Written
from persistence.repository import Repository
from persistence.rows import PresenceRow
from persistence.sieve import Sieve
from server.embedded import EmbeddedPostgres
from tests import ledger
from tests.contract.persistence_model import LiveModel, ended, lines, row
from tests.postgres_faults import break_off, frozen, read_only, troubled, wire_to

WITHIN_S = 1.5
STORM_S = 20.0
SESSIONS = 300
PATIENCE_S = 60.0


@pytest.fixture
def live() -> LiveModel:
    return LiveModel()


@pytest.fixture
async def url(own_postgres: EmbeddedPostgres) -> str:
    await migrate(own_postgres.url, "public")
    return own_postgres.url


@asynccontextmanager
async def flushing(
    url: str, live: LiveModel, holder: str = "node-1", batch: int = 50
) -> AsyncIterator[Flusher]:
    """A flusher with little patience and short pauses."""
    pool = await connect(url)
    repository = Repository(pool, answer_s=WITHIN_S, work_s=WITHIN_S)
    yield Flusher(live, repository, holder=holder, flush_s=0.02, batch=batch, sleep=_nap)
    pool.terminate()


async def _nap(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.05))


async def flushed(flusher: Flusher, live: LiveModel) -> None:
    """Flush until nothing is left."""
    async with asyncio.timeout(PATIENCE_S):
        while not await flusher.flush_once() or live.dirty:  # noqa: ASYNC110 - it is we who flush
            await asyncio.sleep(0.01)


async def assert_truth(url: str, live: LiveModel, finished: dict[str, PresenceRow] | None = None) -> None:
    """The table has exactly the last state of everybody: of those who are here, and of those who finished."""
    pool = await connect(url)
    stored = await Repository(pool).sessions("main", limit=10_000_000)
    await pool.close()
    truth = {**(finished or {}), **live.sessions}
    assert {each.session_id: each._replace(metadata=None) for each in stored} == truth


def come(live: LiveModel, number: int = 120) -> None:
    for each in range(number):
        live.change(row(f"s{each:03d}"))


Fault = Callable[[EmbeddedPostgres, str], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def frozen_now(postgres: EmbeddedPostgres, _: str) -> AsyncIterator[None]:
    with frozen(postgres):
        yield


def read_only_now(_: EmbeddedPostgres, url: str) -> AbstractAsyncContextManager[None]:
    return read_only(url)


def refusing_now(_: EmbeddedPostgres, url: str) -> AbstractAsyncContextManager[None]:
    return troubled(url, refuses=True)


@asynccontextmanager
async def gone_now(postgres: EmbeddedPostgres, _: str) -> AsyncIterator[None]:
    await asyncio.to_thread(postgres.stop)
    yield
    postgres.restart()


@pytest.mark.parametrize("fault", [frozen_now, read_only_now, refusing_now, gone_now])
async def test_while_postgres_does_not_serve_it_is_said_once_and_afterwards_everything_is_written(
    own_postgres: EmbeddedPostgres, url: str, live: LiveModel, fault: Fault
) -> None:
    come(live)
    async with flushing(url, live) as flusher:
        await flushed(flusher, live)
        with capture_logs() as logs:
            async with fault(own_postgres, url):
                live.now_ms += 1
                come(live)
                for _ in range(4):
                    assert not await flusher.flush_once()
                    assert flusher.status.postgres == "down"
                assert live.leases == {}
                assert (flusher.status.failures, flusher.status.set_aside) == (4, 0)
            await flushed(flusher, live)
        assert [log["event"] for log in logs] == ["postgres_away", "postgres_back"]
    await assert_truth(url, live)


async def test_a_restarted_postgres_is_used_again_at_once(
    own_postgres: EmbeddedPostgres, url: str, live: LiveModel
) -> None:
    async with flushing(url, live) as flusher:
        come(live)
        assert await flusher.flush_once()
        own_postgres.restart()
        live.now_ms += 1
        come(live)
        await flushed(flusher, live)
    await assert_truth(url, live)


async def test_a_postgres_too_slow_for_a_batch_gets_smaller_ones(url: str, live: LiveModel) -> None:
    come(live, 60)
    async with flushing(url, live, batch=60) as flusher, troubled(url, takes_s=0.05):
        async with asyncio.timeout(PATIENCE_S):
            while await missing(url) < 60:
                await flusher.flush_once()
    async with flushing(url, live) as flusher:
        await flushed(flusher, live)
    await assert_truth(url, live)


async def missing(url: str) -> int:
    connection = await asyncpg.connect(url)
    count: int = await connection.fetchval("select count(*) from presence")
    await connection.close()
    return count


async def test_a_connection_lost_between_commit_and_ack_writes_nothing_twice(
    url: str, live: LiveModel
) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(ledger.AUDIT)
    live.change(ended("gone"))
    finished = dict(live.sessions)
    come(live, 20)
    async with wire_to(url) as wire, flushing(wire.url, live) as flusher:
        await flusher.probe()
        # The pools are written first, in a transaction of their own.
        wire.pass_commits, wire.cut_at_commits = 1, 1
        assert not await flusher.flush_once()
        assert wire.cuts == 1
        assert await missing(url) == 21
        assert len(live.dirty) == 21
        await flushed(flusher, live)
    assert "gone" not in live.sessions
    assert await ledger.assert_only_forward(connection) == 21
    await connection.close()
    await assert_truth(url, live, finished)


async def test_a_row_that_somebodys_trigger_refuses_stops_nobody_else(url: str, live: LiveModel) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        """
        create function only_pages() returns trigger language plpgsql as $$
        begin
          if new.current_page = 'poison' then raise exception 'not this page'; end if;
          return new;
        end $$;
        create trigger pages before insert or update on presence for each row execute function only_pages();
        """
    )
    come(live)
    for bad in ("s000", "s050", "s051"):
        live.change(row(bad, current_page="poison"))
    async with flushing(url, live) as flusher:
        with capture_logs() as logs:
            for _ in range(3):
                assert await flusher.flush_once()
        assert [log["event"] for log in logs] == ["presence_row_set_aside"] * 3
        assert flusher.status.set_aside == 3
        assert sorted(live.dirty) == ["s000", "s050", "s051"]
        await connection.execute("drop trigger pages on presence")
        await flushed(flusher, live)
        assert flusher.status.set_aside == 0
    await connection.close()
    await assert_truth(url, live)


async def test_a_trigger_that_takes_nothing_is_told_from_bad_rows_even_one_row_at_a_time(
    url: str, live: LiveModel
) -> None:
    come(live)
    async with flushing(url, live, batch=1) as flusher:
        async with troubled(url, refuses=True):
            assert not await flusher.flush_once()
            assert flusher.status.postgres == "down"
            assert flusher.status.set_aside < 40
        await flushed(flusher, live)
        assert flusher.status.set_aside == 0
    await assert_truth(url, live)


async def test_rows_that_were_bad_before_do_not_hide_that_a_trigger_takes_nothing(url: str) -> None:
    (bad,) = lines([row("bad", status="asleep")])
    async with await connect(url) as pool:
        sieve = Sieve(Repository(pool))
        assert (await sieve.write([bad])).left_out == ["bad"]

        async def write_one_by_one() -> None:
            for line in lines(row(f"s{number}") for number in range(40)):
                await sieve.write([bad])
                await sieve.write([line])

        async with troubled(url, refuses=True):
            with pytest.raises(asyncpg.RaiseError):
                await write_one_by_one()


async def test_whoever_lost_the_lease_in_the_middle_harms_nobody(url: str, live: LiveModel) -> None:
    """Its write comes late, after that of the new holder, and moves nothing back."""
    come(live)
    async with flushing(url, live) as late, flushing(url, live, "node-2") as new:
        assert await late.flush_once()
        live.change(row("s007", current_page="old"))
        taken = await live.take("main", 10)
        live.leases.clear()
        live.change(row("s007", current_page="new"))
        await flushed(new, live)
        pool = await connect(url)
        await live.ack("main", taken, Written(await Repository(pool).write(taken.lines)))
        await pool.close()
        await flushed(new, live)
    assert live.sessions["s007"].current_page == "new"
    await assert_truth(url, live)


class Storm:
    """Traffic at random from a seed, and every fault there is, at random too."""

    def __init__(self, live: LiveModel, postgres: EmbeddedPostgres, url: str, seed: int) -> None:
        self.live = live
        self.finished: dict[str, PresenceRow] = {}
        self.happened: list[str] = []
        self._postgres = postgres
        self._url = url
        self._rng = random.Random(seed)
        self._count = 0

    async def traffic(self) -> None:
        """People come, turn pages and finish, for ever."""
        rng, live = self._rng, self.live
        while True:
            live.now_ms += rng.randint(0, 3)
            here = [each for each in live.sessions if live.sessions[each].status == "active"]
            if len(here) < SESSIONS:
                self._count += 1
                live.change(row(f"s{self._count:06d}", started_at_ms=live.now_ms, last_seen_ms=live.now_ms))
            else:
                self._change(live.sessions[rng.choice(here)])
            await asyncio.sleep(0 if rng.random() < 0.9 else 0.001)

    def _change(self, one: PresenceRow) -> None:
        now, rng = self.live.now_ms, self._rng
        if rng.random() < 0.8:
            self.live.change(one._replace(current_page=f"page {rng.random()}", last_seen_ms=now))
            return
        status = rng.choice(["completed", "abandoned"])
        end = {"status": status, "end_reason": status, "last_seen_ms": now, "completed_at_ms": now}
        self.live.change(one._replace(**end))  # type: ignore[arg-type]
        self.finished[one.session_id] = self.live.sessions[one.session_id]

    async def something_happens(self) -> None:
        deeds: Sequence[Callable[[], Awaitable[None]]] = (
            self.restart,
            self.kill,
            self.freeze,
            self.make_read_only,
            self.refuse,
            self.slow_down,
            self.break_off,
            self.lose_acks,
            self.lose_the_live_state,
            self.steal_the_lease,
        )
        deed = self._rng.choice(deeds)
        self.happened.append(deed.__name__)
        await deed()

    async def _for_a_while(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.1, 1.0))

    async def pause(self) -> None:
        """Until the next fault."""
        await asyncio.sleep(self._rng.uniform(0, 0.5))

    async def restart(self) -> None:
        self._postgres.restart()

    async def kill(self) -> None:
        await asyncio.to_thread(self._postgres.kill)
        await self._for_a_while()
        self._postgres.restart()

    async def freeze(self) -> None:
        with frozen(self._postgres):
            await self._for_a_while()

    async def make_read_only(self) -> None:
        async with read_only(self._url):
            await self._for_a_while()

    async def refuse(self) -> None:
        async with troubled(self._url, refuses=True):
            await self._for_a_while()

    async def slow_down(self) -> None:
        async with troubled(self._url, takes_s=0.05):
            await self._for_a_while()

    async def break_off(self) -> None:
        await break_off(self._url)

    async def lose_acks(self) -> None:
        self.live.lose_acks = self._rng.randint(1, 3)

    async def lose_the_live_state(self) -> None:
        self.live.away = True
        await self._for_a_while()
        self.live.away = False

    async def steal_the_lease(self) -> None:
        self.live.leases.clear()


async def test_after_a_storm_of_every_fault_the_table_is_the_truth(
    own_postgres: EmbeddedPostgres, url: str, live: LiveModel
) -> None:
    await stormy_for(STORM_S, Storm(live, own_postgres, url, seed=5), url)


async def stormy_for(seconds: float, storm: Storm, url: str) -> None:
    """Traffic and faults for so long, with two flushers; then the table is the truth."""
    live, until = storm.live, time.monotonic() + seconds
    async with flushing(url, live) as one, flushing(url, live, "node-2") as two:
        tasks = [asyncio.create_task(each) for each in (storm.traffic(), one.run(), two.run())]
        while time.monotonic() < until:
            await storm.something_happens()
            await storm.pause()
            assert not [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        live.leases.clear()
        await flushed(one, live)
    failures = one.status.failures + two.status.failures
    print(f"\n{len(storm.happened)} faults, {len(storm.finished)} finished, {failures} flushes failed")
    assert len(storm.finished) > 50
    await assert_truth(url, live, storm.finished)
