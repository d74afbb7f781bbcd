"""Brings what happened in the pools to the connections of this node."""

from __future__ import annotations

from server.domain.events import Event, EventType
from server.live.verbs import Snapshot
from server.node.hub import Hub

_MOVES_THE_LINE = {
    EventType.WAITING,
    EventType.OFFERED,
    EventType.OFFER_MISSED,
    EventType.GRANTED,
    EventType.LEFT_LINE,
    EventType.COMPLETED,
    EventType.ABANDONED,
    EventType.KICKED,
}


class Fanout:
    """What the follower calls: each in the order of the stream, without waiting."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def on_event(self, name: str, event: Event) -> None:
        """Tell the session's connection first, and all who watch the pool soon."""
        pool = self._hub.pool(name)
        pool.last_seq = event.seq
        if event.session_id is not None and (member := pool.members.get(event.session_id)) is not None:
            member.hear(event)
        pool.line_moved = pool.line_moved or event.type in _MOVES_THE_LINE
        pool.config_changed = pool.config_changed or event.type is EventType.POOL_CHANGED
        pool.changed.set()

    def on_resync(self, name: str, snapshot: Snapshot) -> None:
        """Events were missed: compare each member with how the pool stands."""
        pool = self._hub.pool(name)
        pool.last_seq = snapshot.state.seq
        waiting = set(snapshot.line)
        for session_id, member in list(pool.members.items()):
            member.compare(snapshot.holders.get(session_id), waits=session_id in waiting)
        pool.line_moved = pool.config_changed = True
        pool.changed.set()
