"""The port through which the flusher takes and acks what has changed. The live store implements it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from persistence.rows import PoolRow, PresenceRow


@dataclass(slots=True, frozen=True)
class Backlog:
    """What waits to be written: how many sessions, and since when the oldest (0 when none)."""

    sessions: int
    oldest_age_ms: int


class Outcome(NamedTuple):
    """What became of a row that was taken: written, or refused because the table holds another state.

    `refused_by` is the version found in the table when it refused the row as old, else None. `final` says
    that the table holds this stay, or a later one of the same session, as completed, which nothing may undo.
    """

    session_id: str
    version: int
    last_seen_ms: int
    refused_by: int | None = None
    final: bool = False


class DirtySessions(Protocol):
    """Where changed sessions are taken from, and acked to once their rows are committed.

    Every method raises `persistence.errors.SourceAwayError` when the live state does not answer.
    """

    async def pools(self) -> Sequence[PoolRow]:
        """All pools with their present limit and mode."""

    async def lease(self, pool: str, holder: str, ttl_ms: int) -> bool:
        """Take or renew the flush lease of a pool; False while another holder has it."""

    async def release_lease(self, pool: str, holder: str) -> None:
        """Give the lease back, if it is still this holder's."""

    async def touch(self, pool: str) -> None:
        """Bring `last_seen` of everyone present or in permit grace up to date, and mark them dirty."""

    async def take(self, pool: str, limit: int, skip: int = 0) -> Sequence[PresenceRow]:
        """Up to `limit` dirty sessions with their state, the longest dirty first. None: all are clean.

        They stay dirty until acked; `skip` passes over those that are dirty longest.
        """

    async def ack(self, pool: str, outcomes: Sequence[Outcome]) -> None:
        """Confirm rows after commit. A session changed in between stays dirty; an ended one is forgotten.

        A refused row is dropped only if a newer write of the same session is the reason; otherwise the
        session's version is raised above `refused_by` and it stays dirty.
        """

    async def backlog(self, pool: str) -> Backlog:
        """How much waits to be written."""

    async def known(self, pool: str, session_ids: Sequence[str]) -> Collection[str]:
        """Those of `session_ids` that the live state has a record of; none if it has no such pool."""
