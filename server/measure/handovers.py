"""How long a free place takes to reach the next in line, told from a pool's events alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from server.domain.events import Event, EventType

MOST_FREE_PLACES = 1000

# By these a session gives up whatever it has or waits for.
_LOSES = {
    EventType.RELEASED,
    EventType.LEFT_LINE,
    EventType.COMPLETED,
    EventType.ABANDONED,
    EventType.KICKED,
}


class HandOvers:
    """Follows one pool. All times are ms by Redis's wall clock.

    A hand-over is an offer, or a grant without one, to somebody who stood in the line. It begins when the place became
    free, or when they joined or came back to the line, whichever was later. Who sat out a missed offer is not counted:
    no event says when they showed life.
    """

    def __init__(self) -> None:
        # Since when each waiter could have been let in; None: not known.
        self._line: dict[str, int | None] = {}
        self._offered: set[str] = set()
        self._granted: set[str] = set()
        # The newest is taken first: with somebody ready it goes on in the very same script.
        self._free: deque[int] = deque(maxlen=MOST_FREE_PLACES)
        self._since = 0

    def begin(self, *, line: Iterable[str], offered: Iterable[str], granted: Iterable[str], at: int) -> None:
        """The pool stands like this; what was before is not known."""
        self._line = dict.fromkeys(line, at)
        self._offered, self._granted = set(offered), set(granted)
        self._free.clear()
        self._since = at

    def note(self, event: Event) -> int | None:
        """Take the next event; for a hand-over: how many ms it took until Redis decided it."""
        who = event.session_id or ""
        if event.type is EventType.OFFERED or event.type is EventType.GRANTED:
            return self._give(event, who)
        if event.type is EventType.POOL_CHANGED:
            # Another limit or mode may have made places, or unmade them.
            self._free.clear()
            self._since = event.at
        elif event.type is EventType.TAKEN_OVER:
            self._take_back(who)
        elif event.type is EventType.OFFER_MISSED or event.type in _LOSES:
            if self._take_back(who):
                self._free.append(event.at)
            if event.type is EventType.OFFER_MISSED:
                self._line[who] = None
        elif event.type is EventType.WAITING or (
            event.type is EventType.CONNECTED and self._line.get(who) is not None
        ):
            self._line[who] = event.at
        return None

    def _give(self, event: Event, who: str) -> int | None:
        waited, since = who in self._line, self._line.get(who)
        has_it = self._take_back(who)
        (self._offered if event.type is EventType.OFFERED else self._granted).add(who)
        if has_it or event.cause is not None:
            return None  # it was offered before, or another session of the same user had it
        freed = self._free.pop() if self._free else self._since
        return max(0, event.at - max(freed, since)) if waited and since is not None else None

    def _take_back(self, who: str) -> bool:
        """Whether it had a place. Now it has none, and waits for none."""
        had = who in self._offered or who in self._granted
        self._offered.discard(who)
        self._granted.discard(who)
        self._line.pop(who, None)
        return had
