"""Waits in vain: who leaves the line without an interview leaves how long they waited, and the plan learns from it."""

from __future__ import annotations

import time

import pytest

from persistence.connect import connect
from persistence.plan.history import Arrivals
from persistence.repository import Repository
from server.domain.interview import InterviewState
from server.domain.session import EndReason, SessionRecord
from server.live.dirty import StoreDirtySessions
from server.live.verbs import Claim, Connected, Open
from tests.contract.conftest import POOL, Bench


@pytest.fixture
async def line(bench: Bench) -> list[Connected]:
    """`a` is in the interview, `b` and `c` wait."""
    await bench.configure(limit=1)
    return [await enter(bench, name) for name in ("a", "b", "c")]


async def enter(bench: Bench, name: str) -> Connected:
    connected = await bench.connect(name)
    await bench.claim(name)
    return connected


async def record(bench: Bench, name: str) -> SessionRecord:
    return (await bench.look(name)).record


async def waited(bench: Bench, name: str) -> float | None:
    """The wait of a session that never had an interview."""
    found = await record(bench, name)
    assert found.interview_started_at is None
    return found.waited_s


async def test_who_leaves_the_line_has_waited_until_then(bench: Bench, line: list[Connected]) -> None:
    await bench.pass_time(30, renewing=line)
    assert await waited(bench, "b") is None
    await bench.release("b")
    assert await waited(bench, "b") == 30
    await bench.pass_time(5, renewing=line)
    await bench.release("b")
    assert await waited(bench, "b") == 30


@pytest.mark.parametrize("reason", [EndReason.COMPLETED, EndReason.KICKED])
async def test_who_ends_while_waiting_has_waited_in_vain(
    bench: Bench, line: list[Connected], reason: EndReason
) -> None:
    await bench.pass_time(20, renewing=line)
    await bench.finish("b", reason)
    assert await waited(bench, "b") == 20


async def test_whose_ticket_expires_has_waited_until_they_were_last_here(
    bench: Bench, line: list[Connected]
) -> None:
    await bench.configure(resume_s=60)
    await bench.pass_time(25, renewing=line)
    await bench.drop(line[1])
    await bench.pass_time(61, renewing=[line[0], line[2]])
    found = await bench.look("b")
    assert (found.admission.state, found.record.waited_s) == (InterviewState.NONE, 25)


async def test_who_is_abandoned_while_waiting_has_waited_until_they_were_last_here(
    bench: Bench, line: list[Connected]
) -> None:
    await bench.pass_time(25, renewing=line)
    await bench.drop(line[1])
    await bench.pass_time(30, renewing=[line[0], line[2]])
    assert await bench.store.cleanup(POOL, 0) == 1
    assert await waited(bench, "b") == 25


async def test_who_leaves_while_a_place_is_offered_has_waited_in_vain(
    bench: Bench, line: list[Connected]
) -> None:
    await bench.configure(offer_s=90)
    await bench.pass_time(10, renewing=line)
    await bench.release("a")
    await bench.pass_time(5, renewing=line)
    await bench.release("b")
    assert await waited(bench, "b") == 15


async def test_a_wait_goes_on_in_the_session_that_takes_it_over(bench: Bench, line: list[Connected]) -> None:
    await bench.pass_time(10, renewing=line)
    await bench.store.open(POOL, Open(session_id="s-b2", user_id="b", given=True))
    other = await bench.hello("b2")
    await bench.store.claim(POOL, Claim(session_id="s-b2", takeover=True))
    assert await waited(bench, "b") is None
    await bench.pass_time(10, renewing=[*line, other])
    await bench.release("b2")
    assert await waited(bench, "b2") == 20


async def test_who_was_turned_away_at_once_has_not_waited(bench: Bench, line: list[Connected]) -> None:
    await bench.open("d")
    version = (await record(bench, "d")).version
    assert (await bench.claim("d", wait=False)).state is InterviewState.DENIED
    found = await record(bench, "d")
    assert (found.waited_s, found.version) == (None, version)


async def test_who_gives_up_and_gets_in_later_has_the_wait_that_led_there(
    bench: Bench, line: list[Connected]
) -> None:
    await bench.pass_time(30, renewing=line)
    await bench.release("b")
    await bench.release("c")
    await bench.claim("b")
    await bench.pass_time(4, renewing=line)
    await bench.release("a")
    found = await record(bench, "b")
    assert (found.is_in_interview, found.waited_s) == (True, 4)


async def test_who_waits_again_after_an_interview_keeps_the_wait_for_that(
    bench: Bench, line: list[Connected]
) -> None:
    await bench.pass_time(12, renewing=line)
    await bench.release("a")
    assert (await record(bench, "b")).waited_s == 12
    await bench.release("b")
    await bench.claim("b")
    await bench.pass_time(40, renewing=line)
    await bench.release("b")
    assert (await record(bench, "b")).waited_s == 12


async def test_the_plan_learns_patience_from_those_who_gave_up(bench: Bench, database_url: str) -> None:
    await bench.set_clock(int(time.time() * 1000))
    await bench.configure(limit=1)
    names = ["a", *(f"w{number}" for number in range(6))]
    line = [await enter(bench, name) for name in names]
    for name in names[1:]:
        await bench.pass_time(20, renewing=line)
        await bench.finish(name, EndReason.KICKED)
    await bench.finish("a")
    pool = await connect(database_url)
    await Repository(pool).write((await StoreDirtySessions(bench.store).take(POOL, 50)).lines)
    found = await Arrivals(pool).demand(POOL, 28)
    await pool.close()
    assert (found.gave_up, list(found.lengths_s)) == (6, [120])
    assert list(found.patience.waits_s) == [20, 40, 60, 80, 100, 120]
    assert sum(found.patience.chances) == pytest.approx(1)
