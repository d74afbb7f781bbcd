"""The interview object: a session's standing towards the limit of its pool."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

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
    """Why a claim was denied (`at_capacity`, `line_full`, `closed`, `elsewhere`, `ended`), or why there is no permit.

    `elsewhere`: another session of the same person has the permit or the place, and `takeover` would bring it here.
    """

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

    state: Annotated[InterviewState, msgspec.Meta(description="Where the session stands.")]
    message: Annotated[
        str, msgspec.Meta(description="A sentence for the participant, in the session's language.")
    ]
    reason: Annotated[Reason | None, msgspec.Meta(description="Why it was denied, or why there is none.")] = (
        None
    )
    fence: Annotated[
        int | None, msgspec.Meta(description="With `granted`: the permit's number, which only rises.")
    ] = None
    position: Annotated[
        int | None,
        msgspec.Meta(description="With `waiting` and `offered`: the place in the whole line, from 1."),
    ] = None
    waiting: Annotated[int | None, msgspec.Meta(description="How long the line is.")] = None
    eta_s: Annotated[
        float | None,
        msgspec.Meta(description="The wait, as likely shorter as longer; none if too little is known."),
    ] = None
    eta_max_s: Annotated[
        float | None, msgspec.Meta(description="In nine cases of ten the wait is shorter than this.")
    ] = None
    eta_reason: Annotated[
        EtaReason | None, msgspec.Meta(description="Why the wait has grown, or none is shown any more.")
    ] = None
    offer_expires_in_s: Annotated[
        float | None, msgspec.Meta(description="With `offered`: accept within this time.")
    ] = None
    ends_in_s: Annotated[
        float | None,
        msgspec.Meta(description="With `granted`: how long it may still last, if there is a limit."),
    ] = None


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
