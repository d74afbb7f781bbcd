"""A transaction that gets so long and not a second more: a Postgres that hangs must not hold up who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import asyncpg

from persistence.errors import POSTGRES_AWAY

ANSWER_WITHIN_S = 4.0
"""For what any Postgres that works does at once."""
WORK_WITHIN_S = 10.0
"""For a batch of rows."""
# The server gives a statement up itself a little before we give up the server.
SERVER_GIVES_UP_MS_A_S = 900

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


@asynccontextmanager
async def transaction(
    pool: asyncpg.Pool[asyncpg.Record], within_s: float = WORK_WITHIN_S
) -> AsyncIterator[Connection]:
    """A transaction; TimeoutError when it is not through within `within_s` seconds.

    A Postgres that is only slow gives up the statement by itself. One that hangs can't be asked to: then the
    connection is dropped, since even a rollback would wait for its answer, and so would a cancellation.
    """
    async with pool.acquire(timeout=within_s) as connection:
        late = asyncio.Event()
        alarm = asyncio.get_running_loop().call_later(within_s, _give_up, connection, late)
        try:
            async with _committed(connection, within_s):
                yield connection
        except asyncio.CancelledError:
            connection.terminate()
            raise
        except POSTGRES_AWAY as error:
            if late.is_set():
                raise TimeoutError(f"Postgres did not answer within {within_s:g} s") from error
            raise
        finally:
            alarm.cancel()


@asynccontextmanager
async def _committed(connection: Connection, within_s: float) -> AsyncIterator[None]:
    """Not asyncpg's own context: that one waits for a rollback also when cancelled, and may lose the cancellation."""
    work = connection.transaction()
    await work.start()
    try:
        await connection.execute(f"set local statement_timeout = {int(within_s * SERVER_GIVES_UP_MS_A_S)}")
        yield
    except Exception:
        with suppress(*POSTGRES_AWAY):
            await work.rollback()
        raise
    await work.commit()


def _give_up(connection: Connection, late: asyncio.Event) -> None:
    late.set()
    connection.terminate()
