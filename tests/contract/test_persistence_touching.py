"""The short way of the flush, for those of whom `last_seen` alone has moved: as exact as the long one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from persistence.connect import connect
from persistence.flusher import Flusher
from persistence.port import Touched
from persistence.repository import Repository
from persistence.rows import PresenceRow
from tests import ledger
from tests.contract.persistence_model import START_MS, LiveModel, ended, lines, row
from tests.postgres_faults import wire_to

LATER_MS = START_MS + 10_000


@pytest.fixture
def live() -> LiveModel:
    return LiveModel()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with await connect(database_url) as pool:
        yield pool


@pytest.fixture
def repository(pool: asyncpg.Pool[asyncpg.Record]) -> Repository:
    return Repository(pool)


@pytest.fixture
def flusher(live: LiveModel, repository: Repository) -> Flusher:
    return Flusher(live, repository, holder="node-1", batch=10)


def touched(*session_ids: str, version: int = 1, last_seen_ms: int = LATER_MS) -> Touched:
    number = len(session_ids)
    return Touched(["part"], session_ids, [version] * number, [last_seen_ms] * number, None)


def come(live: LiveModel, number: int = 35) -> None:
    for each in range(number):
        live.change(row(f"s{each:02d}"))


async def stored(repository: Repository, session_id: str = "s1") -> PresenceRow:
    found = await repository.session(session_id)
    assert found is not None
    return found


async def assert_truth(repository: Repository, live: LiveModel) -> None:
    rows = {each.session_id: each for each in await repository.sessions("main", limit=1000)}
    assert {each: one._replace(metadata=None) for each, one in rows.items()} == live.sessions


async def test_where_only_last_seen_moved_the_row_follows_and_the_session_never_was_dirty(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    come(live)
    assert await flusher.flush_once()
    live.acked.clear()
    live.now_ms = LATER_MS
    assert await flusher.flush_once()
    assert {each.last_seen_ms for each in await repository.sessions("main")} == {LATER_MS}
    assert (live.acked, live.dirty, live.touched) == ([], {}, {})
    assert sorted(live.acked_touches) == sorted(live.sessions)


async def test_a_row_that_the_table_lost_comes_back_whole_in_the_same_flush(
    flusher: Flusher, live: LiveModel, repository: Repository, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    come(live)
    assert await flusher.flush_once()
    await pool.execute("delete from presence where session_id in ('s03', 's30')")
    live.now_ms = LATER_MS
    assert await flusher.flush_once()
    await assert_truth(repository, live)
    assert sorted(live.acked[35:]) == ["s03", "s30"]


async def test_one_that_sql_abandoned_though_it_is_here_is_active_again(
    flusher: Flusher, live: LiveModel, repository: Repository, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    come(live)
    assert await flusher.flush_once()
    assert await pool.fetchval("select cleanup_stale_sessions(0)") == 35
    live.now_ms = LATER_MS
    assert await flusher.flush_once()
    await assert_truth(repository, live)


async def test_a_session_completed_between_its_touch_and_the_write_is_not_revived(
    flusher: Flusher, live: LiveModel, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = repository.move

    async def late_move(late: Touched) -> list[str]:
        live.change(ended(last_seen_ms=START_MS + 5_000, version=2))
        assert await Flusher(live, Repository(repository._pool), holder="node-1").flush_once()
        return await move(late)

    live.change(row())
    assert await flusher.flush_once()
    live.now_ms = LATER_MS
    with monkeypatch.context() as patch:
        patch.setattr(repository, "move", late_move)
        assert await flusher.flush_once()
    row_now = await stored(repository)
    assert (row_now.status, row_now.last_seen_ms) == ("completed", START_MS + 5_000)
    assert (live.sessions, live.dirty) == ({}, {})


async def test_one_that_changes_between_its_touch_and_the_write_stays_dirty_and_is_written_too(
    flusher: Flusher, live: LiveModel, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = repository.move

    async def late_move(late: Touched) -> list[str]:
        live.change(live.sessions["s1"]._replace(current_page="learning"))
        return await move(late)

    live.change(row())
    assert await flusher.flush_once()
    live.now_ms = LATER_MS
    monkeypatch.setattr(repository, "move", late_move)
    assert await flusher.flush_once()
    assert not live.dirty
    await assert_truth(repository, live)


async def test_last_seen_never_goes_back(repository: Repository) -> None:
    await repository.write(lines([row(last_seen_ms=LATER_MS)]))
    assert await repository.move(touched("s1", last_seen_ms=LATER_MS - 1)) == []
    assert (await stored(repository)).last_seen_ms == LATER_MS


@pytest.mark.parametrize("other", [row(version=2), row(status="abandoned"), ended(version=1)])
async def test_a_row_that_is_not_as_it_should_be_is_left_alone_and_named(
    repository: Repository, other: PresenceRow
) -> None:
    await repository.write(lines([other, row("s2"), row("s3")]))
    assert await repository.move(touched("s1", "s2", "s3", "gone")) == ["s1", "gone"]
    assert (await stored(repository))._replace(metadata=None) == other
    assert (await stored(repository, "s3")).last_seen_ms == LATER_MS


async def test_it_touches_no_index(repository: Repository, pool: asyncpg.Pool[asyncpg.Record]) -> None:
    ids = [f"s{n}" for n in range(20)]
    await repository.write(lines([row(each) for each in ids]))
    for turn in range(1, 4):
        assert await repository.move(touched(*ids, last_seen_ms=START_MS + turn)) == []
    await pool.execute("select pg_stat_force_next_flush()")
    counts = await pool.fetch(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'presence'"
    )
    assert [tuple(each) for each in counts] == [(60, 60)]


async def test_a_row_that_a_trigger_keeps_from_moving_holds_up_nobody_else(
    flusher: Flusher, live: LiveModel, repository: Repository, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    come(live)
    assert await flusher.flush_once()
    await pool.execute(
        """
        create function stay() returns trigger language plpgsql as $$
        begin
          if new.session_id = 's07' then raise exception 'not this one'; end if;
          return new;
        end $$;
        create trigger stays before update on presence for each row execute function stay();
        """
    )
    live.now_ms = LATER_MS
    assert await flusher.flush_once()
    seen = {each.session_id: each.last_seen_ms for each in await repository.sessions("main")}
    assert seen.pop("s07") == START_MS
    assert set(seen.values()) == {LATER_MS}
    assert list(live.dirty) == ["s07"]
    assert flusher.status.set_aside == 1


async def test_what_was_touched_and_never_acked_is_written_though_nobody_is_here_any_more(
    flusher: Flusher, live: LiveModel, repository: Repository
) -> None:
    come(live)
    assert await flusher.flush_once()
    live.now_ms = LATER_MS
    left = await live.touch("main", 100)
    assert (len(left.session_ids), live.dirty) == (35, {})
    live.absent = set(live.sessions)
    assert await flusher.flush_once()
    assert {each.last_seen_ms for each in await repository.sessions("main")} == {LATER_MS}


async def test_a_commit_whose_answer_is_lost_moves_nothing_twice(
    live: LiveModel, database_url: str, repository: Repository
) -> None:
    come(live)
    assert await Flusher(live, repository, holder="node-1").flush_once()
    connection = await asyncpg.connect(database_url)
    await connection.execute(ledger.AUDIT)
    live.now_ms = LATER_MS
    async with wire_to(database_url) as wire, await connect(wire.url) as pool:
        flusher = Flusher(live, Repository(pool), holder="node-1")
        await flusher.probe()
        # The pools are written first, in a transaction of their own.
        wire.pass_commits, wire.cut_at_commits = 1, 1
        assert not await flusher.flush_once()
        assert wire.cuts == 1
        while not await flusher.flush_once():
            pass
    assert (live.dirty, live.touched) == ({}, {})
    assert await connection.fetchval("select count(*) from audit") == 35
    await connection.close()
    await assert_truth(repository, live)


async def test_two_flushers_at_once_do_no_harm(live: LiveModel, repository: Repository) -> None:
    class NoLease(LiveModel):
        async def lease(self, pool: str, holder: str, ttl_ms: int) -> bool:
            return True

    shared, chance = NoLease(), random.Random(3)
    for number in range(200):
        shared.change(row(f"s{number:03d}"))
    both = [Flusher(shared, repository, holder=f"node-{n}", batch=20) for n in range(2)]
    for turn in range(8):
        shared.now_ms += 1
        for number in chance.sample(range(200), 20):
            shared.change(shared.sessions[f"s{number:03d}"]._replace(current_page=f"page {turn}"))
        assert all(await asyncio.gather(*(each.flush_once() for each in both)))
    await both[0].flush_once()
    assert not shared.dirty
    await assert_truth(repository, shared)


@pytest.mark.parametrize("more", [0, 3000])
async def test_it_never_deadlocks_with_itself_or_with_whole_rows_in_any_order(
    repository: Repository, pool: asyncpg.Pool[asyncpg.Record], more: int
) -> None:
    """Also where Postgres would like to read the whole table, because it is small or it knows nothing of it."""
    ids = [f"s{number:03d}" for number in range(200)]
    await repository.write(lines([row(each) for each in reversed(ids)]))
    await repository.write(lines([row(f"other{number}") for number in range(more)] or [row("other")]))
    if more:
        await pool.execute("analyze presence")

    async def move(turn: int) -> None:
        order = _shuffled(ids, turn)
        await repository.move(touched(*order, last_seen_ms=START_MS + turn))

    async def write(turn: int) -> None:
        await repository.write(
            lines([row(each, last_seen_ms=START_MS + turn) for each in _shuffled(ids, turn)])
        )

    await asyncio.gather(*((move if turn % 3 else write)(turn) for turn in range(1, 40)))
    assert {(await stored(repository, each)).last_seen_ms for each in ids[:3]} == {START_MS + 39}


def _shuffled(ids: Sequence[str], seed: int) -> list[str]:
    return random.Random(seed).sample(ids, len(ids))
