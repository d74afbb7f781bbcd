"""When a waiter is told its position and wait: the front of the line each second, the others as it pays; pure."""

from __future__ import annotations

from server.domain.interview import Interview

FRONT = 50
OTHERS_EVERY_S = 10.0
MOVED_BY = 0.05

Told = tuple[object, ...]


def told_of(interview: Interview) -> Told:
    """What of a waiter's interview object changes as time goes by."""
    return interview.position, interview.eta_s, interview.eta_max_s, interview.eta_reason


def is_due(position: int, told: int | None, since_told_s: float) -> bool:
    """Whether the browser that was told the position `told` that long ago is to be told anew, if anything changed."""
    if told is None or position <= FRONT:
        return True
    return since_told_s >= OTHERS_EVERY_S or abs(told - position) >= MOVED_BY * told
