"""The tables `presence` and `presence_pools`: writes that only move a row forward, and reads for listings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import asyncpg

from persistence.errors import RefusedByTriggerError, UnwritableRowsError
from persistence.lines import row_of, session_id_of
from persistence.patience import ANSWER_WITHIN_S, WORK_WITHIN_S, transaction
from persistence.port import Refusal, Touched
from persistence.rows import PoolRow, PresenceRow
from persistence.statements import statements

COMPLETED = "completed"
_CONTENT_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


class Repository:
    """The tables in `schema`, through a pool of connections.

    Every call is one transaction: a transaction pooler may give each one another server connection.
    Calls raise `persistence.errors.POSTGRES_AWAY` when Postgres can't serve them, or not in time: what should
    take no time gets `answer_s`, what has work to do `work_s`.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        schema: str = "public",
        *,
        answer_s: float = ANSWER_WITHIN_S,
        work_s: float = WORK_WITHIN_S,
    ) -> None:
        self._pool = pool
        self._sql = statements(schema)
        self._answer_s = answer_s
        self._work_s = work_s

    async def write(self, lines: Sequence[str]) -> list[Refusal]:
        """Write all rows (no session twice) or none; those that the table refused, once the others are committed.

        `lines`: the rows as `persistence.lines` has them. A row that the table holds already just so counts as written.
        Raises UnwritableRowsError when the content of a row is the trouble.
        """
        if not lines:
            return []
        with _refusals():
            async with transaction(self._pool, self._work_s) as connection:
                written = await connection.execute(self._sql["write_sessions"], lines)
                if written == f"INSERT 0 {len(lines)}":
                    return []
                kept = await connection.fetch(self._sql["kept"], [session_id_of(line) for line in lines])
        kept_of = {record["session_id"]: record for record in kept}
        refusals = (_refusal(row, kept_of.get(row.session_id)) for row in map(row_of, lines))
        return [refusal for refusal in refusals if refusal is not None]

    async def move(self, touched: Touched) -> list[str]:
        """Move `last_seen` of rows that are otherwise as they should be; returns the sessions of the others.

        Those have no active row of that version. A row that was seen later already is left alone. Raises
        UnwritableRowsError when a row is not taken; then nothing was changed.
        """
        columns = (touched.session_ids, touched.versions, touched.last_seen_ms)
        with _refusals():
            async with transaction(self._pool, self._work_s) as connection:
                await connection.execute(self._sql["by_id"])
                moved = await connection.execute(self._sql["move_last_seen"], *columns)
                if moved == f"UPDATE {len(touched.session_ids)}":
                    return []
                missed = await connection.fetch(self._sql["missed"], *columns)
        return [record["session_id"] for record in missed]

    async def write_pools(self, rows: Sequence[PoolRow]) -> None:
        """Note the pools' limits and modes as of now."""
        columns = [[row.pool for row in rows], [row.limit for row in rows], [row.mode for row in rows]]
        async with transaction(self._pool, self._answer_s) as connection:
            await connection.execute(self._sql["write_pools"], *columns)

    async def session(self, session_id: str) -> PresenceRow | None:
        """One session's row."""
        records = await self._fetch("session", session_id)
        return _row(records[0]) if records else None

    async def sessions(
        self,
        pool: str,
        *,
        status: str | None = None,
        language_code: str | None = None,
        user_id: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[PresenceRow]:
        """A pool's rows, newest first by (started_at_ms, session_id); `before`: those behind that pair."""
        started_at_ms, session_id = before or (None, None)
        filters = (pool, status, language_code, user_id)
        records = await self._fetch("sessions", *filters, started_at_ms, session_id, limit)
        return [_row(record) for record in records]

    async def stale(self, older_than_s: float, *, after: str = "", limit: int = 500) -> list[tuple[str, str]]:
        """Active sessions not seen for so long, as (session_id, pool), by id, those behind `after`."""
        records = await self._fetch("stale", after, older_than_s, limit)
        return [(record["session_id"], record["pool"]) for record in records]

    async def abandon(self, session_ids: Sequence[str], older_than_s: float) -> list[str]:
        """Make those abandoned that are still active and unseen for so long; returns which."""
        records = await self._fetch("abandon", session_ids, older_than_s)
        return [record["session_id"] for record in records]

    async def ping(self) -> None:
        """Return if Postgres answers and takes writes."""
        async with transaction(self._pool, self._answer_s) as connection:
            if await connection.fetchval("show transaction_read_only") == "on":
                raise asyncpg.ReadOnlySQLTransactionError("the database is read-only")

    async def _fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        async with transaction(self._pool, self._work_s) as connection:
            return await connection.fetch(self._sql[name], *arguments)


@contextmanager
def _refusals() -> Iterator[None]:
    """Tell rows that Postgres does not take from a Postgres that does not serve."""
    try:
        yield
    except asyncpg.RaiseError as error:
        raise RefusedByTriggerError(str(error)) from error
    except _CONTENT_ERRORS as error:
        raise UnwritableRowsError(str(error)) from error


def _refusal(row: PresenceRow, kept: asyncpg.Record | None) -> Refusal | None:
    """Why a row was not written, given what the table kept of its session; None if it was."""
    mine = (row.version, row.last_seen_ms)
    if kept is None or mine == (kept["version"], kept["last_seen_ms"]):
        return None
    older = mine < (kept["version"], kept["last_seen_ms"])
    # An earlier stay than the completed one has nothing to say either.
    final = kept["status"] == COMPLETED and row.started_at_ms <= kept["started_at_ms"]
    if not older and not final:
        return None
    return Refusal(row.session_id, *mine, refused_by=kept["version"] if older else None, final=final)


def _row(record: asyncpg.Record) -> PresenceRow:
    return PresenceRow(**dict(record))
