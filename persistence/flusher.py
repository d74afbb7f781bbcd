"""The flush: take changed sessions from the live state, write them to Postgres, confirm them after commit."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal

import asyncpg
import structlog

from persistence.drain import BATCH, Drain
from persistence.errors import POSTGRES_AWAY, SourceAwayError, UnwritableRowsError
from persistence.port import DirtySessions, FlushObserver, Touched, Written
from persistence.repository import Repository
from persistence.retention import Retention
from persistence.rows import PoolRow
from persistence.sieve import Sieve
from persistence.touching import Touching

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 5.0
LEASE_INTERVALS = 2.5
SWEEP_INTERVAL_S = 86_400.0
# A batch that takes longer is not made larger.
QUICK_S = 2.0
TOO_SLOW = (TimeoutError, asyncpg.QueryCanceledError)

_log = structlog.get_logger(__name__)


@dataclass(slots=True, frozen=True)
class FlushStatus:
    """How the flush stands, for `/readyz` and metrics.

    `lag_s`: age of the oldest change that is not in Postgres, if anything waited at the last look; `backlog`:
    sessions that waited then. `failures`: flushes that failed since the start; `last_ok`: when the last one
    succeeded, by the flusher's clock; `set_aside`: sessions whose rows Postgres takes in no form.
    """

    postgres: Literal["ok", "down"]
    lag_s: float = 0.0
    backlog: int = 0
    failures: int = 0
    last_ok: float | None = None
    set_aside: int = 0


@dataclass(slots=True)
class _Reach:
    """Whether something answers. A change is logged once, however many retries there are."""

    name: str
    up: bool | None = None

    def lost(self, error: Exception) -> None:
        if self.up is not False:
            _log.warning(f"{self.name}_away", error=f"{type(error).__name__}: {error}")
        self.up = False

    def answered(self) -> None:
        if self.up is False:
            _log.info(f"{self.name}_back")
        self.up = True


class Flusher:
    """Flushes every pool each `flush_s` seconds, as long as this node (`holder`) has the pool's lease.

    Never on the way of a visitor: whatever fails is tried again, and what was not confirmed stays dirty in
    the live state. `clock` and `sleep` are seconds; `abandon_after_s`: see `abandon_unknown`.
    """

    def __init__(
        self,
        source: DirtySessions,
        repository: Repository,
        *,
        holder: str,
        flush_s: float = 10.0,
        abandon_after_s: float = 10_800.0,
        batch: int = BATCH,
        retention: Retention | None = None,
        observer: FlushObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._repository = repository
        self._holder = holder
        self._flush_s = flush_s
        self._abandon_after_s = abandon_after_s
        self._batch = batch
        self._retention = retention
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._one_at_a_time = asyncio.Lock()
        self._postgres = _Reach("postgres")
        self._live_state = _Reach("flush_source")
        self._sieve = Sieve(repository)
        self._size = batch
        self._slowest_s = 0.0
        self._leased: set[str] = set()
        self._next_sweep = clock()
        self._failures = 0
        self._last_ok: float | None = None
        self._backlog = 0
        self._oldest: float | None = None

    @property
    def status(self) -> FlushStatus:
        """How the flush stands."""
        return FlushStatus(
            postgres="ok" if self._postgres.up else "down",
            lag_s=0.0 if self._oldest is None else max(0.0, self._clock() - self._oldest),
            backlog=self._backlog,
            failures=self._failures,
            last_ok=self._last_ok,
            set_aside=self._sieve.set_aside,
        )

    async def probe(self, timeout_s: float = 2.0) -> None:
        """Find out whether Postgres is there, so that what is first said of it is true."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._repository.ping()
        except POSTGRES_AWAY as error:
            self._postgres.lost(error)
        else:
            self._postgres.answered()

    async def run(self) -> None:
        """Flush for ever: each `flush_s`, and after a failure again soon, with growing pauses and jitter."""
        failed = 0
        while True:
            started = self._clock()
            failed = 0 if await self.flush_once() else failed + 1
            await self._sleep(self._pause(started, failed))

    async def flush_once(self) -> bool:
        """Flush each pool whose lease is to be had; False if Postgres or the live state did not serve.

        A second call waits until the first is through.
        """
        async with self._one_at_a_time:
            began = self._clock()
            try:
                await self._flush_pools()
                await self._sweep_if_due()
            except SourceAwayError as error:
                self._live_state.lost(error)
            except POSTGRES_AWAY as error:
                self._postgres.lost(error)
                self._take_less(error)
                await self._step_back()
            else:
                self._last_ok = self._clock()
                self._take_more()
                self._tell_of_success(self._clock() - began)
                return True
            self._failures += 1
            if self._observer is not None:
                self._observer.flush_failed()
            return False

    async def final(self, timeout_s: float = 5.0) -> bool:
        """A last flush before the node stops; gives the leases back. What is not written stays dirty."""
        done = False
        try:
            async with asyncio.timeout(timeout_s):
                done = await self.flush_once()
                await self._release_leases()
        except TimeoutError:
            _log.warning("final_flush_timed_out", timeout_s=timeout_s, backlog=self._backlog)
        except SourceAwayError as error:
            self._live_state.lost(error)
        return done

    def sweep_soon(self) -> None:
        """Let the next flush be followed by `abandon_unknown`: the live state may have lost sessions."""
        self._next_sweep = self._clock()

    async def abandon_unknown(self) -> int:
        """Make sessions abandoned that are active in the table only; returns how many.

        Those are the ones not seen for `abandon_after_s` that the live state has no record of. The caller
        flushes first: then what the live state has just forgotten has its last row in the table.
        """
        count, after = 0, ""
        while stale := await self._repository.stale(self._abandon_after_s, after=after, limit=self._batch):
            unknown = await self._unknown(stale)
            count += len(await self._repository.abandon(unknown, self._abandon_after_s))
            after = stale[-1][0]
        if count:
            _log.info("unknown_sessions_abandoned", sessions=count)
        return count

    def _pause(self, started: float, failed: int) -> float:
        if not failed:
            return max(0.0, started + self._flush_s - self._clock())
        longest = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failed, 10))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    async def _flush_pools(self) -> None:
        pools = await self._source.pools()
        self._live_state.answered()
        await self._look_at_backlog(pools)
        mine = [row for row in pools if await self._lease(row.pool)]
        # Also who flushes nothing says in `/readyz` whether Postgres is there.
        await (self._repository.write_pools(mine) if mine else self._repository.ping())
        for row in mine:
            await Touching(self._source, self._move, row.pool, batch=self._size).run()
            await self._drain(row.pool)
        # Not before: one that answers, but takes no sessions, does not come back with each try.
        self._postgres.answered()
        await self._look_at_backlog(pools)

    async def _lease(self, pool: str) -> bool:
        ttl_ms = int(self._flush_s * LEASE_INTERVALS * 1000)
        mine = await self._source.lease(pool, self._holder, ttl_ms)
        (self._leased.add if mine else self._leased.discard)(pool)
        return mine

    async def _drain(self, pool: str) -> None:
        """Write what is dirty now. What becomes dirty meanwhile may have to wait for the next flush."""
        waiting = (await self._source.backlog(pool)).sessions
        # Some come again at once: those refused as old. But people who go on changing must not keep a flush from its
        # end: the next one touches those who are present, renews the lease, and writes each session once.
        most = 2 * waiting
        await Drain(self._source, self._write, pool, batch=self._size, most=most).run()

    async def _move(self, touched: Touched) -> Sequence[str]:
        """Write `last_seen` alone; the sessions whose rows have to be written whole."""
        with self._timed():
            try:
                missed = await self._repository.move(touched)
            except UnwritableRowsError:
                # Which of them it is will be found when they are written whole.
                return touched.session_ids
        self._tell_of_rows(len(touched.session_ids) - len(missed))
        return missed

    async def _write(self, lines: Sequence[str]) -> Written:
        with self._timed():
            written = await self._sieve.write(lines)
        taken = len(lines) - len(written.left_out)
        if taken:
            self._postgres.answered()
        self._tell_of_rows(taken - sum(refusal.refused_by is not None for refusal in written.refused))
        return written

    def _tell_of_rows(self, rows: int) -> None:
        if self._observer is not None:
            self._observer.rows_flushed(rows)

    def _tell_of_success(self, seconds: float) -> None:
        if self._observer is not None and self._leased:
            self._observer.flushed(seconds)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = self._clock()
        yield
        self._slowest_s = max(self._slowest_s, self._clock() - began)

    def _take_less(self, error: Exception) -> None:
        """A Postgres that is too slow for a batch may be quick enough for a smaller one."""
        if isinstance(error, TOO_SLOW):
            self._size = max(1, self._size // 4)
        self._slowest_s = 0.0

    def _take_more(self) -> None:
        if self._slowest_s < QUICK_S:
            self._size = min(self._batch, self._size * 2)
        self._slowest_s = 0.0

    async def _look_at_backlog(self, pools: Sequence[PoolRow]) -> None:
        waiting = [await self._source.backlog(row.pool) for row in pools]
        self._backlog = sum(backlog.sessions for backlog in waiting)
        oldest_age_ms = max((backlog.oldest_age_ms for backlog in waiting), default=0)
        self._oldest = self._clock() - oldest_age_ms / 1000 if self._backlog else None

    async def _sweep_if_due(self) -> None:
        if self._leased and self._clock() >= self._next_sweep:
            await self.abandon_unknown()
            self._next_sweep = self._clock() + SWEEP_INTERVAL_S
        if self._leased and self._retention is not None:
            await self._retention.delete_if_due()

    async def _unknown(self, stale: Sequence[tuple[str, str]]) -> list[str]:
        unknown: list[str] = []
        for pool, members in groupby(sorted(stale, key=itemgetter(1)), key=itemgetter(1)):
            session_ids = [session_id for session_id, _ in members]
            known = set(await self._source.known(pool, session_ids))
            unknown += [session_id for session_id in session_ids if session_id not in known]
        return unknown

    async def _step_back(self) -> None:
        """Leave the pools to a node that may still reach Postgres, until the next try."""
        try:
            await self._release_leases()
        except SourceAwayError as error:
            self._live_state.lost(error)

    async def _release_leases(self) -> None:
        while self._leased:
            await self._source.release_lease(self._leased.pop(), self._holder)
