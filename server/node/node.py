"""This process: what it is made of, how it is doing, and how it takes leave of its browsers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import structlog

from persistence.analytics import Analytics
from persistence.flusher import Flusher, FlushStatus
from persistence.forgetting import Forgetting
from persistence.plan.history import Arrivals
from persistence.recent import Recent
from persistence.repository import Repository
from server.domain.errors import (
    RedisAwayError,
    RedisFullError,
    RedisRefusedError,
    UnknownPoolError,
    WrongRedisError,
)
from server.domain.interview import Admission, Interview, InterviewState, interview
from server.domain.messages import DRAIN, Drain, encode
from server.domain.sentences import Sentences
from server.domain.token import Tokens
from server.live.store import Store
from server.measure.exposition import Shared
from server.measure.instruments import Gauge
from server.measure.measured import Measured
from server.node.feed import Feed
from server.node.hub import Hub
from server.node.samples import Samples
from server.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

DRAIN_S = 10.0
DRAIN_PATIENCE_S = 2.0
RECONNECTS_PER_S = 500
FINAL_FLUSH_S = 5.0
LOOK_EVERY_S = 0.05
NO_EVICTION = "set maxmemory-policy to noeviction"


class Node:
    """What everything in this process works with. `history` and the flusher are there when Postgres is set."""

    def __init__(self, settings: Settings, store: Store, tokens: Tokens, sentences: Sentences) -> None:
        self.settings = settings
        self.store = store
        self.tokens = tokens
        self.sentences = sentences
        self.measured = Measured()
        self.shared = Shared.of_environment()
        self.hub = Hub()
        self.feed = Feed(store, self.hub)
        self.samples = Samples()
        self._show_how_it_is()
        store.watch_pools(self.hub)
        store.scripts.observer = self.measured.dependencies
        self.history: Repository | None = None
        self.arrivals: Arrivals | None = None
        self.analytics: Analytics | None = None
        self.recent: Recent | None = None
        self.forgetting: Forgetting | None = None
        self.flusher: Flusher | None = None
        self.draining = False
        self.redis_up = True
        self._errands: set[asyncio.Task[None]] = set()

    def _show_how_it_is(self) -> None:
        connections = Gauge(
            "presence_connections", "WebSockets that are open and welcomed", lambda: len(self.hub), "livesum"
        )
        most = Gauge(
            "presence_connections_limit",
            "WebSockets that this node takes at most",
            lambda: self.settings.max_connections,
            "livesum",
        )
        draining = Gauge(
            "presence_draining", "1 while this node stops", lambda: int(self.draining), "livemax"
        )
        readers = Gauge(
            "presence_sse_readers", "Readers of events over HTTP", lambda: len(self.feed), "livesum"
        )
        self.measured.gauges += [connections, most, draining, readers]
        if self.shared is not None:
            # At once: who is just connected is counted, whichever worker is asked.
            self.hub.counted = partial(self.shared.write_gauge, connections)

    def show_flush(self, flusher: Flusher) -> None:
        """Let the metrics tell how the flush is."""
        is_up = Gauge(
            "presence_postgres_up",
            "1 while Postgres answers",
            lambda: int(flusher.status.postgres == "ok"),
            "livemin",
        )
        set_aside = Gauge(
            "presence_flush_set_aside",
            "Sessions whose rows Postgres refuses",
            lambda: flusher.status.set_aside,
            "livemax",
        )
        self.measured.gauges += [is_up, set_aside]

    @property
    def connections(self) -> int:
        """How many WebSockets this node holds."""
        return len(self.hub)

    @property
    def postgres(self) -> Literal["ok", "down", "off"]:
        """How Postgres is."""
        return "off" if self.flusher is None else self.flusher.status.postgres

    def flush_status(self) -> FlushStatus | None:
        """How far Postgres is behind; None without Postgres."""
        return None if self.flusher is None else self.flusher.status

    def interview(
        self, pool: str, session_id: str, admission: Admission, language_code: str | None
    ) -> Interview:
        """The interview object: the sentence in the participant's language, and for a waiter what the wait will be."""
        shown = None
        if admission.state is InterviewState.WAITING:
            shown = self.hub.pool(pool).line.wait_of(session_id)
        return interview(admission, self.sentences.for_admission(admission, language_code), shown)

    @contextmanager
    def unless_redis_is_away(self) -> Iterator[None]:
        """For what is tried again anyway: Redis may be away. Each change is logged once.

        A full Redis and a pool that it has lost (the loop over the pools makes it anew) are no news either. What Redis
        refuses for good, e.g. because somebody put another kind of key there, is said each time, and costs the other
        pools nothing.
        """
        try:
            yield
        except RedisAwayError as error:
            self._note_redis(up=False, error=str(error))
        except (UnknownPoolError, RedisFullError) as error:
            log.debug("redis_refuses", error=error.code)
        except RedisRefusedError as error:
            log.error("redis_refused", error=str(error))
        else:
            self._note_redis(up=self.store.takes_writes, error="Redis takes no writes.")

    def _note_redis(self, *, up: bool, error: str = "") -> None:
        if up and not self.redis_up:
            log.info("redis_back")
        elif not up and self.redis_up:
            log.error("redis_away", error=error)
        self.redis_up = up

    async def check_redis(self) -> None:
        """Refuse a Redis that is of another kind than its URL says, or throws away what it was told to keep.

        SettingsError; one that is away is let pass.
        """
        policies: set[str] = set()
        with self.unless_redis_is_away():
            try:
                await self.store.check_address()
            except WrongRedisError as error:
                raise SettingsError([f"REDIS_URL: {error}"]) from error
            policies = await self.store.eviction_policies()
        for policy in sorted(policies):
            if policy.startswith("allkeys"):
                raise SettingsError(
                    [f"REDIS_URL: this Redis may evict any key: {NO_EVICTION} (it is {policy})"]
                )
            if policy.startswith("volatile"):
                log.warning("redis_may_evict_keys", policy=policy, mend=NO_EVICTION)

    def run_errand(self, errand: Coroutine[None, None, None], name: str) -> None:
        """Run a small thing for one session beside everything else; a bug in it is logged and costs nobody more."""
        task = asyncio.create_task(errand, name=name)
        self._errands.add(task)
        task.add_done_callback(self._errand_done)

    def _errand_done(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("errand_failed", errand=task.get_name(), exc_info=error)

    async def drain(self, within_s: float = DRAIN_S) -> None:
        """Take leave: refuse who comes, flush, and tell the browsers to move, spread over the time that is there.

        A browser connects anew before it closes here, so a socket that is still open has nowhere to go yet; what
        is left in the end is closed with 4000. Returns as soon as nobody is left.
        """
        self.draining = True
        self.feed.close()
        connections = len(self.hub)
        log.info("draining", connections=connections)
        deadline = asyncio.get_running_loop().time() + within_s
        self._tell_to_move(min(within_s - DRAIN_PATIENCE_S, connections / RECONNECTS_PER_S))
        await self.flush()
        patience = min(within_s, connections / RECONNECTS_PER_S + DRAIN_PATIENCE_S)
        await self._until_empty(min(deadline, asyncio.get_running_loop().time() + patience))
        for member in self.hub:
            member.close(DRAIN, "drain")
        await self._until_empty(deadline + DRAIN_PATIENCE_S)
        log.info("drained", left=len(self.hub))

    def _tell_to_move(self, spread_s: float) -> None:
        for member in self.hub:
            wait_ms = random.uniform(0, max(0.0, spread_s)) * 1000  # noqa: S311 - spreads load
            member.send_text(encode(Drain(reconnect_in_ms=round(wait_ms))))

    async def _until_empty(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while len(self.hub) and loop.time() < deadline:  # noqa: ASYNC110 - a few looks, once in a life
            await asyncio.sleep(LOOK_EVERY_S)

    async def flush(self) -> None:
        """Bring Postgres up to date, if it can be done soon; what can't stays in Redis."""
        if self.flusher is not None:
            await self.flusher.final(FINAL_FLUSH_S)
