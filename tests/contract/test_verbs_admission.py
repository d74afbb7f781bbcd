"""Permits and the line: claim, release, finish, grace, the pump, configure."""

from __future__ import annotations

import asyncio

import pytest

from server.domain.errors import RedisFullError, SessionEndedError, StaleFenceError, UnknownSessionError
from server.domain.interview import Admission, InterviewState, Reason
from server.domain.pool import Mode, PoolChanges
from server.domain.session import EndReason, Status
from server.live.dirty import StoreDirtySessions
from server.live.verbs import Holder, Open, Renewal
from tests.contract.conftest import POOL, START_MS, Bench

GRANTED, WAITING, DENIED, NONE = (
    InterviewState.GRANTED,
    InterviewState.WAITING,
    InterviewState.DENIED,
    InterviewState.NONE,
)


async def opened_and_claimed(bench: Bench, *names: str) -> list[Admission]:
    for name in names:
        await bench.open(name, given=True)
    return [await bench.claim(name) for name in names]


async def states(bench: Bench, *names: str) -> list[InterviewState]:
    return [(await bench.look(name)).admission.state for name in names]


async def test_a_claim_is_granted_while_there_is_a_place_and_waits_in_order_after(bench: Bench) -> None:
    claims = await opened_and_claimed(bench, "a", "b", "c", "d", "e")
    assert [claim.state for claim in claims] == [GRANTED] * 3 + [WAITING] * 2
    assert [claim.position for claim in claims[3:]] == [1, 2]
    fences = [claim.fence for claim in claims[:3]]
    assert fences == sorted(fences)  # type: ignore[type-var]
    assert len(set(fences)) == 3
    state = await bench.store.state(POOL)
    assert (state.active, state.waiting, state.available, state.online) == (3, 2, 0, 5)


async def test_a_limit_declared_again_leaves_what_was_set_since(bench: Bench) -> None:
    assert (await bench.configure(declared_limit=7)).limit == 7
    assert (await bench.configure(limit=4)).declared_limit == 7
    events = await bench.events()
    assert (await bench.configure(declared_limit=7)).limit == 4
    assert await bench.events() == events
    assert (await bench.configure(declared_limit=8)).limit == 8


async def test_a_limit_that_is_named_beside_the_declared_one_counts(bench: Bench) -> None:
    config = await bench.configure(limit=2, declared_limit=9)
    assert (config.limit, config.declared_limit) == (2, 9)
    assert (await bench.configure(declared_limit=9)).limit == 2


async def test_many_claims_in_one_call_never_exceed_the_limit(bench: Bench) -> None:
    await bench.configure(limit=7)
    names = [f"u{n}" for n in range(200)]
    await asyncio.gather(*(bench.open(name, given=True) for name in names))
    claims = await asyncio.gather(*(bench.claim(name) for name in names))
    assert sum(claim.state is GRANTED for claim in claims) == 7
    assert sorted(claim.position for claim in claims if claim.position) == list(range(1, 194))
    assert (await bench.store.state(POOL)).active == 7


async def test_claiming_again_changes_nothing(bench: Bench) -> None:
    await bench.configure(limit=1)
    held, waits = await opened_and_claimed(bench, "a", "b")
    events = await bench.events()
    assert await bench.claim("a") == held
    assert await bench.claim("b") == waits
    assert await bench.events() == events


async def test_release_hands_over_in_the_same_call(bench: Bench) -> None:
    await bench.configure(limit=1)
    await opened_and_claimed(bench, "a", "b", "c")
    assert await bench.release("a") == Admission(state=NONE, reason=Reason.RELEASED)
    assert await states(bench, "a", "b", "c") == [NONE, GRANTED, WAITING]
    assert (await bench.look("c")).admission.position == 1
    assert (await bench.event_types())[-2:] == ["released", "granted"]


async def test_release_may_be_repeated_and_leaves_the_line(bench: Bench) -> None:
    await bench.configure(limit=1)
    await opened_and_claimed(bench, "a", "b")
    for _ in range(2):
        assert (await bench.release("b")).reason is Reason.RELEASED
    assert await states(bench, "a", "b") == [GRANTED, NONE]
    assert (await bench.event_types()).count("left_line") == 1


async def test_an_old_fence_releases_nothing(bench: Bench) -> None:
    ((held),) = await opened_and_claimed(bench, "a")
    await bench.release("a", held.fence)
    newer = await bench.claim("a")
    assert newer.fence is not None
    assert held.fence is not None
    assert newer.fence > held.fence
    for act in (bench.release("a", held.fence), bench.finish("a", fence=held.fence)):
        with pytest.raises(StaleFenceError):
            await act
    assert await bench.claim("a") == newer
    await bench.release("a", newer.fence)
    await bench.release("a", newer.fence)


async def test_complete_ends_the_session_and_hands_over(bench: Bench) -> None:
    await bench.configure(limit=1)
    await opened_and_claimed(bench, "a", "b")
    await bench.pass_time(30)
    answers = [await bench.finish("a") for _ in range(2)]
    assert answers == [Admission(state=NONE, reason=Reason.COMPLETED)] * 2
    record = (await bench.look("a")).record
    assert record.status is Status.COMPLETED
    assert record.end_reason is EndReason.COMPLETED
    assert record.completed_at == record.interview_ended_at == START_MS + 30_000
    assert (record.interview_started_at, record.waited_s, record.is_in_interview) == (START_MS, 0.0, False)
    assert await states(bench, "b") == [GRANTED]
    assert (await bench.look("b")).record.waited_s == 30.0


async def test_an_end_is_final(bench: Bench) -> None:
    await bench.open("a")
    await bench.finish("a", EndReason.KICKED)
    with pytest.raises(SessionEndedError):
        await bench.finish("a", EndReason.COMPLETED)
    assert await bench.claim("a") == Admission(state=DENIED, reason=Reason.ENDED, waiting=0)
    assert (await bench.release("a")).reason is Reason.KICKED
    with pytest.raises(UnknownSessionError):
        await bench.claim("nobody")


async def test_without_history_an_ended_session_leaves_only_a_tombstone(bench: Bench) -> None:
    bench.store._timings = type(bench.store._timings)(15, 5, 43_200, history=False)
    await bench.configure()
    await bench.open("a")
    await bench.claim("a")
    await bench.finish("a")
    assert sorted(key.decode() for key in await bench.redis.keys("*s-a*")) == [
        "presence:{main}:tombstone:s-a"
    ]
    assert 0 < await bench.redis.pttl("presence:{main}:tombstone:s-a") <= 43_200_000
    assert (await bench.finish("a")).reason is Reason.COMPLETED
    assert (await bench.release("a")).reason is Reason.COMPLETED
    assert (await bench.claim("a")).reason is Reason.ENDED
    assert await bench.redis.zcard("presence:{main}:dirty") == 0
    with pytest.raises(SessionEndedError):
        await bench.look("a")


async def test_an_absent_holder_keeps_the_permit_while_nobody_waits(bench: Bench) -> None:
    connected = await bench.connect("a")
    held = await bench.claim("a")
    await bench.drop(connected)
    await bench.pass_time(59)
    assert (await bench.look("a")).admission.fence == held.fence
    await bench.pass_time(1)
    assert (await bench.look("a")).admission == Admission(state=NONE, reason=Reason.EXPIRED)


async def test_an_absent_holder_is_replaced_after_the_least_grace_when_somebody_waits(bench: Bench) -> None:
    await bench.configure(limit=1)
    gone = await bench.connect("a")
    waiter = await bench.connect("b")
    await bench.claim("a")
    await bench.claim("b")
    await bench.drop(gone)
    await bench.pass_time(19, renewing=[waiter])
    assert await states(bench, "a", "b") == [GRANTED, WAITING]
    await bench.pass_time(1)
    assert await states(bench, "a", "b") == [NONE, GRANTED]


async def test_a_holder_who_comes_back_in_time_keeps_permit_and_fence(bench: Bench) -> None:
    await bench.configure(limit=1)
    gone = await bench.connect("a")
    held = await bench.claim("a")
    waiter = await bench.connect("b")
    await bench.claim("b")
    await bench.drop(gone)
    await bench.pass_time(15, renewing=[waiter])
    back = await bench.hello("a")
    assert back.admission.fence == held.fence
    await bench.pass_time(60, renewing=[back, waiter])
    assert await states(bench, "a", "b") == [GRANTED, WAITING]


async def test_a_killed_node_costs_its_holders_the_ttl_and_the_permit_grace_from_then(bench: Bench) -> None:
    await bench.configure(limit=1)
    await bench.connect("a")
    await bench.claim("a")
    waiter = await bench.connect("b")
    await bench.claim("b")
    await bench.pass_time(15 + 19, renewing=[waiter])
    assert await states(bench, "a", "b") == [GRANTED, WAITING]
    await bench.pass_time(1, renewing=[waiter])
    assert await states(bench, "a", "b") == [NONE, GRANTED]


async def test_an_absent_waiter_is_passed_over_and_keeps_the_place(bench: Bench) -> None:
    await bench.configure(limit=1)
    holder = await bench.connect("a")
    absent = await bench.connect("b")
    third = await bench.connect("c")
    for name in ("a", "b", "c"):
        await bench.claim(name)
    await bench.drop(absent)
    assert (await bench.look("b")).admission.position == 1
    await bench.release("a")
    assert await states(bench, "b", "c") == [WAITING, GRANTED]
    back = await bench.hello("b")
    await bench.finish("c")
    assert await states(bench, "b") == [GRANTED]
    await bench.pass_time(5, renewing=[holder, back, third])


async def test_a_waiter_away_for_resume_s_loses_the_place(bench: Bench) -> None:
    await bench.configure(limit=0)
    absent = await bench.connect("a")
    await bench.claim("a")
    await bench.drop(absent)
    await bench.pass_time(899)
    assert await states(bench, "a") == [WAITING]
    await bench.pass_time(1)
    assert (await bench.look("a")).admission == Admission(state=NONE, reason=Reason.EXPIRED)


async def test_a_waiter_whose_deadline_ran_out_unnoticed_is_not_granted(bench: Bench) -> None:
    await bench.configure(limit=0)
    await bench.connect("a")
    fresh = await bench.connect("b")
    for name in ("a", "b"):
        await bench.claim(name)
    for _ in range(4):
        await bench.set_clock(bench.wall_ms + 4000)
        await bench.store.renew(POOL, [("s-b", fresh.connection_id)])
    await bench.configure(limit=1)
    assert await states(bench, "a", "b") == [WAITING, GRANTED]


async def test_who_does_not_want_to_wait_is_denied_without_a_trace(bench: Bench) -> None:
    await bench.configure(limit=1)
    await opened_and_claimed(bench, "a")
    await bench.open("b")
    denied = await bench.claim("b", wait=False)
    assert denied == Admission(state=DENIED, reason=Reason.AT_CAPACITY, waiting=0)
    assert await states(bench, "b") == [NONE]
    assert "waiting" not in await bench.event_types()
    await bench.release("a")
    assert (await bench.claim("b", wait=False)).state is GRANTED


async def test_a_full_line_and_no_line_at_all(bench: Bench) -> None:
    await bench.configure(limit=0, max_line=1)
    claims = await opened_and_claimed(bench, "a", "b")
    assert [claim.reason for claim in claims] == [None, Reason.LINE_FULL]
    await bench.release("a")
    await bench.configure(max_line=0)
    assert (await bench.claim("b")).reason is Reason.AT_CAPACITY


async def test_a_paused_pool_grows_its_line_and_a_closed_one_has_none(bench: Bench) -> None:
    await bench.configure(mode=Mode.PAUSED)
    await opened_and_claimed(bench, "a")
    assert await states(bench, "a") == [WAITING]
    await bench.configure(mode=Mode.CLOSED)
    await bench.open("b")
    assert (await bench.claim("b")).reason is Reason.CLOSED
    await bench.configure(mode=Mode.OPEN)
    assert await states(bench, "a") == [GRANTED]


async def test_raising_the_limit_admits_at_once_and_lowering_throws_nobody_out(bench: Bench) -> None:
    await bench.configure(limit=1)
    names = ("a", "b", "c", "d")
    await opened_and_claimed(bench, *names)
    await bench.configure(limit=3)
    assert await states(bench, *names) == [GRANTED] * 3 + [WAITING]
    await bench.configure(limit=1)
    assert await states(bench, *names) == [GRANTED] * 3 + [WAITING]
    await bench.release("a")
    await bench.release("b")
    assert await states(bench, *names) == [NONE, NONE, GRANTED, WAITING]
    await bench.release("c")
    assert await states(bench, "d") == [GRANTED]


async def test_one_permit_or_place_per_user(bench: Bench) -> None:
    await bench.configure(resume_s=0)
    for session_id in ("one", "two"):
        await bench.open(session_id, given=True)
    await bench.redis.delete("presence:{main}:user:two")
    await bench.redis.zadd("presence:{main}:user:one", {"s-two": START_MS})
    await bench.redis.hset("presence:{main}:session:s-two", "user_id", "one")
    assert (await bench.claim("one")).state is GRANTED
    assert (await bench.claim("two")).reason is Reason.ELSEWHERE
    await bench.configure(permits_per_user=2)
    assert (await bench.claim("two")).state is GRANTED


async def test_an_interview_ends_at_its_greatest_length(bench: Bench) -> None:
    await bench.configure(limit=1, max_interview_s=30)
    held = await bench.connect("a")
    assert (await bench.claim("a")).ends_in_ms == 30_000
    waiter = await bench.connect("b")
    await bench.claim("b")
    await bench.pass_time(29, renewing=[held, waiter])
    assert (await bench.look("a")).admission.ends_in_ms == 1000
    await bench.pass_time(1)
    assert (await bench.look("a")).admission.reason is Reason.MAX_LENGTH
    assert await states(bench, "b") == [GRANTED]


async def test_a_change_is_told_with_its_actor_and_an_empty_change_is_not(bench: Bench) -> None:
    await bench.configure(limit=5, mode=Mode.PAUSED)
    await bench.store.configure(POOL, PoolChanges(limit=5), actor="test")
    changes = [event for event in await bench.events() if event["type"] == "pool_changed"]
    assert [(event["cause"], event["actor"]) for event in changes] == [
        ("created", "test"),
        ("limit=5 mode=paused", "test"),
    ]


async def test_a_pool_keeps_its_configuration_when_a_node_starts_again(bench: Bench) -> None:
    await bench.configure(limit=5, offer_s=12.5)
    config = await bench.configure()
    assert (config.limit, config.offer_s) == (5, 12.5)
    assert await bench.store.config(POOL) == config


async def test_the_snapshot_shows_holders_with_fences_and_the_line_in_order(bench: Bench) -> None:
    await bench.configure(limit=1)
    held, *_ = await opened_and_claimed(bench, "a", "b", "c")
    snapshot = await bench.store.snapshot(POOL)
    assert snapshot.holders == {"s-a": Holder(held.fence or 0, START_MS)}
    assert snapshot.line == ["s-b", "s-c"]
    assert snapshot.state.seq == len(await bench.events())
    last = await bench.redis.xrevrange("presence:{main}:events", count=1)
    assert snapshot.last_event_id == last[0][0].decode()


async def test_counters_go_on_rising_after_redis_lost_its_memory(bench: Bench) -> None:
    (before,) = await opened_and_claimed(bench, "a")
    await bench.redis.flushdb()
    await bench.set_clock(START_MS + 1000)
    await bench.configure()
    (after,) = await opened_and_claimed(bench, "a")
    assert before.fence is not None
    assert after.fence is not None
    assert after.fence > before.fence


async def test_when_redis_is_full_nothing_is_added_and_everything_that_frees_works(bench: Bench) -> None:
    await bench.configure(limit=1)
    connected = await bench.connect("a")
    await opened_and_claimed(bench, "a", "b", "c")
    await bench.release("c")
    try:
        await bench.redis.config_set("maxmemory", 1)
        for add in (lambda: bench.open("d"), lambda: bench.claim("c"), lambda: bench.hello("a")):
            with pytest.raises(RedisFullError):
                await add()
        assert await bench.store.renew(POOL, [("s-a", connected.connection_id)]) == [Renewal.RENEWED]
        assert await bench.drop(connected)
        await bench.store.tick(POOL)
        await bench.release("a")
        await bench.finish("b")
        await bench.configure(mode=Mode.PAUSED)
        flush = StoreDirtySessions(bench.store)
        assert await flush.lease(POOL, "n1", 60_000)
        assert await flush.lease(POOL, "n1", 60_000)
        await flush.ack(POOL, await flush.take(POOL, 9))
    finally:
        await bench.redis.config_set("maxmemory", 0)
    assert await states(bench, "a", "c") == [NONE, NONE]
    with pytest.raises(SessionEndedError):
        await bench.look("b")


async def test_a_claim_costs_the_same_however_many_sessions_the_user_has(bench: Bench) -> None:
    await bench.configure(resume_s=0)
    for n in range(50):
        await bench.store.open(POOL, Open(session_id=f"s-{n}", user_id="guest"))
    assert (await bench.claim("1")).state is GRANTED
    assert (await bench.claim("2")).reason is Reason.ELSEWHERE
    assert await bench.redis.zrange("presence:{main}:holding:guest", 0, -1) == [b"s-1"]
    await bench.release("1")
    assert await bench.redis.exists("presence:{main}:holding:guest") == 0
