"""What a node makes of a snapshot: positions, waits, and what it shows of them."""

from __future__ import annotations

from server.domain.eta import EtaReason
from server.domain.interview import Admission, InterviewState
from server.domain.pool import Mode, PoolConfig, PoolState
from server.live.verbs import Holder, Snapshot
from server.node.hub import Held
from server.node.outlook import Line

NOW = 100.0
MINUTE_MS = 60_000
CONFIG = PoolConfig()


def state(**fields: object) -> PoolState:
    values = {"at": 10 * MINUTE_MS, "mode": Mode.OPEN, "limit": 1, "active": 1, "waiting": 0, **fields}
    counts = {"seq": 7, "offered": 0, "online": 0, "sessions": 0}
    return PoolState(pool="main", epoch="e", **{**counts, **values})  # type: ignore[arg-type]


def snapshot(
    *line: str,
    absent: frozenset[str] = frozenset(),
    offers: dict[str, int] | None = None,
    lengths: int = 10,
    **fields: object,
) -> Snapshot:
    """A place taken since five minutes ago; interviews last ten."""
    offered = offers or {}
    return Snapshot(
        state=state(waiting=len(line), offered=len(offered), **fields),
        last_event_id="1-1",
        holders={"holder": Holder(1, 5 * MINUTE_MS)},
        offers=list(offered),
        offer_tickets=list(offered.values()),
        line=list(line),
        ready=frozenset(line) - absent,
        lengths=[10 * MINUTE_MS] * lengths,
    )


def line_of(taken: Snapshot) -> Line:
    line = Line()
    line.take(taken, CONFIG, NOW)
    return line


def wait_s(line: Line, session_id: str) -> float:
    shown = line.wait_of(session_id)
    assert shown is not None
    assert shown.eta is not None
    return shown.eta.eta_s


def test_a_position_counts_the_offers_with_lower_tickets() -> None:
    line = line_of(snapshot("b", "c", offers={"a": 10, "z": 30}))
    assert line.length == 4
    assert [line.position("b", 5), line.position("b", 20), line.position("c", 40)] == [1, 2, 4]
    assert line.position("stranger", 1) is None


def test_who_is_absent_costs_nobody_time() -> None:
    line = line_of(snapshot("a", "b", "c", absent=frozenset("b")))
    assert wait_s(line, "a") < wait_s(line, "c")
    assert wait_s(line, "c") == wait_s(line_of(snapshot("a", "c")), "c")


def test_the_wait_shrinks_as_time_passes_without_another_snapshot() -> None:
    line = line_of(snapshot("a"))
    before = wait_s(line, "a")
    assert 280 < before < 320
    line.estimate(NOW + 100)
    assert 80 < before - wait_s(line, "a") < 120


def test_who_came_after_the_snapshot_is_promised_nothing_that_would_have_to_grow() -> None:
    line = line_of(snapshot())
    assert line.wait_of("b") is None
    line.take(snapshot("a", "b"), CONFIG, NOW)
    shown = line.wait_of("b")
    assert shown is not None
    assert shown.reason is None


def test_the_number_shown_grows_only_with_a_reason_and_is_forgotten_with_the_waiter() -> None:
    line = line_of(snapshot("a", "b", limit=2))
    before = wait_s(line, "b")
    line.take(snapshot("a", "b", limit=1), CONFIG, NOW)
    shown = line.wait_of("b")
    assert shown is not None
    assert shown.reason is EtaReason.LIMIT_LOWERED
    assert wait_s(line, "b") > before
    line.take(snapshot("a"), CONFIG, NOW)
    line.take(snapshot("a", "b"), CONFIG, NOW)
    again = line.wait_of("b")
    assert again is not None
    assert again.reason is None


def test_a_newcomer_waits_for_nothing_while_a_place_is_free() -> None:
    line = line_of(snapshot(limit=2))
    assert line.newcomers_wait(state(limit=2)) == (0, 0)
    # The last place was taken since; the next estimate will know.
    assert line.newcomers_wait(state(limit=2, active=2)) == (None, None)


def test_a_newcomer_waits_behind_the_line() -> None:
    line = line_of(snapshot("a"))
    eta_s, eta_max_s = line.newcomers_wait(state(waiting=1))
    assert eta_s is not None
    assert eta_max_s is not None
    assert 850 < eta_s <= eta_max_s
    assert eta_s == round(eta_s)


def test_without_a_snapshot_or_enough_lengths_nothing_is_promised() -> None:
    assert Line().wait_of("a") is None
    shown = line_of(snapshot("a", lengths=4)).wait_of("a")
    assert shown is not None
    assert shown.eta is None


def test_watchers_are_told_of_a_wait_that_changed_noticeably() -> None:
    line = line_of(snapshot("a"))
    assert line.is_news()
    line.note_told()
    line.estimate(NOW + 1)
    assert not line.is_news()
    line.take(snapshot("a", "b"), CONFIG, NOW)
    assert line.is_news()


def held() -> Held:
    return Held(
        session_id="s",
        pool="main",
        user_id="u",
        language_code=None,
        started_at=1,
        connection_id="5",
        tab="t",
        attempt=1,
        page=None,
        visible=None,
        token_expires_at=0.0,
    )


def test_a_holder_is_warned_five_minutes_and_one_minute_before_the_end() -> None:
    holder = held()
    holder.remember(Admission(InterviewState.GRANTED, fence=3, ends_in_ms=600_000), NOW)
    warned = []
    for second in range(int(NOW), int(NOW) + 600):
        if holder.warn_at <= second:
            warned.append(holder.standing_at(second).ends_in_ms)
            holder.plan_warning(second)
    assert warned == [300_000, 60_000]


def test_a_short_interview_is_not_warned_of_what_was_said_at_the_start() -> None:
    holder = held()
    holder.remember(Admission(InterviewState.GRANTED, fence=3, ends_in_ms=300_000), NOW)
    assert holder.warn_at == NOW + 240
    holder.remember(Admission(InterviewState.NONE), NOW)
    assert holder.warn_at == float("inf")


def test_what_is_known_of_a_session_survives_the_end_of_its_permit_only_as_a_fence() -> None:
    session = held()
    session.remember(Admission(InterviewState.GRANTED, fence=3), NOW)
    assert (session.known().fence, session.known().holds) == (3, True)
    session.remember(Admission(InterviewState.NONE), NOW)
    assert (session.known().fence, session.known().holds, session.known().ticket) == (3, False, None)
    session.remember(Admission(InterviewState.OFFERED, ticket=9), NOW)
    assert session.known().ticket == 9
