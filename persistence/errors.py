"""What can go wrong between this package and its database, or its source of changed sessions."""

from __future__ import annotations

import asyncpg


class PersistenceError(Exception):
    """Base of this package's errors; the text is a sentence for people."""


class MigrationRefusedError(PersistenceError):
    """The database can't be brought up to date as it is. Nothing was changed."""


class UnwritableRowsError(PersistenceError):
    """Postgres does not take the content of at least one of the rows. None of them was written."""


class RefusedByTriggerError(UnwritableRowsError):
    """Somebody's trigger raised: because of the content of a row, or whatever the row is."""


class SourceAwayError(PersistenceError):
    """The live state does not answer; raised by implementations of `DirtySessions`."""


POSTGRES_AWAY = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What a call raises when Postgres is away or can't serve it now: worth trying again later."""
