"""One user, two tickets: however they came into the line, no more are let in than a user may have."""

from __future__ import annotations

import pytest

from server.domain.interview import InterviewState, Reason
from server.live.verbs import Connected, Known, Open
from tests.contract.conftest import POOL, Bench
from tests.contract.test_verbs_recovery import copy_of, register, restore

GRANTED, OFFERED, WAITING, NONE = (
    InterviewState.GRANTED,
    InterviewState.OFFERED,
    InterviewState.WAITING,
    InterviewState.NONE,
)


async def enter(bench: Bench, name: str, user: str) -> Connected:
    await bench.store.open(POOL, Open(session_id=f"s-{name}", user_id=user, given=True))
    connected = await bench.hello(name)
    await bench.claim(name)
    return connected


@pytest.fixture
async def two_tickets(bench: Bench) -> dict[str, Connected]:
    """`a` has the one place; `x1` and `x2`, both of one user, wait with a ticket each, and `b` behind them."""
    await bench.configure(limit=1, permits_per_user=0)
    names = {"a": "a", "x1": "x", "x2": "x", "b": "b"}
    connected = {name: await enter(bench, name, user) for name, user in names.items()}
    await bench.configure(permits_per_user=1)
    return connected


async def states(bench: Bench, *names: str) -> list[InterviewState]:
    return [(await bench.look(name)).admission.state for name in names]


@pytest.mark.parametrize(("offer_s", "let_in"), [(0, GRANTED), (90, OFFERED)])
async def test_the_later_ticket_yields_and_the_place_goes_to_the_next(
    bench: Bench, two_tickets: dict[str, Connected], offer_s: int, let_in: InterviewState
) -> None:
    await bench.configure(offer_s=offer_s)
    await bench.configure(limit=3)
    assert await states(bench, "a", "x1", "x2", "b") == [GRANTED, let_in, NONE, let_in]
    assert (await bench.look("x2")).admission.reason is Reason.TAKEN_OVER
    assert (await bench.look("x2")).record.waited_s is None
    yielded = [event for event in await bench.events() if event["type"] == "taken_over"]
    assert [(event["session_id"], event["cause"]) for event in yielded] == [("s-x2", "s-x1")]


async def test_with_two_permits_a_user_may_have_both_get_in(
    bench: Bench, two_tickets: dict[str, Connected]
) -> None:
    await bench.configure(permits_per_user=2)
    await bench.configure(limit=3)
    assert await states(bench, "x1", "x2", "b") == [GRANTED, GRANTED, WAITING]


async def test_the_permit_of_a_session_that_is_gone_comes_to_the_one_that_waits(
    bench: Bench, two_tickets: dict[str, Connected]
) -> None:
    await bench.release("a")
    fence = (await bench.look("x1")).admission.fence
    assert await states(bench, "x1", "x2", "b") == [GRANTED, NONE, WAITING]
    await bench.configure(permits_per_user=0)
    await bench.claim("x2")
    await bench.release("b")
    await bench.configure(permits_per_user=1)
    await bench.drop(two_tickets["x1"])
    assert await states(bench, "x1", "x2") == [NONE, GRANTED]
    assert ((await bench.look("x2")).admission.fence or 0) > (fence or 0)


async def test_nobody_is_reclaimed_for_a_ticket_that_yields(
    bench: Bench, two_tickets: dict[str, Connected]
) -> None:
    await bench.release("b")
    await bench.configure(permits_per_user=0)
    await bench.configure(limit=2)
    assert await states(bench, "a", "x1", "x2") == [GRANTED, GRANTED, WAITING]
    await bench.configure(permit_grace_min_s=0)
    await bench.configure(permits_per_user=1)
    await bench.drop(two_tickets["a"])
    assert await states(bench, "a", "x1", "x2") == [GRANTED, GRANTED, NONE]


async def test_two_tickets_that_an_old_copy_of_redis_brings_back_are_one_permit(bench: Bench) -> None:
    """`x1` left the line after the copy was made, and `x2` joined it; both are in it now."""
    await bench.configure(limit=1, recovery_s=5)
    await enter(bench, "a", "a")
    await enter(bench, "x1", "x")
    copy = await copy_of(bench)
    await bench.release("x1")
    x2 = await enter(bench, "x2", "x")
    seen = await bench.look("x2")
    known = Known(user_id="x", started_at=seen.record.started_at, ticket=seen.admission.ticket)
    await restore(bench, copy)
    x2 = await register(bench, x2, known)
    await bench.pass_time(6, renewing=[x2])
    assert await states(bench, "x1", "x2") == [WAITING, WAITING]
    await bench.configure(limit=3)
    assert await states(bench, "x1", "x2") == [GRANTED, NONE]
    # The page of `x1` is long gone: as soon as that is noticed, the permit comes to where the person is.
    await bench.pass_time(10, renewing=[x2])
    assert await states(bench, "x1", "x2") == [NONE, GRANTED]


async def test_the_permit_comes_to_the_older_session_also_before_a_tick_saw_that_the_newer_one_is_gone(
    bench: Bench,
) -> None:
    await bench.configure(limit=1, permits_per_user=0)
    older = await enter(bench, "x1", "x")
    await bench.release("x1")
    await bench.set_clock(bench.wall_ms + 1)
    await enter(bench, "x2", "x")
    await bench.claim("x1")
    for _ in range(4):
        await bench.set_clock(bench.wall_ms + 4000)
        await bench.store.renew(POOL, [("s-x1", older.connection_id)])
    await bench.configure(permits_per_user=1)
    await bench.store.tick(POOL)
    assert await states(bench, "x1", "x2") == [GRANTED, NONE]
