"""Times what the pools' events tell: how late they come, and how long a free place takes to reach the next in line."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from server.domain.events import Event
from server.domain.pool import PoolState
from server.live.verbs import Snapshot
from server.measure.handovers import HandOvers
from server.measure.measured import Admissions
from server.measure.redis_clock import RedisClock
from server.node.hub import Hub


@dataclass(slots=True)
class _Pool:
    clock: RedisClock = field(default_factory=RedisClock)
    handovers: HandOvers = field(default_factory=HandOvers)


class Meter:
    """What the follower and the ticks call. A hand-over is counted by the node that holds the connection of who got
    the place, so once over all nodes."""

    def __init__(self, hub: Hub, admissions: Admissions) -> None:
        self._hub = hub
        self._lag = admissions.event_lag.at()
        self._handover = admissions.handover.at()
        self._resyncs = admissions.resyncs.at()
        self._ticks = admissions.ticks.at()
        self._pools: dict[str, _Pool] = {}

    def on_event(self, name: str, event: Event) -> None:
        """An event was read."""
        pool = self._pool(name)
        took_ms = pool.handovers.note(event)
        age_s = pool.clock.age_s(event.at, _now())
        if age_s is None:
            return
        self._lag.observe(age_s)
        if took_ms is not None and event.session_id in self._hub.pool(name).members:
            self._handover.observe(took_ms / 1000 + age_s)

    def on_resync(self, name: str, snapshot: Snapshot) -> None:
        """The pool was read anew."""
        self._resyncs.add()
        self._pool(name).handovers.begin(
            line=snapshot.line, offered=snapshot.offers, granted=snapshot.holders, at=snapshot.state.at
        )

    def on_tick(self, state: PoolState) -> None:
        """A tick was answered just now."""
        self._ticks.add()
        self._pool(state.pool).clock.saw(state.at, _now())

    def _pool(self, name: str) -> _Pool:
        found = self._pools.get(name)
        if found is None:
            found = self._pools[name] = _Pool()
        return found


def _now() -> float:
    return asyncio.get_running_loop().time()
