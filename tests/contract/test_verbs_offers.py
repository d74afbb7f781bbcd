"""Offers, sitting out, take-over between the sessions of one user, and the return to the front of the line."""

from __future__ import annotations

import pytest

from server.domain.errors import StaleFenceError
from server.domain.interview import Admission, InterviewState, Reason
from server.domain.pool import Mode
from server.domain.session import ConnectionKind, EndReason
from server.live.verbs import Beat, Connected, Open, Update
from tests.contract.conftest import POOL, Bench

GRANTED, OFFERED, WAITING, DENIED, NONE = (
    InterviewState.GRANTED,
    InterviewState.OFFERED,
    InterviewState.WAITING,
    InterviewState.DENIED,
    InterviewState.NONE,
)


@pytest.fixture
async def room(bench: Bench) -> Bench:
    """One place and offers of 90 s."""
    await bench.configure(limit=1, offer_s=90)
    return bench


async def enter(bench: Bench, *names: str) -> list[Connected]:
    """Each connects and claims, in this order."""
    connected = []
    for name in names:
        connected.append(await bench.connect(name))
        await bench.claim(name)
    return connected


async def second_session(bench: Bench, user: str, name: str) -> Connected:
    """Another session of the user, in another tab."""
    await bench.store.open(POOL, Open(session_id=f"s-{name}", user_id=user, given=True))
    return await bench.hello(name)


async def state(bench: Bench, name: str) -> InterviewState:
    return (await bench.look(name)).admission.state


async def states(bench: Bench, *names: str) -> list[InterviewState]:
    return [await state(bench, name) for name in names]


async def position(bench: Bench, name: str) -> int | None:
    return (await bench.look(name)).admission.position


# Offers


async def test_a_freed_place_is_offered_to_the_next_in_line(room: Bench) -> None:
    await enter(room, "a", "b", "c")
    await room.release("a")
    assert await states(room, "a", "b", "c") == [NONE, OFFERED, WAITING]
    assert (await room.look("b")).admission.offer_expires_in_ms == 90_000
    assert (await room.store.snapshot(POOL)).offers == ["s-b"]
    assert (await room.event_types())[-2:] == ["released", "offered"]


@pytest.mark.parametrize("accept", [True, False])
async def test_an_offer_is_accepted_by_a_claim_of_either_kind(room: Bench, accept: bool) -> None:
    await enter(room, "a", "b")
    await room.release("a")
    granted = await room.claim("b", accept=accept)
    assert granted.state is GRANTED
    assert await room.claim("b", accept=accept) == granted
    pool = await room.store.state(POOL)
    assert (pool.active, pool.offered, pool.waiting) == (1, 0, 0)


async def test_accepting_without_an_offer_changes_nothing(room: Bench) -> None:
    await enter(room, "a", "b")
    await room.open("c", given=True)
    events = await room.events()
    assert (await room.claim("b", accept=True)).state is WAITING
    assert (await room.claim("c", accept=True)).state is NONE
    assert await room.events() == events


async def test_a_claimant_who_is_next_is_let_in_without_an_offer(room: Bench) -> None:
    await room.open("a")
    await room.open("b")
    await room.configure(limit=0)
    await room.claim("a")
    assert (await room.claim("b")).state is WAITING
    await room.configure(limit=2, mode=Mode.PAUSED)
    assert await states(room, "a", "b") == [WAITING, WAITING]
    await room.configure(mode=Mode.OPEN)
    assert await states(room, "a", "b") == [OFFERED, OFFERED]
    await room.configure(limit=3)
    await room.open("c")
    assert (await room.claim("c")).state is GRANTED


async def test_offers_count_against_the_limit(room: Bench) -> None:
    await enter(room, "a", "b")
    await room.release("a")
    await room.open("d", given=True)
    assert (await room.claim("d")).state is WAITING
    pool = await room.store.state(POOL)
    assert (pool.active, pool.offered, pool.waiting, pool.available) == (0, 1, 1, 0)


async def test_a_missed_offer_goes_to_the_next_and_its_owner_sits_out(room: Bench) -> None:
    _, b, c = await enter(room, "a", "b", "c")
    await room.release("a")
    await room.pass_time(89, renewing=[b, c])
    assert await states(room, "b", "c") == [OFFERED, WAITING]
    await room.pass_time(1, renewing=[b, c])
    assert await states(room, "b", "c") == [WAITING, OFFERED]
    missed = [event for event in await room.events() if event["type"] == "offer_missed"]
    assert [(event["session_id"], event["cause"]) for event in missed] == [("s-b", "expired")]
    await room.finish("c")
    assert await states(room, "b") == [WAITING]
    assert (await room.store.state(POOL)).available == 1


async def test_who_sits_out_is_ready_again_by_a_claim_and_let_in(room: Bench) -> None:
    _, b = await enter(room, "a", "b")
    await room.release("a")
    await room.pass_time(90, renewing=[b])
    assert await states(room, "b") == [WAITING]
    assert (await room.claim("b")).state is GRANTED


@pytest.mark.parametrize("visible", [True, False])
async def test_only_a_visible_page_makes_ready_who_sits_out(room: Bench, visible: bool) -> None:
    _, b = await enter(room, "a", "b")
    await room.release("a")
    await room.pass_time(90, renewing=[b])
    update = Update(session_id="s-b", connection_id=b.connection_id, visible=visible)
    seen = await room.store.update(POOL, update)
    assert seen.admission.state is (OFFERED if visible else WAITING)


async def test_a_visible_page_over_http_and_a_visible_hello_make_ready_too(room: Bench) -> None:
    await enter(room, "a")
    await room.open("b", given=True)
    b = await room.hello("b", kind=ConnectionKind.HTTP)
    await room.claim("b")
    await room.release("a")
    for _ in range(9):
        await room.pass_time(10)
        beat = Beat(session_id="s-b", connection_id=b.connection_id, visible=False)
        await room.store.beat(POOL, beat)
    assert await states(room, "b") == [WAITING]
    beat = Beat(session_id="s-b", connection_id=b.connection_id, visible=True)
    assert (await room.store.beat(POOL, beat)).admission.state is OFFERED
    await room.pass_time(100)
    assert await states(room, "b") == [WAITING]
    assert (await room.hello("b")).admission.state is WAITING
    assert (await room.hello("b", visible=True)).admission.state is OFFERED


@pytest.mark.parametrize("sign", ["claim", "update", "hello"])
async def test_a_sign_of_life_just_after_the_offer_ran_out_counts(room: Bench, sign: str) -> None:
    """No tick was in between: the script itself finds the offer expired, and then somebody who is here."""
    _, b = await enter(room, "a", "b")
    await room.release("a")
    for _ in range(30):
        await room.set_clock(room.wall_ms + 3000)
        await room.store.renew(POOL, [("s-b", b.connection_id)])
    assert await states(room, "b") == [OFFERED]
    if sign == "claim":
        assert (await room.claim("b")).state is GRANTED
    elif sign == "update":
        await room.store.update(POOL, Update(session_id="s-b", visible=True))
        assert await states(room, "b") == [OFFERED]
    else:
        assert (await room.hello("b", visible=True)).admission.state is OFFERED
    assert "offer_missed" in await room.event_types()


async def test_losing_the_connection_shortens_an_offer_and_coming_back_restores_it(room: Bench) -> None:
    _, b = await enter(room, "a", "b")
    await room.release("a")
    await room.drop(b)
    assert (await room.look("b")).admission.offer_expires_in_ms == 10_000
    await room.pass_time(4)
    await room.hello("b")
    assert (await room.look("b")).admission.offer_expires_in_ms == 86_000


async def test_an_offer_to_somebody_who_went_away_is_missed_after_the_grace(room: Bench) -> None:
    _, b, c = await enter(room, "a", "b", "c")
    await room.release("a")
    await room.drop(b)
    await room.pass_time(10, renewing=[c])
    assert await states(room, "b", "c") == [WAITING, OFFERED]
    assert (await room.events())[-2]["cause"] == "absent"


async def test_a_missed_offer_grows_nobodys_position(room: Bench) -> None:
    _, b, c, d = await enter(room, "a", "b", "c", "d")
    await room.release("a")
    assert [await position(room, name) for name in ("c", "d")] == [2, 3]
    await room.pass_time(90, renewing=[b, c, d])
    assert await states(room, "b", "c", "d") == [WAITING, OFFERED, WAITING]
    assert [await position(room, name) for name in ("b", "d")] == [1, 3]
    await room.claim("c")
    assert [await position(room, name) for name in ("b", "d")] == [1, 2]


async def test_pausing_withdraws_offers_and_opening_again_makes_them_anew(room: Bench) -> None:
    await enter(room, "a", "b")
    await room.release("a")
    await room.configure(mode=Mode.PAUSED)
    assert await states(room, "b") == [WAITING]
    assert (await room.store.state(POOL)).offered == 0
    await room.configure(mode=Mode.OPEN)
    assert await states(room, "b") == [OFFERED]


async def test_leaving_during_an_offer_passes_it_on(room: Bench) -> None:
    await enter(room, "a", "b", "c")
    await room.release("a")
    assert (await room.release("b")).reason is Reason.RELEASED
    assert await states(room, "b", "c") == [NONE, OFFERED]


async def test_raising_the_limit_offers_at_once_and_lowering_it_leaves_offers_open(room: Bench) -> None:
    await enter(room, "a", "b", "c")
    await room.configure(limit=3)
    assert await states(room, "a", "b", "c") == [GRANTED, OFFERED, OFFERED]
    await room.configure(limit=1)
    assert await states(room, "a", "b", "c") == [GRANTED, OFFERED, OFFERED]
    assert (await room.claim("b")).state is GRANTED


# Take-over


async def test_another_session_of_the_user_is_told_and_may_take_over(bench: Bench) -> None:
    await enter(bench, "a")
    held = await bench.claim("a")
    await second_session(bench, "a", "a2")
    assert await bench.claim("a2") == Admission(state=DENIED, reason=Reason.ELSEWHERE, waiting=0)
    moved = await bench.claim("a2", takeover=True)
    assert moved.state is GRANTED
    assert (moved.fence or 0) > (held.fence or 0)
    assert (await bench.look("a")).admission == Admission(state=NONE, reason=Reason.TAKEN_OVER)
    with pytest.raises(StaleFenceError):
        await bench.release("a2", held.fence)
    assert (await bench.release("a", held.fence)).reason is Reason.TAKEN_OVER
    assert await bench.claim("a2") == moved
    assert (await bench.store.state(POOL)).active == 1


async def test_a_ticket_is_taken_over_with_its_place(room: Bench) -> None:
    await enter(room, "x", "a", "c")
    ticket = (await room.look("a")).admission.ticket
    await second_session(room, "a", "a2")
    moved = await room.claim("a2", takeover=True)
    assert (moved.state, moved.ticket, moved.position) == (WAITING, ticket, 1)
    assert await states(room, "a") == [NONE]


async def test_an_offer_that_is_taken_over_is_accepted_by_it(room: Bench) -> None:
    await enter(room, "x", "a")
    await room.release("x")
    await second_session(room, "a", "a2")
    assert (await room.claim("a2", takeover=True)).state is GRANTED
    assert (await room.store.state(POOL)).offered == 0


async def test_a_claim_takes_over_by_itself_what_a_session_without_connection_has(bench: Bench) -> None:
    (gone,) = await enter(bench, "a")
    await bench.drop(gone)
    await second_session(bench, "a", "a2")
    assert (await bench.claim("a2")).state is GRANTED
    assert (await bench.look("a")).admission.reason is Reason.TAKEN_OVER


async def test_what_the_lost_session_had_moves_to_the_users_newer_one(bench: Bench) -> None:
    await bench.configure(limit=1)
    gone, waiter = await enter(bench, "a", "b")
    held = (await bench.look("a")).admission
    newer = await second_session(bench, "a", "a2")
    newest = await second_session(bench, "b", "b2")
    await bench.drop(gone)
    moved = (await bench.look("a2")).admission
    assert moved.state is GRANTED
    assert (moved.fence or 0) > (held.fence or 0)
    await bench.drop(waiter)
    assert await states(bench, "a", "b", "b2") == [NONE, NONE, WAITING]
    await bench.pass_time(30, renewing=[newer, newest])
    assert await states(bench, "a2", "b2") == [GRANTED, WAITING]


async def test_nothing_moves_to_an_older_session_or_one_that_is_away(bench: Bench) -> None:
    await bench.connect("a")
    newer = await second_session(bench, "a", "a2")
    newest = await second_session(bench, "a", "a3")
    await bench.claim("a2")
    await bench.drop(newest)
    await bench.drop(newer)
    assert await states(bench, "a", "a2", "a3") == [NONE, GRANTED, NONE]


async def test_nothing_is_taken_over_to_where_nobody_is(bench: Bench) -> None:
    (holder,) = await enter(bench, "a")
    away = await second_session(bench, "a", "a2")
    await bench.drop(away)
    await bench.pass_time(10, renewing=[holder])
    for _ in range(2):
        assert (await bench.claim("a2", takeover=True)).reason is Reason.ELSEWHERE
    await bench.drop(holder)
    assert (await bench.claim("a2")).reason is Reason.ELSEWHERE
    assert await states(bench, "a", "a2") == [GRANTED, NONE]


async def test_an_absent_place_that_is_taken_over_gets_the_free_place_at_once(room: Bench) -> None:
    _, b = await enter(room, "a", "b")
    await room.drop(b)
    await room.release("a")
    assert await states(room, "b") == [WAITING]
    await second_session(room, "b", "b2")
    assert (await room.claim("b2")).state is GRANTED


# Coming back after the permit was reclaimed


async def reclaimed(bench: Bench, gone: Connected, *others: Connected) -> None:
    await bench.drop(gone)
    await bench.pass_time(20, renewing=list(others))


async def test_a_reclaimed_holder_who_returns_goes_to_the_front(bench: Bench) -> None:
    await bench.configure(limit=1)
    a, b, c = await enter(bench, "a", "b", "c")
    await reclaimed(bench, a, b, c)
    assert await states(bench, "a", "b", "c") == [NONE, GRANTED, WAITING]
    await bench.hello("a")
    assert (await bench.claim("a")).position == 1
    assert await position(bench, "c") == 2
    await bench.release("b")
    assert await states(bench, "a", "c") == [GRANTED, WAITING]


async def test_a_reclaimed_holder_is_ahead_of_an_open_offer_too(room: Bench) -> None:
    a, b, c = await enter(room, "a", "b", "c")
    await reclaimed(room, a, b, c)
    assert await states(room, "a", "b", "c") == [NONE, OFFERED, WAITING]
    await room.hello("a")
    assert (await room.claim("a")).position == 1
    await room.release("b")
    assert await states(room, "a", "c") == [OFFERED, WAITING]


async def test_after_resume_s_a_reclaimed_holder_is_one_of_many(bench: Bench) -> None:
    await bench.configure(limit=1, resume_s=100)
    a, b, c = await enter(bench, "a", "b", "c")
    await reclaimed(bench, a, b, c)
    await bench.pass_time(81, renewing=[b, c])
    await bench.hello("a")
    assert (await bench.claim("a")).position == 2


async def test_asking_without_waiting_does_not_cost_a_reclaimed_holder_the_front(bench: Bench) -> None:
    await bench.configure(limit=1)
    a, b, c = await enter(bench, "a", "b", "c")
    await reclaimed(bench, a, b, c)
    await bench.hello("a")
    assert (await bench.claim("a", wait=False)).state is DENIED
    assert (await bench.claim("a")).position == 1


async def test_the_front_is_for_one_return_only(bench: Bench) -> None:
    await bench.configure(limit=1)
    a, b, c = await enter(bench, "a", "b", "c")
    await reclaimed(bench, a, b, c)
    await bench.hello("a")
    await bench.claim("a")
    await bench.release("a")
    assert (await bench.claim("a")).position == 2


async def test_a_late_release_of_a_lost_permit_does_not_cost_the_place_in_line(bench: Bench) -> None:
    await bench.configure(limit=1)
    a, b = await enter(bench, "a", "b")
    fence = (await bench.look("a")).admission.fence
    await reclaimed(bench, a, b)
    await bench.hello("a")
    await bench.claim("a")
    with pytest.raises(StaleFenceError):
        await bench.release("a", fence)
    assert await states(bench, "a") == [WAITING]


async def test_all_who_are_past_the_least_grace_are_reclaimed_while_a_lowered_limit_drains(
    bench: Bench,
) -> None:
    a, b, *_ = await enter(bench, "a", "b")
    await bench.configure(limit=1)
    w = (await enter(bench, "w"))[0]
    await bench.drop(a)
    await bench.drop(b)
    await bench.pass_time(20, renewing=[w])
    assert await states(bench, "a", "b", "w") == [NONE, NONE, GRANTED]


async def test_a_kick_during_an_offer_passes_it_on(room: Bench) -> None:
    await enter(room, "a", "b", "c")
    await room.release("a")
    await room.finish("b", EndReason.KICKED)
    assert await states(room, "c") == [OFFERED]


async def test_opening_again_after_an_unnoticed_loss_is_a_sign_of_life(bench: Bench) -> None:
    """The deadline ran out and no tick has seen it yet: first the loss, then the person who is back."""
    await enter(bench, "a")
    for _ in range(5):
        await bench.set_clock(bench.wall_ms + 4000)
        await bench.store.renew(POOL, [])
    assert (await bench.open("a")).resumed
    await bench.store.tick(POOL)
    seen = await bench.look("a")
    assert seen.online
    assert seen.admission.state is GRANTED
