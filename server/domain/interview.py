"""The interview object: a session's standing towards the limit of its pool."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from server.domain.eta import EtaReason, Shown


class InterviewState(StrEnum):
    """Where a session stands. `denied` is an answer to a claim only and is never stored."""

    NONE = "none"
    WAITING = "waiting"
    OFFERED = "offered"
    GRANTED = "granted"
    DENIED = "denied"


class Reason(StrEnum):
    """Why a claim was denied (the first five) or why there is no permit any more."""

    AT_CAPACITY = "at_capacity"
    LINE_FULL = "line_full"
    CLOSED = "closed"
    ELSEWHERE = "elsewhere"
    ENDED = "ended"

    EXPIRED = "expired"
    RELEASED = "released"
    COMPLETED = "completed"
    KICKED = "kicked"
    MAX_LENGTH = "max_length"
    TAKEN_OVER = "taken_over"


class Admission(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the store says of a session's standing; `Interview` is this with a sentence for the participant.

    `position` counts the whole line from 1; `waiting` is the length of the line. The sentence is in `language_code`.
    """

    state: InterviewState
    reason: Reason | None = None
    fence: int | None = None
    position: int | None = None
    waiting: int | None = None
    ticket: int | None = None
    offer_expires_in_ms: int | None = None
    ends_in_ms: int | None = None
    language_code: str | None = None


class Interview(msgspec.Struct, frozen=True, omit_defaults=True):
    """The interview object of the HTTP API and the WebSocket protocol."""

    state: InterviewState
    message: str
    reason: Reason | None = None
    fence: int | None = None
    position: int | None = None
    waiting: int | None = None
    eta_s: float | None = None
    eta_max_s: float | None = None
    eta_reason: EtaReason | None = None
    offer_expires_in_s: float | None = None
    ends_in_s: float | None = None


def interview(admission: Admission, message: str, shown: Shown | None = None) -> Interview:
    """The interview object for `admission`, with the participant's `message` and the wait that a waiter is shown."""
    eta, reason = (None, None) if shown is None else (shown.eta, shown.reason)
    return Interview(
        state=admission.state,
        message=message,
        reason=admission.reason,
        fence=admission.fence,
        position=admission.position,
        waiting=admission.waiting,
        eta_s=None if eta is None else whole(eta.eta_s),
        eta_max_s=None if eta is None else whole(eta.eta_max_s),
        eta_reason=reason,
        offer_expires_in_s=_seconds(admission.offer_expires_in_ms),
        ends_in_s=_seconds(admission.ends_in_ms),
    )


def whole(seconds: float) -> float:
    """A wait as people are told it: fractions of a second would only tremble."""
    return float(round(seconds))


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
