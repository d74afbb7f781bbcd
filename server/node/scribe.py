"""Writes what happened in the pools to the log: each event once, however many nodes follow it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from server.domain.errors import PresenceError
from server.domain.events import Event, EventType
from server.live.lease import Lease
from server.live.store import Store

log = structlog.get_logger(__name__)

LEASE_S = 5.0
RENEW_EVERY_S = 1.5
GIVE_BACK_WITHIN_S = 0.5

# What thousands of pages do all day long; the others change who is in, who waits, or who has ended.
_CHATTER = frozenset(
    {
        EventType.SESSION_RESUMED,
        EventType.CONNECTED,
        EventType.DISCONNECTED,
        EventType.OFFLINE,
        EventType.GRACE,
        EventType.PAGE,
    }
)
# Not `user_id`, which may be a name or an address.
_TOLD = ("session_id", "fence", "ticket", "cause", "connection_id", "actor")


class Scribe:
    """Logs the events of the pools whose lease this node has: `debug` for what pages do all day, else `info`.

    After a node was killed another one goes on within LEASE_S; the stream itself has what came between.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mine: set[str] = set()

    def on_event(self, pool: str, event: Event) -> None:
        """Write the event, if it is this node's to write."""
        if pool in self._mine:
            write = log.debug if event.type in _CHATTER else log.info
            write(event.type.value, pool=pool, seq=event.seq, **_details(event))

    async def hold(self, pool: str) -> None:
        """Compete for the pool's lease until cancelled; then give it back."""
        lease = Lease(
            self._store.scripts, f"{self._store.keys(pool).prefix}scribe", self._store.node, LEASE_S
        )
        try:
            while True:
                # While Redis is away there are no events either.
                with suppress(PresenceError):
                    (self._mine.add if await lease.take() else self._mine.discard)(pool)
                await asyncio.sleep(RENEW_EVERY_S)
        finally:
            with suppress(PresenceError, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_WITHIN_S):
                    await lease.give_back()


def _details(event: Event) -> dict[str, object]:
    named = ((name, getattr(event, name)) for name in _TOLD)
    return {name: value for name, value in named if value is not None}
