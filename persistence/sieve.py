"""Writes rows so that a bad one stops nobody: it is found by halving, repaired or set aside, and tried again later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from persistence.errors import RefusedByTriggerError, UnwritableRowsError
from persistence.port import Outcome
from persistence.repair import repairs
from persistence.repository import Repository
from persistence.rows import PresenceRow

REMEMBERED_REPAIRS = 10_000
# So many refusals in a row are not about the rows: to find one bad row among a batch takes less.
MOST_REFUSALS = 40

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Troubled:
    """Sessions whose rows Postgres refused: those that it takes repaired, and those that it never takes."""

    repaired: set[str] = field(default_factory=set)
    set_aside: set[str] = field(default_factory=set)
    # Refusals of other rows since one was taken, over all batches: a slow Postgres gets batches of a single row.
    refusals: int = 0

    def apart(self, rows: Sequence[PresenceRow]) -> tuple[Sequence[PresenceRow], Sequence[PresenceRow]]:
        """The rows of other sessions, and those of these."""
        if not self.repaired and not self.set_aside:
            return rows, ()
        known = self.repaired | self.set_aside
        return [row for row in rows if row[0] not in known], [row for row in rows if row[0] in known]

    def note_written(self, row: PresenceRow, trouble: Exception | None) -> None:
        """Postgres took the row: as it was, or repaired because of `trouble`."""
        self.set_aside.discard(row.session_id)
        if trouble is None or row.session_id in self.repaired:
            return
        if len(self.repaired) >= REMEMBERED_REPAIRS:
            self.repaired.clear()
        self.repaired.add(row.session_id)
        _log.warning("presence_row_repaired", session_id=row.session_id, pool=row.pool, error=str(trouble))

    def note_set_aside(self, row: PresenceRow, error: Exception) -> None:
        if row.session_id not in self.set_aside:
            self.set_aside.add(row.session_id)
            _log.error("presence_row_set_aside", session_id=row.session_id, pool=row.pool, error=str(error))


class Sieve:
    """Writes rows through the repository. `set_aside`: how many sessions' rows Postgres takes in no form.

    Two may be written at the same time.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._troubled = _Troubled()

    @property
    def set_aside(self) -> int:
        """How many sessions wait for their rows to become writable."""
        return len(self._troubled.set_aside)

    async def write(self, rows: Sequence[PresenceRow]) -> list[Outcome]:
        """Write all rows that can be written, those known as troublesome apart from the others; their outcomes.

        Raises what a trigger raised, as Postgres being away, if that is all that comes of rows not known as
        troublesome.
        """
        return await _Sifting(self._repository, self._troubled).write(rows)


class _Sifting:
    """The writing of one batch."""

    def __init__(self, repository: Repository, troubled: _Troubled) -> None:
        self._repository = repository
        self._troubled = troubled
        self._aside: list[tuple[PresenceRow, UnwritableRowsError]] = []
        self._is_known_as_ill = False

    async def write(self, rows: Sequence[PresenceRow]) -> list[Outcome]:
        well, ill = self._troubled.apart(rows)
        outcomes = await self._halving(well) if well else []
        if not outcomes and len(well) > 1:
            self._judge(self._aside[-1][1])
        self._is_known_as_ill = True
        for row in ill:
            outcomes += await self._alone(row)
        for row, error in self._aside:
            self._troubled.note_set_aside(row, error)
        return outcomes

    async def _halving(self, rows: Sequence[PresenceRow]) -> list[Outcome]:
        """Write the rows; if one of them is unwritable, find it by halving, and write all others."""
        try:
            return await self._try(rows)
        except UnwritableRowsError:
            if len(rows) == 1:
                return await self._alone(rows[0])
        middle = len(rows) // 2
        return await self._halving(rows[:middle]) + await self._halving(rows[middle:])

    async def _alone(self, row: PresenceRow) -> list[Outcome]:
        """Write a row as it is, else repaired; no outcome if Postgres takes it in no form."""
        trouble: UnwritableRowsError | None = None
        for form in (row, *repairs(row)):
            try:
                outcomes = await self._try([form])
            except UnwritableRowsError as error:
                trouble = trouble or error
                continue
            self._troubled.note_written(row, trouble)
            return outcomes
        self._aside.append((row, trouble or UnwritableRowsError("refused")))
        return []

    async def _try(self, rows: Sequence[PresenceRow]) -> list[Outcome]:
        try:
            outcomes = await self._repository.write(rows)
        except RefusedByTriggerError as error:
            self._troubled.refusals += not self._is_known_as_ill
            if self._troubled.refusals > MOST_REFUSALS:
                self._judge(error)
            raise
        self._troubled.refusals = 0
        return outcomes

    def _judge(self, error: UnwritableRowsError) -> None:
        """A trigger that takes nothing is a Postgres that does not serve."""
        self._troubled.refusals = 0
        if isinstance(error, RefusedByTriggerError) and error.__cause__ is not None:
            raise error.__cause__
