"""One pass over what is dirty in a pool: take, write, confirm, with the next rows under way meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from persistence.lines import session_id_of
from persistence.port import DirtySessions, Taken, Written

BATCH = 2000
# While Postgres writes one batch, the other is taken or confirmed. Memory holds so many and no more.
BATCHES_AT_ONCE = 2

Write = Callable[[Sequence[str]], Awaitable[Written]]


class _Batch(NamedTuple):
    """Rows in a worker's hand, by their sessions. `passed_over`: what was taken with them and is not to be written."""

    taken: Taken
    lines: dict[str, str]
    passed_over: set[str]


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

    Those that `write` leaves out are left alone until the next pass.
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
        while (batch := await self._take()).lines:
            self._has_more = True
            await self._finish(batch)

    async def _take(self) -> _Batch:
        """The next rows that are in nobody's hand; none when it is enough for this time."""
        async with self._source_in_use:
            if self._rest <= 0:
                return _Batch(Taken(()), {}, set())
            # What is in hand was dirty for longest, so it is in front, and nothing of it is confirmed meanwhile.
            known = self._in_hand | self._left_out
            taken = await self._source.take(self._pool, self._batch + len(self._left_out), len(self._in_hand))
            lines = {session_id_of(line): line for line in taken.lines}
            passed_over = known & lines.keys()
            for session_id in passed_over:
                del lines[session_id]
            self._in_hand |= lines.keys()
            self._rest -= len(lines)
            return _Batch(taken, lines, passed_over)

    async def _finish(self, batch: _Batch) -> None:
        """Write the rows and confirm them."""
        written = await self._write(list(batch.lines.values()))
        # Were others taken at the same moment, some would move up and be passed over, and others be read twice.
        async with self._source_in_use:
            self._left_out.update(written.left_out)
            left_out = {*written.left_out, *batch.passed_over}
            await self._source.ack(self._pool, batch.taken, written._replace(left_out=left_out))
            self._in_hand -= batch.lines.keys()
