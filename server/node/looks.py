"""Looks at sessions that changed, for all who read along: once a change, and only if somebody wants it."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from server.domain.errors import PresenceError, SessionEndedError, UnknownSessionError
from server.domain.session import Status
from server.live.store import Store
from server.live.verbs import Look, Seen
from server.node.frames import message

LOOK_AGAIN_AFTER_S = 0.25
MOST_REMEMBERED = 5000
MOST_PER_S = 2000
AT_ONCE = 100

Show = Callable[[Seen], msgspec.Struct]


class Gone(msgspec.Struct, frozen=True):
    """Redis has this session no longer."""

    session_id: str


@dataclass(slots=True, eq=False)
class _Sight:
    """How a session looked last. `at`: when it was looked at (loop's clock); `is_stale`: something happened since."""

    at: float = -math.inf
    is_stale: bool = True
    has_ended: bool = False
    frame: bytes | None = None
    looking: asyncio.Task[None] | None = None


class Looks:
    """The sessions of one pool, as messages; those looked at last are remembered, 5,000 at most.

    Who reads slowly asks seldom, and is told the newest only: that is all the queue there is. However many sessions
    change, no more than 2,000 are looked at in a second.
    """

    def __init__(self, store: Store, pool: str, show: Show) -> None:
        self._store = store
        self._pool = pool
        self._show = show
        self._sights: OrderedDict[str, _Sight] = OrderedDict()
        self._busy_until = -math.inf

    def note_change(self, session_id: str) -> None:
        """Something happened to the session: what is remembered of it is out of date."""
        if (sight := self._sights.get(session_id)) is not None:
            sight.is_stale = True

    def due(self, session_id: str) -> float:
        """When `tell` may be asked of this session (loop's clock)."""
        sight = self._sights.get(session_id)
        if sight is not None and not sight.is_stale:
            return -math.inf
        again = -math.inf if sight is None else sight.at + LOOK_AGAIN_AFTER_S
        return max(again, self._busy_until - AT_ONCE / MOST_PER_S)

    async def tell(self, session_ids: Iterable[str]) -> dict[str, bytes]:
        """The messages of these sessions, none for one of which nothing new can be said.

        Those that could not be looked at now are due again soon, and missing here: ask `is_known`.
        """
        sights = {session_id: self._look(session_id) for session_id in session_ids}
        looking = [sight.looking for sight in sights.values() if sight.looking is not None]
        if looking:
            # Others may wait for the same ones: who is cancelled here cancels none.
            await asyncio.wait(looking)
        for task in looking:
            task.result()
        return {session_id: sight.frame for session_id, sight in sights.items() if sight.frame is not None}

    def is_known(self, session_id: str) -> bool:
        """Whether the last look succeeded and nothing happened since."""
        sight = self._sights.get(session_id)
        return sight is not None and not sight.is_stale

    def _look(self, session_id: str) -> _Sight:
        sight = self._sights.setdefault(session_id, _Sight())
        if sight.is_stale and sight.looking is None:
            now = asyncio.get_running_loop().time()
            self._busy_until = max(self._busy_until, now) + 1 / MOST_PER_S
            sight.at, sight.is_stale = now, False
            sight.looking = asyncio.create_task(self._read(session_id, sight), name=f"look {self._pool}")
            self._sights.move_to_end(session_id)
            self._forget_oldest()
        return sight

    async def _read(self, session_id: str, sight: _Sight) -> None:
        try:
            seen = await self._store.look(self._pool, Look(session_id=session_id))
            sight.frame = message("session", self._show(seen))
            sight.has_ended = seen.record.status is not Status.ACTIVE
        except (UnknownSessionError, SessionEndedError):
            # One that was shown as ended has merely been written to Postgres since.
            sight.frame = None if sight.has_ended else message("session_gone", Gone(session_id))
            sight.has_ended = True
        except PresenceError:
            sight.frame, sight.is_stale = None, True
        finally:
            sight.looking = None

    def _forget_oldest(self) -> None:
        while len(self._sights) > MOST_REMEMBERED:
            self._sights.popitem(last=False)
