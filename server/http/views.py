"""A session as the outside sees it, whether it is live in Redis or history in Postgres."""

from __future__ import annotations

from typing import Any

import msgspec

from persistence.rows import PresenceRow
from server.domain.interview import Admission, Interview, InterviewState, Reason, interview
from server.domain.sentences import Sentences
from server.domain.session import ConnectionKind, EndReason, SessionRecord, Status
from server.domain.times import Moment, iso
from server.live.verbs import Seen
from server.node.node import Node

# How an ended session stands towards the limit, where Redis does not say so any more.
_STANDING = {EndReason.COMPLETED: Reason.COMPLETED, EndReason.KICKED: Reason.KICKED}


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """One session: the columns of the `presence` table, whether it is here, and its interview. Times are ISO 8601."""

    session_id: str
    user_id: str
    pool: str
    status: Status
    language_code: str | None
    current_page: str | None
    started_at: Moment
    last_seen: Moment
    completed_at: Moment | None
    is_in_interview: bool
    interview_started_at: Moment | None
    interview_ended_at: Moment | None
    waited_s: float | None
    end_reason: EndReason | None
    metadata: dict[str, Any]
    version: int
    online: bool
    connection: ConnectionKind | None
    visible: bool | None
    interview: Interview


def interview_view(node: Node, record: SessionRecord, admission: Admission) -> Interview:
    """The interview object of a session, its message in the participant's language."""
    return node.interview(record.pool, record.session_id, admission, record.language_code)


def live_view(node: Node, seen: Seen) -> SessionView:
    """The view of a session in Redis."""
    shown = interview_view(node, seen.record, seen.admission)
    return _view(seen.record, shown, online=seen.online)


def past_view(row: PresenceRow, sentences: Sentences) -> SessionView:
    """The view of a session that only Postgres knows."""
    record = record_of(row)
    reason = None if record.end_reason is None else _STANDING.get(record.end_reason, Reason.EXPIRED)
    admission = Admission(InterviewState.NONE, reason)
    shown = interview(admission, sentences.for_admission(admission, record.language_code))
    return _view(record, shown, online=False)


def record_of(row: PresenceRow) -> SessionRecord:
    """A row as a record. What an operator wrote by hand into `end_reason` is not repeated."""
    known = row.end_reason in set(EndReason)
    return SessionRecord(
        session_id=row.session_id,
        user_id=row.user_id,
        pool=row.pool,
        status=Status(row.status),
        started_at=row.started_at_ms,
        last_seen=row.last_seen_ms,
        version=row.version,
        is_in_interview=row.is_in_interview,
        language_code=row.language_code,
        current_page=row.current_page,
        completed_at=row.completed_at_ms,
        interview_started_at=row.interview_started_at_ms,
        interview_ended_at=row.interview_ended_at_ms,
        waited_s=row.waited_s,
        end_reason=EndReason(row.end_reason) if known and row.end_reason else None,
        metadata=row.metadata,
    )


def _view(record: SessionRecord, shown: Interview, *, online: bool) -> SessionView:
    return SessionView(
        session_id=record.session_id,
        user_id=record.user_id,
        pool=record.pool,
        status=record.status,
        language_code=record.language_code,
        current_page=record.current_page,
        started_at=iso(record.started_at),
        last_seen=iso(record.last_seen),
        completed_at=_iso(record.completed_at),
        is_in_interview=record.is_in_interview,
        interview_started_at=_iso(record.interview_started_at),
        interview_ended_at=_iso(record.interview_ended_at),
        waited_s=record.waited_s,
        end_reason=record.end_reason,
        metadata=msgspec.json.decode(record.metadata or "{}"),
        version=record.version,
        online=online,
        connection=record.connection,
        visible=record.visible,
        interview=shown,
    )


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)
