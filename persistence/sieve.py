"""Writes rows so that a bad one stops nobody: it is found by halving, repaired or set aside, and tried again later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from persistence.errors import RefusedByTriggerError, UnwritableRowsError
from persistence.lines import line_of, row_of, session_id_of
from persistence.port import Refusal, Written
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

    def apart(self, lines: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """The rows of other sessions, and those of these."""
        known = self.repaired | self.set_aside
        if not known:
            return lines, ()
        well: list[str] = []
        ill: list[str] = []
        for line in lines:
            (ill if session_id_of(line) in known else well).append(line)
        return well, ill

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

    async def write(self, lines: Sequence[str]) -> Written:
        """Write all rows that can be written, those known as troublesome apart from the others.

        Raises what a trigger raised, as Postgres being away, if that is all that comes of rows not known as
        troublesome.
        """
        return await _Sifting(self._repository, self._troubled).write(lines)


class _Sifting:
    """The writing of one batch."""

    def __init__(self, repository: Repository, troubled: _Troubled) -> None:
        self._repository = repository
        self._troubled = troubled
        self._refused: list[Refusal] = []
        self._aside: list[tuple[PresenceRow, UnwritableRowsError]] = []
        self._is_known_as_ill = False

    async def write(self, lines: Sequence[str]) -> Written:
        well, ill = self._troubled.apart(lines)
        if well:
            await self._halve(well)
        if len(well) > 1 and len(self._aside) == len(well):
            self._judge(self._aside[-1][1])
        self._is_known_as_ill = True
        for line in ill:
            await self._alone(line)
        for row, error in self._aside:
            self._troubled.note_set_aside(row, error)
        return Written(self._refused, [row.session_id for row, _ in self._aside])

    async def _halve(self, lines: Sequence[str]) -> None:
        """Write the rows; if one of them is unwritable, find it by halving, and write all others."""
        if await self._takes_all(lines):
            return
        if len(lines) == 1:
            await self._alone(lines[0])
            return
        middle = len(lines) // 2
        await self._halve(lines[:middle])
        await self._halve(lines[middle:])

    async def _takes_all(self, lines: Sequence[str]) -> bool:
        """Whether no row is unwritable; then all are written."""
        try:
            await self._try(lines)
        except UnwritableRowsError:
            return False
        return True

    async def _alone(self, line: str) -> None:
        """Write a row as it is, else repaired; set it aside if Postgres takes it in no form."""
        row = row_of(line)
        trouble: UnwritableRowsError | None = None
        for form in (line, *map(line_of, repairs(row))):
            try:
                await self._try([form])
            except UnwritableRowsError as error:
                trouble = trouble or error
                continue
            self._troubled.note_written(row, trouble)
            return
        self._aside.append((row, trouble or UnwritableRowsError("refused")))

    async def _try(self, lines: Sequence[str]) -> None:
        try:
            self._refused += await self._repository.write(lines)
        except RefusedByTriggerError as error:
            self._troubled.refusals += not self._is_known_as_ill
            if self._troubled.refusals > MOST_REFUSALS:
                self._judge(error)
            raise
        self._troubled.refusals = 0

    def _judge(self, error: UnwritableRowsError) -> None:
        """A trigger that takes nothing is a Postgres that does not serve."""
        self._troubled.refusals = 0
        if isinstance(error, RefusedByTriggerError) and error.__cause__ is not None:
            raise error.__cause__
