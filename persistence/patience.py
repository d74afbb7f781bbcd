"""A transaction that gets so long and not a second more: a Postgres that hangs must not hold up who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import asyncpg
from asyncpg.transaction import Transaction

from persistence.errors import POSTGRES_AWAY

ANSWER_WITHIN_S = 4.0
"""For what any Postgres that works does at once."""
QUESTION_WITHIN_S = 8.0
"""For what somebody waits for at a command line, whose own patience is 10 s."""
WORK_WITHIN_S = 10.0
"""For a batch of rows."""
# The server gives a statement up itself a little before we give up the server.
SERVER_GIVES_UP_MS_A_S = 900

Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


@asynccontextmanager
async def transaction(
    pool: asyncpg.Pool[asyncpg.Record],
    within_s: float = WORK_WITHIN_S,
    **options: Any,  # noqa: ANN401 - asyncpg's
) -> AsyncIterator[Connection]:
    """A transaction on a connection of the pool; waiting for one counts too. See `transaction_on`."""
    asked_at = _now()
    async with pool.acquire(timeout=within_s) as connection:
        left_s = asked_at + within_s - _now()
        async with transaction_on(connection, left_s, **options):
            yield connection


@asynccontextmanager
async def transaction_on(
    connection: Connection,
    within_s: float,
    **options: Any,  # noqa: ANN401 - asyncpg's
) -> AsyncIterator[None]:
    """A transaction; TimeoutError when it is not through within `within_s` seconds.

    `options`: of asyncpg's `Connection.transaction`.

    A Postgres that is only slow gives up the statement by itself. One that hangs can't be asked to: then the
    connection is dropped, since even a rollback would wait for its answer, and so would a cancellation.
    """
    late = asyncio.Event()
    alarm = asyncio.get_running_loop().call_later(within_s, _give_up, connection, late)
    try:
        async with _committed(connection, connection.transaction(**options), within_s):
            yield
    except asyncio.CancelledError:
        connection.terminate()
        raise
    except POSTGRES_AWAY as error:
        if late.is_set():
            raise TimeoutError(f"Postgres did not answer within {within_s:.1f} s") from error
        raise
    finally:
        alarm.cancel()


@asynccontextmanager
async def _committed(connection: Connection, work: Transaction, within_s: float) -> AsyncIterator[None]:
    """Not asyncpg's own context: that one waits for a rollback also when cancelled, and may lose the cancellation."""
    await work.start()
    try:
        timeout_ms = max(1, int(within_s * SERVER_GIVES_UP_MS_A_S))  # 0 would be: never
        await connection.execute(f"set local statement_timeout = {timeout_ms}")
        yield
    except Exception:
        with suppress(*POSTGRES_AWAY):
            await work.rollback()
        raise
    await work.commit()


def _give_up(connection: Connection, late: asyncio.Event) -> None:
    late.set()
    connection.terminate()


def _now() -> float:
    return asyncio.get_running_loop().time()
