"""Rows to write, and a model of the live state in memory for the tests of the flusher.

The model follows `persistence.port.DirtySessions` to the letter, but for the lease's time to live (a lease is held
until it is given back) and Redis itself; the tests of the real implementation are beside those of the store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from persistence.errors import SourceAwayError
from persistence.lines import line_of
from persistence.port import ALL_WRITTEN, FROM_THE_START, Backlog, Refusal, Taken, Touched, Written
from persistence.rows import PoolRow, PresenceRow

START_MS = 1_700_000_000_000


def row(session_id: str = "s1", **changes: object) -> PresenceRow:
    """An active session that started at START_MS and was seen then."""
    first = PresenceRow(
        session_id=session_id,
        user_id="anna",
        pool="main",
        status="active",
        version=1,
        started_at_ms=START_MS,
        last_seen_ms=START_MS,
        is_in_interview=False,
    )
    return first._replace(**changes)  # type: ignore[arg-type]


def lines(rows: Iterable[PresenceRow]) -> list[str]:
    """The rows as the live state gives them."""
    return [line_of(each) for each in rows]


def ended(session_id: str = "s1", status: str = "completed", **changes: object) -> PresenceRow:
    """The same session after its end, a minute later."""
    at = {"last_seen_ms": START_MS + 60_000, "completed_at_ms": START_MS + 60_000}
    return row(session_id, **{"status": status, "version": 9, "end_reason": status, **at, **changes})


@dataclass
class LiveModel:
    """The live state of some pools: sessions, which of them are dirty, and who has the lease."""

    limits: dict[str, int] = field(default_factory=lambda: {"main": 3})
    sessions: dict[str, PresenceRow] = field(default_factory=dict)
    dirty: dict[str, int] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    leases: dict[str, str] = field(default_factory=dict)
    now_ms: int = START_MS
    away: bool = False
    acked: list[str] = field(default_factory=list)
    acked_touches: list[str] = field(default_factory=list)
    touched: dict[str, list[str]] = field(default_factory=dict)
    lose_acks: int = 0
    _changes: dict[str, int] = field(default_factory=dict)
    _receipts: dict[bytes, dict[str, int]] = field(default_factory=dict)
    _names: Iterator[int] = field(default_factory=count)

    def change(self, changed: PresenceRow) -> None:
        """A script changes a session: its version rises and it is dirty."""
        before = self.sessions.get(changed.session_id)
        version = max(before.version + 1 if before else 1, changed.version)
        self.sessions[changed.session_id] = changed._replace(version=version)
        self._mark(changed.session_id)

    def _mark(self, session_id: str) -> None:
        self.dirty.setdefault(session_id, self.now_ms)
        self._changes[session_id] = next(self._names)

    def _answer(self) -> None:
        if self.away:
            raise SourceAwayError("the live state does not answer")

    def _of(self, pool: str) -> list[PresenceRow]:
        return [self.sessions[sid] for sid in self.dirty if self.sessions[sid].pool == pool]

    def _may_lose_ack(self) -> None:
        if self.lose_acks:
            self.lose_acks -= 1
            raise SourceAwayError("gone before the ack arrived")

    async def pools(self) -> Sequence[PoolRow]:
        self._answer()
        return [PoolRow(pool, limit, "open") for pool, limit in self.limits.items()]

    async def lease(self, pool: str, holder: str, ttl_ms: int) -> bool:
        self._answer()
        return self.leases.setdefault(pool, holder) == holder

    async def release_lease(self, pool: str, holder: str) -> None:
        self._answer()
        if self.leases.get(pool) == holder:
            del self.leases[pool]

    async def touch(self, pool: str, limit: int, cursor: int = FROM_THE_START) -> Touched:
        self._answer()
        if cursor == FROM_THE_START:
            self._mark_what_was_left()
        here = [s for s in self.sessions.values() if s.pool == pool and self._is_here(s)]
        first = max(cursor, 0)
        part = [s for s in here[first : first + limit] if s.session_id not in self.dirty]
        for session in part:
            self.sessions[session.session_id] = session._replace(last_seen_ms=self.now_ms)
        clean = [(s.session_id, s.version) for s in part]
        name = f"part {next(self._names)}"
        self.touched[name] = [session_id for session_id, _ in clean]
        session_ids, versions = zip(*clean, strict=True) if clean else ((), ())
        after = first + limit if first + limit < len(here) else None
        return Touched([name], session_ids, versions, [self.now_ms] * len(clean), after)

    def _is_here(self, session: PresenceRow) -> bool:
        return session.status == "active" and session.session_id not in self.absent

    def _mark_what_was_left(self) -> None:
        for session_ids in self.touched.values():
            for session_id in self.sessions.keys() & session_ids:
                self._mark(session_id)
        self.touched.clear()

    async def ack_touch(self, pool: str, touched: Touched, missed: Sequence[str]) -> None:
        self._answer()
        self._may_lose_ack()
        self.acked_touches += [session_id for session_id in touched.session_ids if session_id not in missed]
        for session_id in self.sessions.keys() & missed:
            self._mark(session_id)
        for part in touched.parts:
            self.touched.pop(part, None)

    async def take(self, pool: str, limit: int, skip: int = 0) -> Taken:
        self._answer()
        longest = sorted(self._of(pool), key=lambda session: self.dirty[session.session_id])
        found = longest[skip : skip + limit]
        receipt = str(next(self._names)).encode()
        self._receipts[receipt] = {each.session_id: self._changes[each.session_id] for each in found}
        return Taken(lines(found), [receipt])

    async def ack(self, pool: str, taken: Taken, written: Written = ALL_WRITTEN) -> None:
        self._answer()
        self._may_lose_ack()
        uncommitted = {*written.left_out, *(refusal.session_id for refusal in written.refused)}
        for session_id, change in self._receipt(taken):
            if session_id not in uncommitted:
                self.acked.append(session_id)
            if session_id not in uncommitted and self._changes.get(session_id) == change:
                self._clean(session_id)
        for refusal in written.refused:
            self._refuse(refusal)

    def _receipt(self, taken: Taken) -> Iterator[tuple[str, int]]:
        for receipt in taken.receipts:
            yield from self._receipts[receipt].items()

    def _clean(self, session_id: str) -> None:
        self.dirty.pop(session_id, None)
        if session_id in self.sessions and self.sessions[session_id].status != "active":
            del self.sessions[session_id]

    def _refuse(self, refusal: Refusal) -> None:
        session = self.sessions.get(refusal.session_id)
        if session is None:
            self.dirty.pop(refusal.session_id, None)
        elif refusal.final and refusal.version == session.version:
            self.sessions[session.session_id] = session._replace(status="completed")
            self._clean(session.session_id)
        elif refusal.refused_by is not None and refusal.refused_by > session.version:
            self.sessions[session.session_id] = session._replace(version=refusal.refused_by + 1)
            self._mark(session.session_id)
        elif (refusal.version, refusal.last_seen_ms) == (session.version, session.last_seen_ms):
            self._clean(session.session_id)

    async def backlog(self, pool: str) -> Backlog:
        self._answer()
        since = [self.dirty[session.session_id] for session in self._of(pool)]
        return Backlog(len(since), self.now_ms - min(since, default=self.now_ms))

    async def known(self, pool: str, session_ids: Sequence[str]) -> Collection[str]:
        self._answer()
        return {sid for sid in session_ids if sid in self.sessions and self.sessions[sid].pool == pool}
