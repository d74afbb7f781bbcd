"""Brings what happened in the pools to the connections of this node."""

from __future__ import annotations

from server.domain.events import Event, EventType
from server.domain.interview import InterviewState
from server.live.verbs import Snapshot
from server.node.hub import Hub, LocalPool, is_newer

_MOVES_THE_LINE = {
    EventType.WAITING,
    EventType.OFFERED,
    EventType.OFFER_MISSED,
    EventType.GRANTED,
    EventType.RELEASED,
    EventType.TAKEN_OVER,
    EventType.LEFT_LINE,
    EventType.COMPLETED,
    EventType.ABANDONED,
    EventType.KICKED,
    EventType.RECOVERY_ENDED,
}
# Who comes or goes may be ready for an offer now, or no longer.
_MOVES_WHO_IS_READY = {EventType.CONNECTED, EventType.DISCONNECTED, EventType.OFFLINE}
_ENDS = {EventType.COMPLETED, EventType.ABANDONED, EventType.KICKED}


class Fanout:
    """What the follower calls: each in the order of the stream, without waiting."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def on_event(self, name: str, event: Event) -> None:
        """Tell the session's connection first, and all who watch the pool soon."""
        pool = self._hub.pool(name)
        pool.last_seq = event.seq
        if event.session_id is not None:
            _tell(pool, event.session_id, event)
        moves_readiness = pool.line.waits and event.type in _MOVES_WHO_IS_READY
        pool.line_moved = pool.line_moved or moves_readiness or event.type in _MOVES_THE_LINE
        if event.type is EventType.POOL_CHANGED:
            _change(pool)
        pool.changed.set()

    def on_resync(self, name: str, snapshot: Snapshot) -> None:
        """Events were missed: compare each member with how the pool stands."""
        pool = self._hub.pool(name)
        pool.last_seq = snapshot.state.seq
        if pool.settled.is_set():
            _compare(pool, snapshot)
        _change(pool)
        pool.changed.set()


def _change(pool: LocalPool) -> None:
    pool.changes += 1
    pool.line_moved = True
    pool.wake.set()


def _tell(pool: LocalPool, session_id: str, event: Event) -> None:
    if (member := pool.members.get(session_id)) is not None:
        member.hear(event)
    if (held := pool.beating.get(session_id)) is None:
        return
    is_other = (
        event.type is EventType.CONNECTED
        and event.connection_id is not None
        and is_newer(event.connection_id, held.connection_id)
    )
    if event.type in _ENDS or is_other:
        del pool.beating[session_id]
    else:
        held.note(event)


def _compare(pool: LocalPool, snapshot: Snapshot) -> None:
    states = dict.fromkeys(snapshot.line, InterviewState.WAITING)
    states |= dict.fromkeys(snapshot.offers, InterviewState.OFFERED)
    states |= dict.fromkeys(snapshot.holders, InterviewState.GRANTED)
    for session_id, member in list(pool.members.items()):
        holder = snapshot.holders.get(session_id)
        fence = None if holder is None else holder.fence
        member.compare(states.get(session_id, InterviewState.NONE), fence)
