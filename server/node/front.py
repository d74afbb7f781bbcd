"""Who is in and the front of the line, for those who watch over a pool: who, since when, and how long it will take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec

from server.domain.errors import SessionEndedError, UnknownSessionError
from server.domain.interview import InterviewState, whole
from server.domain.times import iso
from server.live.store import Store
from server.live.verbs import Look, Snapshot
from server.node.frames import message
from server.node.outlook import Line

MOST = 200


class Waiter(msgspec.Struct, frozen=True):
    """One in the line, or with an offer. `ready`: would be let in now; `since` is ISO 8601 UTC; null: not known."""

    session_id: str
    user_id: str
    state: InterviewState
    position: int
    ready: bool
    since: str | None
    eta_s: float | None
    eta_max_s: float | None


class Interviewee(msgspec.Struct, frozen=True):
    """One who holds a permit, also in the grace; `since` is ISO 8601 UTC."""

    session_id: str
    user_id: str
    since: str


class Front(msgspec.Struct, frozen=True):
    """The first 200 of a line, in the order in which their positions count; `waiting` and `offered` are of all.

    `interviews`: 200 of those who are in, who is in for longest first.
    """

    pool: str
    waiting: int
    offered: int
    sessions: list[Waiter]
    interviews: list[Interviewee]


class _Name(msgspec.Struct, frozen=True):
    """What a snapshot does not say of a session."""

    user_id: str
    since: int | None


class Fronts:
    """Makes the message of the line from the node's snapshots; each waiter's name is read once."""

    def __init__(self, store: Store, pool: str) -> None:
        self._store = store
        self._pool = pool
        self._names: dict[str, _Name] = {}

    def forget(self, session_id: str) -> None:
        """The session joins the line, perhaps anew: since when is to be read."""
        self._names.pop(session_id, None)

    async def frame(self, line: Line) -> bytes | None:
        """The message as of the node's latest snapshot; None before the first. RedisAwayError and its kin."""
        snapshot = line.snapshot
        if snapshot is None:
            return None
        front = [*snapshot.offers, *snapshot.line][:MOST]
        holders = sorted(snapshot.holders, key=lambda who: snapshot.holders[who].since)[:MOST]
        shown = [*front, *holders]
        self._names = {who: self._names[who] for who in shown if who in self._names}
        await self._read_names([who for who in shown if who not in self._names])
        return message(
            "line",
            Front(
                self._pool,
                len(snapshot.line),
                len(snapshot.offers),
                list(self._waiters(front, snapshot, line)),
                [
                    Interviewee(who, self._names[who].user_id, iso(snapshot.holders[who].since))
                    for who in holders
                    if who in self._names
                ],
            ),
        )

    def _waiters(self, front: Iterable[str], snapshot: Snapshot, line: Line) -> Iterator[Waiter]:
        offered = frozenset(snapshot.offers)
        for position, session_id in enumerate(front, start=1):
            if (name := self._names.get(session_id)) is None:
                continue  # it ended since
            shown = line.wait_of(session_id)
            eta = None if shown is None else shown.eta
            yield Waiter(
                session_id=session_id,
                user_id=name.user_id,
                state=InterviewState.OFFERED if session_id in offered else InterviewState.WAITING,
                position=position,
                ready=session_id in offered or session_id in snapshot.ready,
                since=None if name.since is None else iso(name.since),
                eta_s=None if eta is None else whole(eta.eta_s),
                eta_max_s=None if eta is None else whole(eta.eta_max_s),
            )

    async def _read_names(self, session_ids: list[str]) -> None:
        looks = (self._store.look(self._pool, Look(session_id=session_id)) for session_id in session_ids)
        for session_id, seen in zip(
            session_ids, await asyncio.gather(*looks, return_exceptions=True), strict=True
        ):
            if isinstance(seen, UnknownSessionError | SessionEndedError):
                continue
            if isinstance(seen, BaseException):
                raise seen
            self._names[session_id] = _Name(seen.record.user_id, seen.record.waiting_since)
