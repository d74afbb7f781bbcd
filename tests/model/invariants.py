"""The ten invariants of DESIGN 5 and two more, checked on Redis before and after each call, without the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from tests.model.live import Answer, Seen
from tests.model.replay import Replay
from tests.model.views import View, Views, of_redis, queue

# Causes with which a standing comes back or moves; nobody is let in by them.
CARRIED_OVER = ("recovered", "taken_over")
# Tallies of what is no event.
NO_EVENTS = ("denied", "offer_taken")


@dataclass(frozen=True)
class Step:
    """One call: the state before and after it, and what it wrote."""

    before: Views
    after: Views
    answer: Answer
    is_refused: bool
    ran_the_pump: bool
    tallied: Mapping[str, int]

    @property
    def seen(self) -> Seen:
        return self.answer.seen

    @property
    def now(self) -> int:
        return int(self.seen.config["now"])

    @property
    def limit(self) -> int:
        return int(self.seen.config["limit"])

    @property
    def is_recovering(self) -> bool:
        return bool(self.answer.head["recovering"])

    def events(self, *kinds: str) -> list[dict[str, str]]:
        return [event for event in self.answer.events if event["type"] in kinds]

    @property
    def admitted(self) -> list[str]:
        """Who got a place that was free: by an offer, or outright."""
        offered = {sid for sid, view in self.before.items() if view.state == "offered"}
        offered |= {
            event["session_id"] for event in self.events("offered") if event.get("cause") in CARRIED_OVER
        }
        return [
            event["session_id"]
            for event in self.events("offered", "granted")
            if event.get("cause") not in CARRIED_OVER
            and not (event["type"] == "granted" and event["session_id"] in offered)
        ]


def the_limit_holds(step: Step) -> None:
    """1. Permits and offers are within the limit; a pool with too many lets nobody in."""
    places = [sid for sid, view in step.after.items() if view.holds_place]
    assert len(places) <= step.limit or not step.admitted, f"{places} with a limit of {step.limit}"
    if step.is_recovering:
        assert not step.admitted, f"let in during recovery: {step.admitted}"


def the_sets_match_the_records(step: Step) -> None:
    """2. Nobody is both holder and waiter, nobody twice; every set is what the records say."""
    active = {sid: view for sid, view in step.after.items() if view.ended is None}
    expected = {
        "interviews": _scores(active, lambda v: v.holds_place, lambda v: _place_deadline(step.seen, v)),
        "offers": _scores(active, lambda v: v.state == "offered", lambda v: v.ticket),
        "line": _scores(active, lambda v: v.state == "waiting", lambda v: v.ticket),
        "ready": _scores(active, lambda v: v.is_ready, lambda v: v.ticket),
        "absent": _scores(
            active, lambda v: v.state == "waiting" and v.lost_at is not None, lambda v: v.lost_at
        ),
        "grace": _scores(
            active, lambda v: v.state == "granted" and v.lost_at is not None, lambda v: v.lost_at
        ),
        "offline": _scores(active, lambda v: v.deadline is None, lambda v: v.lost_at),
    }
    for name, scores in expected.items():
        assert step.seen.sets[name] == scores, f"{name}: {step.seen.sets[name]} but the records say {scores}"
    assert step.seen.sets["sessions"].keys() == active.keys()
    assert set().union(*step.seen.users.values()) == active.keys()
    for sid, view in active.items():
        assert (step.seen.records[sid]["is_in_interview"] == "1") is (view.state == "granted")


def _scores(
    views: Views, belongs: Callable[[View], bool], score: Callable[[View], float | None]
) -> dict[str, float | None]:
    return {sid: score(view) for sid, view in views.items() if belongs(view)}


def _place_deadline(seen: Seen, view: View) -> float:
    ends = [view.offer_ends_at if view.state == "offered" else view.ends_at]
    if view.lost_at is not None:
        grace = "grace_s" if view.state == "offered" else "permit_grace_max_s"
        ends.append(view.lost_at + int(seen.config[grace]) * 1000)
    return min((end for end in ends if end is not None), default=inf)


def no_place_idles(step: Step) -> None:
    """3. Open, a ready waiter: no place is free, and no holder is past the reclaimable grace."""
    if not step.ran_the_pump or step.is_recovering or step.seen.config["mode"] != "open":
        return
    ready = [sid for sid, view in step.after.items() if view.is_ready and (view.deadline or 0) > step.now]
    if not ready:
        return
    places = [sid for sid, view in step.after.items() if view.holds_place]
    assert len(places) >= step.limit, f"{ready} wait though only {places} hold places"
    latest = step.now - int(step.seen.config["permit_grace_min_s"]) * 1000
    overdue = [
        sid
        for sid, view in step.after.items()
        if view.state == "granted" and view.lost_at is not None and view.lost_at <= latest
    ]
    assert not overdue, f"{ready} wait though {overdue} could be reclaimed"


def first_come_first_served(step: Step) -> None:
    """4. Every ticket taken is lower than that of every ready waiter left behind."""
    ready = [sid for sid, view in step.after.items() if view.is_ready and (view.deadline or 0) > step.now]
    for taken in step.admitted:
        ticket = _ticket_taken(step, taken)
        for left in ready:
            assert (step.after[left].ticket or 0) > ticket, f"{taken} ({ticket}) overtook {left}"


def _ticket_taken(step: Step, session_id: str) -> float:
    """A claimant that came to the front was never seen with its ticket; one may have been taken over in this call."""
    for event in step.events("waiting", "offered"):
        if event["session_id"] == session_id:
            return int(event["ticket"])
    for view in (step.after[session_id], step.before.get(session_id)):
        if view is not None and view.ticket is not None:
            return view.ticket
    before = step.before.get(session_id)
    has_front = before is not None and (before.front_until or 0) >= step.now
    return -inf if has_front else inf


def no_position_grows(step: Step) -> None:
    """5. A position never grows, but for a return to the front, or for one that recovery brings back."""
    before, after = queue(step.before), queue(step.after)
    for sid in after:
        old, new = step.before.get(sid), step.after[sid]
        if old is None or (old.state, old.ticket, new.state) != ("waiting", new.ticket, "waiting"):
            continue
        came = {other for other in after[: after.index(sid)] if other not in before[: before.index(sid)]}
        unjustified = {other for other in came if not _may_come_in_front(step, other)}
        grew = after.index(sid) - before.index(sid)
        assert grew <= len(came - unjustified), f"{sid} went back by {grew} for {unjustified}"


def _may_come_in_front(step: Step, session_id: str) -> bool:
    old = step.before.get(session_id)
    if old is not None and (old.front_until or 0) >= step.now:
        return True
    return any(
        event["session_id"] == session_id and event.get("cause") == "recovered"
        for event in step.events("waiting")
    )


def refusals_change_nothing(step: Step) -> None:
    """6 and 8. An old fence, a stale connection, a late beacon: nothing is changed and nothing told."""
    if step.is_refused:
        assert step.after == step.before
        assert not [event for event in step.answer.events if event["type"] != "recovery_started"]


class FencesRise:
    """6. Each new permit, also a moved one, has a higher fence than all before it, whatever Redis forgot."""

    def __init__(self) -> None:
        self.highest = 0

    def __call__(self, step: Step) -> None:
        for event in step.events("granted"):
            fence = int(event["fence"])
            if event.get("cause") != "recovered":
                assert fence > self.highest, f"fence {fence} after {self.highest}"
            self.highest = max(self.highest, fence)


class StreamTellsAll:
    """10. Replaying the event stream gives holders and line."""

    def __init__(self) -> None:
        self.replay = Replay()

    def start_anew(self) -> None:
        """The stream is another one now."""
        self.replay = Replay()

    def __call__(self, step: Step) -> None:
        for event in step.answer.events:
            self.replay.apply(event)
        after = step.after.items()
        assert self.replay.holders == {sid: v.fence for sid, v in after if v.state == "granted"}
        assert self.replay.offers == {sid: v.ticket for sid, v in after if v.state == "offered"}
        assert self.replay.tickets == {sid: v.ticket for sid, v in after if v.state == "waiting"}
        assert self.replay.seq == step.answer.head["seq"]


def nobody_is_let_in_twice(step: Step) -> None:
    """Of one user's sessions no more are let in than one may have, whatever an old copy of Redis brought back."""
    most = int(step.seen.config["permits_per_user"])
    user_of = {sid: record["user_id"] for sid, record in step.seen.records.items()}
    for taken in step.admitted:
        places = [
            sid for sid, view in step.after.items() if view.holds_place and user_of[sid] == user_of.get(taken)
        ]
        assert not most or len(places) <= most, f"{places} of {user_of[taken]}, {taken} let in last"


def the_tallies_count_the_events(step: Step) -> None:
    """Each event is counted once, under its type, with its cause where there are few."""
    told = Counter(event["type"] for event in step.answer.events)
    counted = Counter[str]()
    for name, count in step.seen.tallies.items():
        counted[name.partition(":")[0]] += count - step.tallied.get(name, 0)
    assert {kind: count for kind, count in counted.items() if count and kind not in NO_EVENTS} == told


class Invariants:
    """All that can be told from one call. Numbers 7 and 9 take several calls: the machine makes them."""

    def __init__(self) -> None:
        self.stream = StreamTellsAll()
        self._checks: tuple[Callable[[Step], None], ...] = (
            the_limit_holds,
            the_sets_match_the_records,
            no_place_idles,
            first_come_first_served,
            no_position_grows,
            refusals_change_nothing,
            nobody_is_let_in_twice,
            the_tallies_count_the_events,
            FencesRise(),
            self.stream,
        )

    def check(self, before: Seen, answer: Answer, *, is_refused: bool, ran_the_pump: bool) -> None:
        step = Step(of_redis(before), of_redis(answer.seen), answer, is_refused, ran_the_pump, before.tallies)
        for check in self._checks:
            check(step)
