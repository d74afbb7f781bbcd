"""The same view of a session from both sides, so that Redis and the model can be compared field by field."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.live import Seen
from tests.model.pool import ModelPool, Session


@dataclass(frozen=True)
class View:
    """What decides about a session; times in ms of the `now` clock."""

    state: str
    reason: str | None = None
    fence: int | None = None
    ticket: int | None = None
    offer_ends_at: int | None = None
    ends_at: int | None = None
    waited_ms: int | None = None
    sits_out: bool = False
    front_until: int | None = None
    deadline: int | None = None
    lost_at: int | None = None
    connection: str | None = None
    connection_id: int | None = None
    ended: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.state == "waiting" and self.lost_at is None and not self.sits_out

    @property
    def holds_place(self) -> bool:
        return self.state in ("granted", "offered")


Views = dict[str, View]


def of_model(pool: ModelPool) -> Views:
    return {session_id: _of_session(session) for session_id, session in pool.sessions.items()}


def _of_session(session: Session) -> View:
    if session.ended is not None:
        return View(state="none", ended=session.ended)
    return View(
        state=session.state,
        reason=session.reason,
        fence=session.fence,
        ticket=session.ticket,
        offer_ends_at=session.offer_ends_at,
        ends_at=session.ends_at,
        waited_ms=session.waited_ms,
        sits_out=session.sits_out,
        front_until=session.front_until,
        deadline=session.deadline,
        lost_at=session.lost_at,
        connection=session.connection,
        connection_id=session.connection_id,
    )


def of_redis(seen: Seen) -> Views:
    views = {session_id: View(state="none", ended=reason) for session_id, reason in seen.tombstones.items()}
    for session_id, record in seen.records.items():
        if record["status"] == "active":
            views[session_id] = _of_record(record, seen.sets["online"].get(session_id))
        else:
            views[session_id] = View(state="none", ended=record["end_reason"])
    return views


def _of_record(record: dict[str, str], deadline: float | None) -> View:
    def number(field: str) -> int | None:
        return int(record[field]) if field in record else None

    return View(
        state=record["interview_state"],
        reason=record.get("reason"),
        fence=number("fence"),
        ticket=number("ticket"),
        offer_ends_at=number("offer_ends_at"),
        ends_at=number("ends_at"),
        waited_ms=round(float(record["waited_s"]) * 1000) if "waited_s" in record else None,
        sits_out="sits_out" in record,
        front_until=number("front_until"),
        deadline=None if deadline is None else int(deadline),
        lost_at=number("lost_at"),
        connection=record.get("connection"),
        connection_id=number("connection_id"),
    )


def differences(expected: Views, found: Views) -> dict[str, dict[str, tuple[object, object]]]:
    """Per session and field what was expected and what was found."""
    told = {}
    for session_id in sorted(expected.keys() | found.keys()):
        old, new = expected.get(session_id), found.get(session_id)
        if old != new:
            names = View.__dataclass_fields__
            told[session_id] = {
                name: (getattr(old, name, None), getattr(new, name, None))
                for name in names
                if getattr(old, name, None) != getattr(new, name, None)
            }
    return told


def queue(views: Views) -> list[str]:
    """The sessions with a ticket, offers included, in the order of their tickets."""
    waiting = [(view.ticket or 0, sid) for sid, view in views.items() if view.state in ("waiting", "offered")]
    return [session_id for _, session_id in sorted(waiting)]
