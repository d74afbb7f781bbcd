"""How long a free place takes to reach the next in line, told from a pool's events alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from server.domain.events import Event, EventType

MOST_FREE_PLACES = 1000

_FREES = {EventType.RELEASED, EventType.OFFER_MISSED}
_LEAVES = {EventType.LEFT_LINE, EventType.TAKEN_OVER}


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
        # The newest is taken first: with somebody ready it goes on in the very same script.
        self._free: deque[int] = deque(maxlen=MOST_FREE_PLACES)
        self._since = 0

    def begin(self, line: Iterable[str], offered: Iterable[str], at: int) -> None:
        """The pool stands like this; what was before is not known."""
        self._line = dict.fromkeys(line, at)
        self._offered = set(offered)
        self._free.clear()
        self._since = at

    def note(self, event: Event) -> int | None:
        """Take the next event; for a hand-over: how many ms it took until Redis decided it."""
        who = event.session_id or ""
        if event.type is EventType.OFFERED or event.type is EventType.GRANTED:
            return self._given(event, who)
        if event.type in _FREES or (event.type is EventType.LEFT_LINE and who in self._offered):
            self._free.append(event.at)
        self._move(event, who)
        return None

    def _given(self, event: Event, who: str) -> int | None:
        accepts = who in self._offered
        self._offered.discard(who)
        waited = who in self._line
        since = self._line.pop(who, None)
        if event.type is EventType.OFFERED:
            self._offered.add(who)
        if accepts or event.cause is not None:
            return None  # it has the place already, or another session of the same user had it
        freed = self._free.pop() if self._free else self._since
        return max(0, event.at - max(freed, since)) if waited and since is not None else None

    def _move(self, event: Event, who: str) -> None:
        came_back = event.type is EventType.CONNECTED and self._line.get(who) is not None
        if event.type is EventType.WAITING or came_back:
            self._line[who] = event.at
        elif event.type is EventType.OFFER_MISSED:
            self._offered.discard(who)
            self._line[who] = None
        elif event.type in _LEAVES:
            self._offered.discard(who)
            self._line.pop(who, None)
        elif event.type is EventType.POOL_CHANGED:
            # Another limit or mode may have made places, or unmade them.
            self._free.clear()
            self._since = event.at
