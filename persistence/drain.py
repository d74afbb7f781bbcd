"""One pass over what is dirty in a pool: take, write, confirm, with the next rows under way meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from persistence.port import DirtySessions, Outcome
from persistence.rows import PresenceRow

BATCH = 2000
# While Postgres writes one batch, the other is taken, encoded or confirmed. Memory holds so many and no more.
BATCHES_AT_ONCE = 2

Write = Callable[[Sequence[PresenceRow]], Awaitable[list[Outcome]]]


async def side_by_side(work: Callable[[], Awaitable[None]]) -> None:
    """Let so many do it at the same time, until all are through. The first error ends all, and is raised."""
    workers = [asyncio.ensure_future(work()) for _ in range(BATCHES_AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


class Drain:
    """Writes the dirty sessions of a pool, about `most` rows and no more.

    `write` gives an outcome for each row that it is done with; the others are left alone until the next pass.
    """

    def __init__(
        self, source: DirtySessions, write: Write, pool: str, *, batch: int = BATCH, most: int
    ) -> None:
        self._source = source
        self._write = write
        self._pool = pool
        self._batch = batch
        self._rest = most
        self._left_out: set[str] = set()
        self._in_hand: set[str] = set()
        self._source_in_use = asyncio.Lock()
        self._has_more = True

    async def run(self) -> None:
        """Run until nothing is left to be taken. The first error ends all, and is raised."""
        # Again: one may have found nothing, though what was in the other's hands came to be dirty anew.
        while self._has_more:
            self._has_more = False
            await side_by_side(self._work)

    async def _work(self) -> None:
        while rows := await self._take():
            self._has_more = True
            await self._finish(rows)

    async def _take(self) -> list[PresenceRow]:
        """The next rows that are in nobody's hand; none when it is enough for this time."""
        async with self._source_in_use:
            if self._rest <= 0:
                return []
            # What is in hand was dirty for longest, so it is in front, and nothing of it is confirmed meanwhile.
            known = self._in_hand | self._left_out
            taken = await self._source.take(self._pool, self._batch + len(self._left_out), len(self._in_hand))
            rows = [row for row in taken if row[0] not in known]
            self._in_hand.update(row[0] for row in rows)
            self._rest -= len(rows)
            return rows

    async def _finish(self, rows: Sequence[PresenceRow]) -> None:
        """Write the rows and confirm them."""
        ids = {row.session_id for row in rows}
        outcomes = await self._write(rows)
        # Were others taken at the same moment, some would move up and be passed over, and others be read twice.
        async with self._source_in_use:
            if outcomes:
                await self._source.ack(self._pool, outcomes)
            self._left_out |= ids - {outcome.session_id for outcome in outcomes}
            self._in_hand -= ids
