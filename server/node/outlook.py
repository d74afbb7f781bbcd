"""What a node knows of a pool's line: who is where, and how long each will wait. No I/O; clocks are passed in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from server.domain.eta import Circumstances, Eta, Outlook, Shown, estimate, next_eta, show
from server.domain.interview import whole
from server.domain.pool import Mode, PoolConfig, PoolState
from server.live.verbs import Snapshot

# By how much a newcomer's wait must have changed for those who watch the capacity to be told.
NEWS_S = 5.0
NEWS_SHARE = 0.05


class Place(msgspec.Struct, frozen=True):
    """A waiter in the line: how many wait in front, and how many of these are ready."""

    in_front: int
    ahead: int


@dataclass(slots=True, eq=False)
class Line:
    """The line as of the latest snapshot, and the waits estimated from it; `length` counts offers too.

    What was shown of a wait is remembered here, for as long as the session waits, so that whoever asks in whichever way
    is told the same.
    """

    length: int = 0
    _snapshot: Snapshot | None = None
    _config: PoolConfig = field(default_factory=PoolConfig)
    _taken_at: float = 0.0
    _places: dict[str, Place] = field(default_factory=dict)
    _etas: Sequence[Eta] = ()
    _newcomer: Eta | None = None
    _told_newcomer: Eta | None = None
    _shown: dict[str, Shown] = field(default_factory=dict)

    def take(self, snapshot: Snapshot, config: PoolConfig, now: float) -> None:
        """Learn how the pool stands at `now`."""
        self._snapshot, self._config, self._taken_at = snapshot, config, now
        self._places = dict(_places(snapshot))
        self._shown = {who: shown for who, shown in self._shown.items() if who in self._places}
        self.length = len(snapshot.line) + len(snapshot.offers)
        self.estimate(now)

    def estimate(self, now: float) -> None:
        """Estimate the waits at `now`: since the snapshot the running interviews have become older."""
        if self._snapshot is not None:
            outlook = self._outlook(self._snapshot, now)
            self._etas = estimate(outlook)
            self._newcomer = next_eta(outlook, self._etas)

    def _outlook(self, snapshot: Snapshot, now: float) -> Outlook:
        at_ms = snapshot.state.at + (now - self._taken_at) * 1000
        return Outlook(
            ages_s=[(at_ms - holder.since) / 1000 for holder in snapshot.holders.values()],
            lengths_s=[length / 1000 for length in snapshot.lengths],
            limit=snapshot.state.limit,
            ready=len(snapshot.ready),
            offered=len(snapshot.offers),
            max_interview_s=self._config.max_interview_s,
            mode=snapshot.state.mode,
        )

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest one."""
        return self._snapshot

    @property
    def waits(self) -> bool:
        """Whether anybody waits, or has an offer."""
        return self.length > 0

    def position(self, session_id: str, ticket: int | None) -> int | None:
        """The position of a waiter with this ticket; None if it was not in the line yet."""
        place = self._places.get(session_id)
        if place is None or self._snapshot is None:
            return None
        tickets = self._snapshot.offer_tickets
        offered = len(tickets) if ticket is None else bisect_left(tickets, ticket)
        return place.in_front + offered + 1

    def waiters(self) -> Iterator[str]:
        """Who waits, in order."""
        return iter(self._places)

    def wait_of(self, session_id: str) -> Shown | None:
        """What a waiter is to be shown of the wait; nothing yet to who came after the snapshot."""
        snapshot, place = self._snapshot, self._places.get(session_id)
        if snapshot is None or place is None:
            return None
        eta = self._etas[place.ahead] if self._etas else None
        circumstances = Circumstances(snapshot.state.limit, place.ahead, snapshot.state.mode)
        shown = self._shown[session_id] = show(eta, circumstances, self._shown.get(session_id))
        return shown

    def newcomers_wait(self, state: PoolState) -> tuple[float | None, float | None]:
        """Median and bound of what a newcomer would wait, for the capacity of a pool in this `state`."""
        eta = self._newcomer
        is_free = state.available > 0 and state.waiting == 0 and state.mode is Mode.OPEN
        if is_free:
            return 0.0, 0.0
        # The estimate may be from before the last place was taken.
        if eta is None or eta.eta_max_s == 0:
            return None, None
        return whole(eta.eta_s), whole(eta.eta_max_s)

    def is_news(self) -> bool:
        """Whether a newcomer's wait is another by now than those who watch were told."""
        told, now = self._told_newcomer, self._newcomer
        if told is None or now is None:
            return told is not now
        return abs(now.eta_s - told.eta_s) > max(NEWS_S, NEWS_SHARE * told.eta_s)

    def note_told(self) -> None:
        """Those who watch were told the newcomer's wait."""
        self._told_newcomer = self._newcomer


def _places(snapshot: Snapshot) -> Iterator[tuple[str, Place]]:
    ready = 0
    for in_front, session_id in enumerate(snapshot.line):
        yield session_id, Place(in_front, ready)
        ready += session_id in snapshot.ready
