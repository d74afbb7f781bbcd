"""The dirty set: what is taken, acked, touched and buried."""

from __future__ import annotations

from unittest.mock import AsyncMock

import pytest

from persistence.errors import SourceAwayError
from persistence.lines import line_of, row_of, session_id_of
from persistence.port import Refusal, Taken, Written
from persistence.rows import PresenceRow
from server.domain.errors import SessionEndedError
from server.domain.session import EndReason
from server.live.dirty import StoreDirtySessions
from server.live.verbs import Update
from tests.contract.conftest import POOL, START_MS, Bench, make_bench


def rows(taken: Taken) -> list[PresenceRow]:
    return [row_of(line) for line in taken.lines]


def ids(taken: Taken) -> list[str]:
    return [session_id_of(line) for line in taken.lines]


def refused(taken: Taken, **fields: object) -> Written:
    """The only row was refused."""
    (row,) = rows(taken)
    return Written([Refusal(row.session_id, row.version, row.last_seen_ms, **fields)])  # type: ignore[arg-type]


@pytest.fixture
def dirty(bench: Bench) -> StoreDirtySessions:
    return StoreDirtySessions(bench.store)


async def test_a_change_is_taken_with_its_state_until_it_is_acked(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.open("a", language_code="de", metadata='{"k":1}')
    await bench.claim("a")
    taken = await dirty.take(POOL, 10)
    (row,) = rows(taken)
    assert rows(await dirty.take(POOL, 10)) == [row]
    assert row == PresenceRow(
        session_id="s-a",
        user_id="a",
        pool="main",
        status="active",
        version=row.version,
        started_at_ms=START_MS,
        last_seen_ms=START_MS,
        is_in_interview=True,
        language_code="de",
        interview_started_at_ms=START_MS,
        waited_s=0.0,
        metadata='{"k":1}',
    )
    assert (await dirty.backlog(POOL)).sessions == 1
    await dirty.ack(POOL, taken)
    assert ids(await dirty.take(POOL, 10)) == []
    assert (await dirty.backlog(POOL)).sessions == 0
    assert await bench.redis.exists("presence:{main}:rows:1") == 0


async def test_a_session_changed_in_between_stays_dirty(bench: Bench, dirty: StoreDirtySessions) -> None:
    await bench.open("a")
    taken = await dirty.take(POOL, 10)
    await bench.claim("a")
    await dirty.ack(POOL, taken)
    (newer,) = rows(await dirty.take(POOL, 10))
    assert newer.version > rows(taken)[0].version
    assert newer.is_in_interview


async def test_a_sign_of_life_alone_is_a_change_too(bench: Bench, dirty: StoreDirtySessions) -> None:
    await bench.open("a")
    taken = await dirty.take(POOL, 10)
    await bench.set_clock(START_MS + 1000)
    await bench.look("a", sign_of_life=True)
    await dirty.ack(POOL, taken)
    (newer,) = rows(await dirty.take(POOL, 10))
    assert newer == rows(taken)[0]._replace(last_seen_ms=START_MS + 1000)


async def test_the_ack_of_one_who_took_it_earlier_confirms_no_change_since(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    """Two flushers, after a lost lease, in the same millisecond."""
    await bench.open("a")
    late = await dirty.take(POOL, 10)
    await bench.claim("a")
    new = await dirty.take(POOL, 10)
    await bench.release("a")
    await dirty.ack(POOL, new)
    await dirty.ack(POOL, late)
    newest = await dirty.take(POOL, 10)
    assert not rows(newest)[0].is_in_interview
    await dirty.ack(POOL, newest)
    await dirty.ack(POOL, late)
    assert ids(await dirty.take(POOL, 10)) == []


async def test_nothing_is_confirmed_that_was_taken_before_redis_lost_its_memory(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.open("a")
    taken = await dirty.take(POOL, 10)
    await bench.redis.hset("presence:{main}:config", "run_id", "another")
    await bench.store.tick(POOL)
    await dirty.ack(POOL, taken)
    assert ids(await dirty.take(POOL, 10)) == ["s-a"]


async def test_what_was_left_out_stays_dirty(bench: Bench, dirty: StoreDirtySessions) -> None:
    await bench.open("a")
    await bench.open("b")
    await dirty.ack(POOL, await dirty.take(POOL, 10), Written(left_out=["s-b"]))
    assert ids(await dirty.take(POOL, 10)) == ["s-b"]


@pytest.mark.parametrize("written", [b"", b"garbage", b"s-a\x1fgarbage"])
async def test_a_row_that_somebody_removed_or_spoilt_is_made_anew(
    bench: Bench, dirty: StoreDirtySessions, written: bytes
) -> None:
    await bench.open("a")
    (row,) = rows(await dirty.take(POOL, 10))
    await bench.redis.hset("presence:{main}:rows:1", "s-a", written)
    if not written:
        await bench.redis.delete("presence:{main}:rows:1")
    taken = await dirty.take(POOL, 10)
    assert rows(taken) == [row]
    await dirty.ack(POOL, taken)
    assert ids(await dirty.take(POOL, 10)) == []


async def test_a_row_that_a_node_of_another_version_left_behind_is_made_anew(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    """It marks its change, and keeps its row elsewhere."""
    await bench.open("a")
    await bench.redis.hset("presence:{main}:session:s-a", "current_page", "another")
    await bench.redis.zincrby("presence:{main}:dirty", 1 / 1024, "s-a")
    (row,) = rows(await dirty.take(POOL, 10))
    assert row.current_page == "another"


async def test_no_row_is_kept_across_a_time_without_history(
    bench: Bench, dirty: StoreDirtySessions, each_redis_url: str
) -> None:
    await bench.open("a")
    without = await make_bench(each_redis_url, history=False)
    await without.claim("a")
    await without.redis.aclose()
    (row,) = rows(await dirty.take(POOL, 10))
    assert row.is_in_interview


async def test_a_record_with_a_separator_in_it_stays_apart_from_the_others(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    """Only by hand can one be written."""
    await bench.open("a")
    await bench.open("b")
    await bench.redis.hset("presence:{main}:session:s-a", "current_page", b"spoilt\x1f\xff")
    await bench.redis.delete("presence:{main}:rows:1")
    spoilt, well = rows(await dirty.take(POOL, 10))
    assert line_of(spoilt) == "s-a" + 15 * "\x1f\x1e"
    assert well.user_id == "b"


async def test_an_ended_session_is_buried_only_when_its_final_row_is_acked(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.open("a")
    active = await dirty.take(POOL, 10)
    await bench.finish("a", EndReason.KICKED)
    final = await dirty.take(POOL, 10)
    await dirty.ack(POOL, active)
    assert (await bench.look("a")).record.end_reason is EndReason.KICKED
    await dirty.ack(POOL, final)
    with pytest.raises(SessionEndedError):
        await bench.look("a")
    assert await bench.redis.exists("presence:{main}:session:s-a") == 0
    assert await bench.redis.exists("presence:{main}:tombstone:s-a") == 1
    await dirty.ack(POOL, final)


async def test_an_id_that_was_started_again_is_not_buried_by_the_ack_of_its_end(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.open("a")
    await bench.finish("a")
    final = await dirty.take(POOL, 10)
    await bench.open("a")
    await dirty.ack(POOL, final)
    (again,) = rows(await dirty.take(POOL, 10))
    assert again.status == "active"
    assert (await bench.look("a")).record.end_reason is None


async def test_a_row_refused_for_a_version_that_redis_never_gave_is_raised_above_it(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.open("a")
    taken = await dirty.take(POOL, 10)
    foreign = rows(taken)[0].version + 10**9
    await dirty.ack(POOL, taken, refused(taken, refused_by=foreign))
    again = await dirty.take(POOL, 10)
    assert rows(again)[0].version > foreign
    await dirty.ack(POOL, again)
    assert ids(await dirty.take(POOL, 10)) == []


async def test_a_row_refused_because_of_a_newer_write_of_the_same_session_is_dropped(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.open("a")
    old = await dirty.take(POOL, 10)
    await bench.claim("a")
    new = await dirty.take(POOL, 10)
    await dirty.ack(POOL, new)
    await dirty.ack(POOL, old, refused(old, refused_by=rows(new)[0].version))
    assert ids(await dirty.take(POOL, 10)) == []


async def test_a_stay_that_the_table_holds_as_completed_is_not_tried_for_ever(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.open("a")
    taken = await dirty.take(POOL, 10)
    by = rows(taken)[0].version + 5
    await dirty.ack(POOL, taken, refused(taken, refused_by=by, final=True))
    assert ids(await dirty.take(POOL, 10)) == []


async def clean(bench: Bench, dirty: StoreDirtySessions) -> dict[str, PresenceRow]:
    """Everything is written; the rows."""
    taken = await dirty.take(POOL, 5000)
    await dirty.ack(POOL, taken)
    return {row.session_id: row for row in rows(taken)}


async def last_seen(bench: Bench, session_id: str) -> int:
    return int(await bench.redis.hget(f"presence:{{main}}:session:{session_id}", "last_seen"))


async def test_touch_moves_last_seen_of_the_present_and_of_those_in_permit_grace_only_and_makes_nobody_dirty(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    here = await bench.connect("here")
    graced = await bench.connect("graced")
    await bench.claim("graced")
    await bench.connect("gone")
    await bench.open("api")
    await bench.drop(graced)
    await bench.pass_time(16, renewing=[here])
    known = await clean(bench, dirty)
    touched = await dirty.touch(POOL, 100)
    assert dict(zip(touched.session_ids, touched.versions, strict=True)) == {
        session_id: known[session_id].version for session_id in ("s-here", "s-graced")
    }
    assert set(touched.last_seen_ms) == {START_MS + 16_000}
    assert touched.cursor is None
    assert await last_seen(bench, "s-here") == await last_seen(bench, "s-graced") == START_MS + 16_000
    assert await last_seen(bench, "s-gone") == await last_seen(bench, "s-api") == START_MS
    await dirty.ack_touch(POOL, touched, [])
    assert (await dirty.backlog(POOL)).sessions == 0
    assert await bench.redis.exists("presence:{main}:touched") == 0


@pytest.mark.parametrize("at_once", [2000, 700, 100])
async def test_touch_reaches_every_session_once_however_many_there_are(
    bench: Bench, dirty: StoreDirtySessions, at_once: int
) -> None:
    connected = [await bench.connect(f"u{n}") for n in range(1100)]
    await clean(bench, dirty)
    await bench.pass_time(5, renewing=connected)
    touched = [await dirty.touch(POOL, at_once)]
    while touched[-1].cursor is not None:
        touched.append(await dirty.touch(POOL, at_once, touched[-1].cursor))
    met = [session_id for part in touched for session_id in part.session_ids]
    assert sorted(met) == sorted(f"s-u{n}" for n in range(1100))
    assert max(len(part.session_ids) for part in touched) <= at_once


async def test_those_that_the_table_lacks_become_dirty(bench: Bench, dirty: StoreDirtySessions) -> None:
    for name in ("a", "b"):
        await bench.connect(name)
    await clean(bench, dirty)
    touched = await dirty.touch(POOL, 100)
    await dirty.ack_touch(POOL, touched, ["s-b"])
    assert ids(await dirty.take(POOL, 10)) == ["s-b"]


@pytest.mark.parametrize("at_once", [1, 10, 19])
async def test_touch_asks_no_oftener_though_few_are_here_and_many_have_left(
    bench: Bench, dirty: StoreDirtySessions, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("server.live.dirty.SESSIONS_PER_CALL", 10)
    for number in range(60):
        await bench.set_clock(START_MS + number)
        await (bench.open if number < 51 else bench.connect)(f"{number:02d}")
    await bench.redis.delete("presence:{main}:dirty")
    monkeypatch.setattr(bench.store.scripts, "run", run := AsyncMock(wraps=bench.store.scripts.run))
    touched = [await dirty.touch(POOL, at_once)]
    while (cursor := touched[-1].cursor) is not None:
        touched.append(await dirty.touch(POOL, at_once, cursor))
    assert run.await_count == 60 // min(at_once, 10)
    assert sum(len(part.session_ids) for part in touched) == 9
    assert sum(len(part.parts) for part in touched) <= 9


async def test_what_was_touched_and_never_acked_is_dirty_once_the_next_pass_begins(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.connect("a")
    await bench.connect("b")
    await clean(bench, dirty)
    await bench.set_clock(START_MS + 1000)
    left = await dirty.touch(POOL, 1)
    another = StoreDirtySessions(bench.store)
    assert left.cursor is not None
    await another.touch(POOL, 1, left.cursor)
    assert (await dirty.backlog(POOL)).sessions == 0
    await bench.pass_time(16)
    assert (await another.touch(POOL, 100)).session_ids == ()
    assert {row.last_seen_ms for row in (await clean(bench, dirty)).values()} == {START_MS + 1000}
    await dirty.ack_touch(POOL, left, [])
    assert (await dirty.backlog(POOL)).sessions == 0


async def test_a_dirty_session_is_left_to_be_written_whole_as_it_was_seen_at_its_change(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    a = await bench.connect("a")
    b = await bench.connect("b")
    await clean(bench, dirty)
    await bench.pass_time(5, renewing=[a, b])
    await bench.claim("a")
    await bench.pass_time(5, renewing=[a, b])
    touched = await dirty.touch(POOL, 100)
    assert touched.session_ids == ("s-b",)
    (row,) = rows(await dirty.take(POOL, 10))
    assert (row.session_id, row.last_seen_ms) == ("s-a", START_MS + 5000)
    await clean(bench, dirty)
    assert "s-a" in (await dirty.touch(POOL, 100)).session_ids


async def test_who_could_not_be_written_for_long_is_seen_again(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    """While Postgres is away, who changed and stays must not look in the table as if they had left."""
    a = await bench.connect("a")
    await bench.connect("gone")
    for _ in range(3):
        await bench.pass_time(10, renewing=[a])
    assert (await dirty.touch(POOL, 100)).session_ids == ()
    seen = {row.session_id: row.last_seen_ms - START_MS for row in rows(await dirty.take(POOL, 10))}
    assert seen == {"s-a": 30_000, "s-gone": 0}
    await clean(bench, dirty)
    assert (await dirty.backlog(POOL)).sessions == 0


async def test_a_touch_finds_nobody_where_the_only_session_has_ended(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.connect("a")
    await bench.finish("a")
    assert (await dirty.touch(POOL, 100)).session_ids == ()
    assert ids(await dirty.take(POOL, 10)) == ["s-a"]


async def test_a_change_is_a_sign_of_life_of_the_present_and_of_those_in_permit_grace_only(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    here, graced, gone = [await bench.connect(name) for name in ("here", "graced", "gone")]
    await bench.claim("graced")
    await bench.open("api")
    await bench.drop(graced)
    await bench.drop(gone)
    await bench.pass_time(16, renewing=[here])
    for name in ("here", "graced", "gone", "api"):
        await bench.store.update(POOL, Update(session_id=f"s-{name}", page="another"))
    seen = {row.session_id: row.last_seen_ms - START_MS for row in rows(await dirty.take(POOL, 10))}
    assert seen == {"s-here": 16_000, "s-graced": 16_000, "s-gone": 0, "s-api": 0}


async def test_a_session_that_changes_after_its_touch_stays_dirty(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.connect("a")
    await clean(bench, dirty)
    touched = await dirty.touch(POOL, 100)
    await bench.claim("a")
    await dirty.ack_touch(POOL, touched, [])
    (row,) = rows(await dirty.take(POOL, 10))
    assert row.is_in_interview
    assert row.version > touched.versions[0]


async def test_one_that_is_no_more_is_neither_touched_nor_made_dirty_for_ever(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.connect("a")
    await clean(bench, dirty)
    touched = await dirty.touch(POOL, 100)
    await bench.finish("a")
    await clean(bench, dirty)
    await dirty.ack_touch(POOL, touched, ["s-a"])
    assert ids(await dirty.take(POOL, 10)) == []
    assert (await dirty.backlog(POOL)).sessions == 0
    await bench.redis.zadd("presence:{main}:sessions", {"s-leftover": 1})
    assert (await dirty.touch(POOL, 100)).session_ids == ()
    assert await bench.redis.zcard("presence:{main}:sessions") == 0


async def test_without_history_nothing_is_remembered_of_a_touch(each_redis_url: str) -> None:
    bench = await make_bench(each_redis_url, history=False)
    await bench.connect("a")
    touched = await StoreDirtySessions(bench.store).touch(POOL, 100)
    assert touched.session_ids == ()
    assert await bench.redis.exists("presence:{main}:touched") == 0
    await bench.redis.aclose()


async def test_the_longest_dirty_comes_first(bench: Bench, dirty: StoreDirtySessions) -> None:
    for name in ("c", "a", "b"):
        await bench.open(name)
        await bench.set_clock(bench.wall_ms + 1)
    assert ids(await dirty.take(POOL, 2)) == ["s-c", "s-a"]


async def test_one_holder_at_a_time_has_the_lease(bench: Bench, dirty: StoreDirtySessions) -> None:
    assert await dirty.lease(POOL, "n1", 60_000)
    assert await dirty.lease(POOL, "n1", 60_000)
    assert not await dirty.lease(POOL, "n2", 60_000)
    await dirty.release_lease(POOL, "n2")
    assert not await dirty.lease(POOL, "n2", 60_000)
    await dirty.release_lease(POOL, "n1")
    assert await dirty.lease(POOL, "n2", 60_000)


async def test_the_pools_are_listed_with_limit_and_mode(bench: Bench, dirty: StoreDirtySessions) -> None:
    await bench.configure(limit=4)
    (pool,) = await dirty.pools()
    assert (pool.pool, pool.limit, pool.mode) == ("main", 4, "open")


async def test_it_tells_which_sessions_redis_knows(bench: Bench, dirty: StoreDirtySessions) -> None:
    await bench.open("a")
    assert await dirty.known(POOL, ["s-a", "s-b"]) == {"s-a"}
    assert await dirty.known("other", ["s-a"]) == set()


async def test_a_leftover_without_a_record_does_not_stand_in_the_way(
    bench: Bench, dirty: StoreDirtySessions
) -> None:
    await bench.redis.zadd("presence:{main}:dirty", {"s-gone": 1})
    await bench.open("a")
    assert ids(await dirty.take(POOL, 1)) == ["s-a"]
    assert (await dirty.backlog(POOL)).sessions == 1


async def test_a_lost_pool_is_said_in_the_words_of_the_port(bench: Bench, dirty: StoreDirtySessions) -> None:
    await bench.redis.flushdb()
    with pytest.raises(SourceAwayError):
        await dirty.take(POOL, 1)
