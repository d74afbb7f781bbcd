"""When a waiter is told its position: the front of the line each second, the others as it pays; pure."""

from __future__ import annotations

FRONT = 50
OTHERS_EVERY_S = 10.0
MOVED_BY = 0.05


def is_due(position: int, told: int | None, since_told_s: float) -> bool:
    """Whether the browser that was told the position `told` that long ago is to be told `position`."""
    if position == told:
        return False
    if told is None or position <= FRONT:
        return True
    return since_told_s >= OTHERS_EVERY_S or abs(told - position) >= MOVED_BY * told
