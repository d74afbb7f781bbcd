"""The hub: whose connection counts, and what the loops see."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from server.domain.events import Event, EventType
from server.domain.interview import Admission, InterviewState
from server.domain.pool import Mode, PoolConfig, PoolState
from server.live.verbs import Holder, Snapshot
from server.node.fanout import Fanout
from server.node.hub import Held, Hub
from server.node.line import is_due


class Recorder:
    """A member that writes down what it is told."""

    def __init__(self, session_id: str, connection_id: int, *, pool: str = "main", tab: str = "t") -> None:
        self.held = Held(
            session_id=session_id,
            pool=pool,
            user_id="u",
            language_code=None,
            started_at=1,
            connection_id=str(connection_id),
            tab=tab,
            attempt=1,
            page=None,
            visible=None,
            token_expires_at=0.0,
        )
        self.told: list[Any] = []

    def send_text(self, frame: str) -> None: ...
    def place(self, position: int, waiting: int) -> None: ...
    def warn(self) -> None: ...
    def refresh_token(self) -> None: ...
    def close(self, code: int, reason: str = "") -> None: ...
    async def tell(self) -> None: ...
    async def reconcile(self) -> None: ...
    async def register_again(self) -> None: ...

    def hear(self, event: Event) -> None:
        self.told.append(event.type)

    def compare(self, state: InterviewState, fence: int | None) -> None:
        self.told.append((state.value, fence))

    def replaced_by(self, tab: str | None) -> None:
        self.told.append(("replaced", tab))


class Socket:
    on_text: Callable[[bytes], bool] | None = None

    def send_text(self, text: str) -> bool:
        return True

    def close(self, code: int, reason: str = "") -> None: ...
    def abort(self, reason: str) -> None: ...


def state(*, active: int = 0, more: bool = False) -> PoolState:
    return PoolState(
        pool="main",
        epoch="e",
        at=1,
        seq=7,
        mode=Mode.OPEN,
        limit=3,
        active=active,
        offered=0,
        waiting=0,
        online=0,
        sessions=0,
        more=more,
    )


def snapshot(**fields: object) -> Snapshot:
    empty: dict[str, Any] = {"holders": {}, "offers": [], "line": [], "ready": frozenset(), "lengths": []}
    return Snapshot(state=state(), last_event_id="1-1", **{**empty, **fields})


def test_the_newer_connection_of_a_session_wins_whichever_comes_first() -> None:
    for order in ((1, 2), (2, 1)):
        hub = Hub()
        members = {number: Recorder("s", number, tab=f"tab {number}") for number in order}
        for member in members.values():
            hub.join(member)
        assert hub.holds(members[2])
        assert (members[1].told, members[2].told) == ([("replaced", "tab 2")], [])


def test_who_was_replaced_leaves_without_a_trace() -> None:
    hub, old, new = Hub(), Recorder("s", 1), Recorder("s", 2)
    hub.join(old)
    hub.pool("main").watchers.add(old)
    hub.join(new)
    assert not hub.leave(old)
    assert (len(hub), hub.pool("main").watchers) == (1, set())
    assert hub.leave(new)
    assert len(hub) == 0


def test_batches_cover_every_member_once_and_never_mix_pools() -> None:
    hub = Hub()
    members = [Recorder(f"s{number}", number, pool=("a", "b")[number % 2]) for number in range(11)]
    for member in members:
        hub.join(member)
    batches = hub.batches(2)
    assert sorted(member.held.session_id for _, batch in batches for member in batch) == sorted(
        member.held.session_id for member in members
    )
    assert all(len(batch) <= 2 and {each.held.pool for each in batch} == {name} for name, batch in batches)


def test_only_those_whose_hello_is_overdue_are_late() -> None:
    hub, first, second = Hub(), Socket(), Socket()
    hub.greeting[first] = 5.0
    hub.greeting[second] = 6.0
    assert hub.late(4.9) == []
    assert hub.late(5.5) == [first]
    assert hub.late(6.0) == [first, second]


def test_only_other_counts_are_news_to_watchers() -> None:
    pool = Hub().pool("main")
    assert pool.is_news(state())
    pool.state = state()
    assert not pool.is_news(state(more=True))
    assert pool.is_news(state(active=1))


def test_waiters_and_the_longest_interview_are_read_off_what_is_remembered() -> None:
    hub, waiter = Hub(), Recorder("w", 1)
    waiter.held.standing = Admission(InterviewState.WAITING, ticket=4)
    hub.join(waiter)
    hub.join(Recorder("s", 2))
    pool = hub.pool("main")
    assert pool.waiters() == {"w": waiter}
    assert waiter.held.claims().ticket == 4
    assert pool.longest_interview_ms is None
    pool.config = PoolConfig(max_interview_s=90)
    assert pool.longest_interview_ms == 90_000


def test_an_event_reaches_its_session_only_and_wakes_who_watches() -> None:
    hub, concerned, other = Hub(), Recorder("s", 1), Recorder("t", 2)
    hub.join(concerned)
    hub.join(other)
    pool = hub.pool("main")
    Fanout(hub).on_event("main", Event(EventType.GRANTED, 9, "e", 1, session_id="s", fence=5))
    assert (concerned.told, other.told) == ([EventType.GRANTED], [])
    assert (pool.last_seq, pool.line_moved, pool.changed.is_set()) == (9, True, True)


def test_after_missed_events_every_member_is_compared_with_the_pool() -> None:
    hub = Hub()
    names = ("in", "offered", "waits", "out")
    members = {name: Recorder(name, number) for number, name in enumerate(names, start=1)}
    for member in members.values():
        hub.join(member)
    Fanout(hub).on_resync(
        "main", snapshot(holders={"in": Holder(8, 1)}, offers=["offered"], line=["x", "waits"])
    )
    assert [member.told for member in members.values()] == [
        [("granted", 8)],
        [("offered", None)],
        [("waiting", None)],
        [("none", None)],
    ]


def test_the_front_of_the_line_hears_of_each_move_the_others_when_it_pays() -> None:
    assert is_due(3, told=3, since_told_s=1)
    assert is_due(50, told=51, since_told_s=1)
    assert is_due(400, told=None, since_told_s=0)
    assert not is_due(399, told=400, since_told_s=9)
    assert is_due(399, told=400, since_told_s=10)
    assert is_due(380, told=400, since_told_s=1)


def head(epoch: str, *, recovering: bool = False) -> bytes:
    return json.dumps({"recovering": recovering, "epoch": epoch, "limit": 3}, separators=(",", ":")).encode()


def test_another_epoch_in_any_reply_means_that_redis_lost_its_memory() -> None:
    hub = Hub()
    pool = hub.pool("main")
    hub.saw("main", head("e1"))
    assert (pool.epoch, pool.lost.is_set(), pool.settled.is_set()) == ("e1", False, True)
    hub.saw("main", head("e2", recovering=True))
    assert (pool.lost.is_set(), pool.settled.is_set(), pool.recovering) == (True, False, True)
    hub.saw("unknown", head("e3"))
    assert "unknown" not in hub.pools


def test_until_redis_knows_everything_again_nothing_is_learned_from_it() -> None:
    hub, member = Hub(), Recorder("in", 1)
    hub.join(member)
    hub.pool("main").settled.clear()
    Fanout(hub).on_resync("main", snapshot())
    assert member.told == []


def page(session_id: str = "page") -> Held:
    return Recorder(session_id, 5).held


def test_the_standing_of_a_page_over_http_follows_the_events() -> None:
    hub, held = Hub(), page()
    hub.pool("main").beats(held, until=60.0)
    story = [
        (EventType.WAITING, {"ticket": 7}),
        (EventType.OFFERED, {"ticket": 7}),
        (EventType.OFFER_MISSED, {"ticket": 7}),
        (EventType.GRANTED, {"fence": 9}),
        (EventType.RELEASED, {"fence": 9}),
    ]
    known = []
    for seq, (kind, fields) in enumerate(story):
        Fanout(hub).on_event("main", Event(kind, seq, "e", 1, session_id="page", **fields))  # type: ignore[arg-type]
        known.append((held.known().ticket, held.known().fence, held.known().holds))
    assert known == [
        (7, None, False),
        (7, None, False),
        (7, None, False),
        (None, 9, True),
        (None, 9, False),
    ]


def test_a_page_over_http_is_forgotten_when_it_is_gone() -> None:
    def after(act: Callable[[Hub], object]) -> bool:
        hub = Hub()
        hub.pool("main").beats(page(), until=60.0)
        act(hub)
        return "page" in hub.pool("main").beating

    def event(kind: EventType, **fields: str) -> Callable[[Hub], None]:
        made = Event(kind, 1, "e", 1, session_id="page", **fields)  # type: ignore[arg-type]
        return lambda hub: Fanout(hub).on_event("main", made)

    assert after(lambda hub: hub.pool("main").forget_silent(59.0))
    assert not after(lambda hub: hub.pool("main").forget_silent(61.0))
    assert after(lambda hub: hub.pool("main").says_bye("page", "4"))
    assert not after(lambda hub: hub.pool("main").says_bye("page", "5"))
    assert not after(lambda hub: hub.join(Recorder("page", 6)))
    assert after(event(EventType.CONNECTED, connection_id="5"))
    assert not after(event(EventType.CONNECTED, connection_id="6"))
    assert not after(event(EventType.KICKED))
