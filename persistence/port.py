"""The port through which the flusher takes and acks what has changed. The live store implements it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from persistence.rows import PoolRow


@dataclass(slots=True, frozen=True)
class Backlog:
    """What waits to be written: how many sessions, and since when the oldest (0 when none)."""

    sessions: int
    oldest_age_ms: int


class Taken(NamedTuple):
    """The rows of dirty sessions, as `persistence.lines` has them, and by what is known later which changed since."""

    lines: Sequence[str]
    receipts: Sequence[bytes] = ()


class Refusal(NamedTuple):
    """A row that the table refused because it holds another state of its session.

    `refused_by` is the version found in the table when it refused the row as old, else None. `final` says
    that the table holds this stay, or a later one of the same session, as completed, which nothing may undo.
    """

    session_id: str
    version: int
    last_seen_ms: int
    refused_by: int | None = None
    final: bool = False


class Written(NamedTuple):
    """What became of the rows that were taken: all are committed but for those refused and those left out."""

    refused: Sequence[Refusal] = ()
    left_out: Collection[str] = ()


ALL_WRITTEN = Written()

FROM_THE_START = -1


class Touched(NamedTuple):
    """Sessions whose `last_seen` has just moved, each with its version; nothing else of them is to be written.

    `parts`: by which the live state knows them until they are acked; `cursor`: where to go on, None when all are done.
    """

    parts: Sequence[str]
    session_ids: Sequence[str]
    versions: Sequence[int]
    last_seen_ms: Sequence[int]
    cursor: int | None


class FlushObserver(Protocol):
    """Is told how the flush goes."""

    def rows_flushed(self, rows: int) -> None:
        """So many rows were written, or moved."""

    def flushed(self, seconds: float) -> None:
        """A flush of the pools that this node has the lease of is through; it took so long."""

    def flush_failed(self) -> None:
        """A flush ended by an error."""


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

    async def touch(self, pool: str, limit: int, cursor: int = FROM_THE_START) -> Touched:
        """Bring `last_seen` of everyone present or in permit grace up to date, about `limit` of them a call.

        Nobody becomes dirty by it; who is dirty already is left to `take`. From the start again, those become dirty
        that were touched before and never acked.
        """

    async def ack_touch(self, pool: str, touched: Touched, missed: Sequence[str]) -> None:
        """Confirm what was touched after commit. `missed` become dirty: their rows are to be written whole."""

    async def take(self, pool: str, limit: int, skip: int = 0) -> Taken:
        """Up to `limit` dirty sessions with their state, the longest dirty first. No lines: all are clean.

        They stay dirty until acked; `skip` passes over those that are dirty longest. Their `last_seen` is that of their
        last change.
        """

    async def ack(self, pool: str, taken: Taken, written: Written = ALL_WRITTEN) -> None:
        """Confirm rows after commit. A session changed in between stays dirty; an ended one is forgotten.

        So does one that is left out. A refused row is dropped only if a newer write of the same session is the reason;
        otherwise the session's version is raised above `refused_by` and it stays dirty.
        """

    async def backlog(self, pool: str) -> Backlog:
        """How much waits to be written."""

    async def known(self, pool: str, session_ids: Sequence[str]) -> Collection[str]:
        """Those of `session_ids` that the live state has a record of; none if it has no such pool."""
