"""The background loops of a node. One that dies takes the process with it; Redis being away kills none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
from msgspec import structs

from server.domain.errors import PresenceError
from server.domain.events import Event
from server.domain.messages import Close, encode
from server.domain.pool import DEFAULT_POOL, PoolChanges, PoolConfig, PoolState
from server.live.follower import Follower
from server.live.store import NODE_ACTOR
from server.live.verbs import Renewal, Snapshot
from server.measure.sharing import share
from server.node.fanout import Fanout
from server.node.hub import LocalPool, Member
from server.node.meter import Meter
from server.node.node import Node
from server.node.recovery import recover
from server.node.refusals import RefusedError, refuse
from server.node.scribe import Scribe

log = structlog.get_logger(__name__)

RENEW_AT_ONCE = 256
TICK_S = 0.5  # so that what is due after a whole second is done well within the next
POOLS_EVERY_S = 2.0
CAPACITY_AT_MOST_EVERY_S = 0.5
CAPACITY_LOOK_EVERY_S = 0.02
LINE_EVERY_S = 1.0
SNAPSHOT_AT_LEAST_EVERY_S = 10.0
SWEEP_EVERY_S = 1.0
GREETING_CHECK_S = 0.25
RETRY_S = 0.5
TOKEN_CHECKS = 20  # in the life of a token
FRAMES_AT_ONCE = 500


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[None]:
    """The loops run while this context is entered; if one dies, the context is cancelled and raises its error."""
    async with asyncio.TaskGroup() as group:
        loops = Loops(node, group)
        await loops.start()
        try:
            yield
        finally:
            loops.stop()


class Loops:
    """All loops of a node, as tasks of one group: some for the whole node, some for each pool."""

    def __init__(self, node: Node, group: asyncio.TaskGroup) -> None:
        self._node = node
        self._hub = node.hub
        self._store = node.store
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []
        self._adopted: set[str] = set()
        self._fanout = Fanout(node.hub)
        self._scribe = Scribe(node.store)
        self._meter = Meter(node.hub, node.measured.admissions)
        self._follower = Follower(node.store, on_event=self._on_event, on_resync=self._on_resync)

    def _on_event(self, pool: str, event: Event) -> None:
        self._fanout.on_event(pool, event)
        self._node.feed.on_event(pool, event)
        self._scribe.on_event(pool, event)
        self._meter.on_event(pool, event)

    def _on_resync(self, pool: str, snapshot: Snapshot) -> None:
        self._fanout.on_resync(pool, snapshot)
        self._node.feed.on_resync(pool, snapshot)
        self._meter.on_resync(pool, snapshot)

    async def start(self) -> None:
        """Start them, with the pools that there are by now."""
        await self._adopt_pools()
        self._run("pools", self._pools())
        self._run("follow", self._follower.run())
        self._run("renew", self._renew())
        self._run("greetings", self._greetings())
        self._run("tokens", self._tokens())
        self._run("sweep", self._sweep())
        if self._node.shared is not None:
            self._run("share", share(self._node.measured, self._node.shared))
        if self._node.flusher is not None:
            self._run("flush", self._node.flusher.run())

    def stop(self) -> None:
        """Cancel all."""
        for task in self._tasks:
            task.cancel()

    def _run(self, name: str, loop: Coroutine[None, None, None]) -> None:
        self._tasks.append(self._group.create_task(_dies_loudly(name, loop), name=name))

    # Pools

    async def _pools(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POOLS_EVERY_S if self._node.redis_up else RETRY_S):
                    await self._hub.has_new_pool.wait()
            self._hub.has_new_pool.clear()
            await self._adopt_pools()

    async def _adopt_pools(self) -> None:
        """Look after each pool that there is; the default one is made if it is missing."""
        with self._node.unless_redis_is_away():
            names = await self._store.pool_names()
            for name in {DEFAULT_POOL, *names}:
                if name in self._adopted and name in names:
                    continue
                # For a pool that is there already this tells it this node's timings.
                config = await self._store.configure(name, PoolChanges(), actor=NODE_ACTOR)
                if name not in self._adopted:
                    self._adopt(name, config)

    def _adopt(self, name: str, config: PoolConfig) -> None:
        self._adopted.add(name)
        _say_what_differs(name, config, self._node.settings.pool_defaults())
        pool = self._hub.pool(name)
        pool.config = config
        self._follower.watch(name)
        self._run(f"log {name}", self._scribe.hold(name))
        self._run(f"tick {name}", self._tick(pool))
        self._run(f"capacity {name}", self._capacity(pool))
        self._run(f"line {name}", self._line(pool))
        self._run(f"recover {name}", self._recover(pool))

    async def _tick(self, pool: LocalPool) -> None:
        while True:
            with self._node.unless_redis_is_away():
                self._saw(pool, await self._store.tick(pool.name))
                if pool.config_changed:
                    await self._read_config(pool)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await pool.wake.wait()
            pool.wake.clear()

    async def _read_config(self, pool: LocalPool) -> None:
        changes = pool.changes
        pool.config = await self._store.config(pool.name)
        pool.changes_read = changes
        pool.line_moved = True

    def _saw(self, pool: LocalPool, state: PoolState) -> None:
        self._meter.on_tick(state)
        self._follower.notice(state)
        self._node.samples.see(state)
        if pool.is_news(state):
            pool.changed.set()

    async def _capacity(self, pool: LocalPool) -> None:
        """At once when something changed, but no more than twice a second."""
        while True:
            await pool.changed.wait()
            pool.changed.clear()
            pushed = False
            if pool.watchers or self._node.feed.wants_capacity(pool.name):
                with self._node.unless_redis_is_away():
                    state = await self._store.state(pool.name)
                    is_news = await _push_capacity(pool, state)
                    pushed = self._node.feed.tell_capacity(pool, state, is_news=is_news) or is_news
            await asyncio.sleep(CAPACITY_AT_MOST_EVERY_S if pushed else CAPACITY_LOOK_EVERY_S)

    async def _line(self, pool: LocalPool) -> None:
        """Each second: estimate the waits, from a new snapshot if anything moved, and tell those who wait."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if pool.line_moved or (pool.line.waits and loop.time() >= due):
                with self._node.unless_redis_is_away():
                    pool.line_moved = False
                    await self._take_snapshot(pool)
                    due = loop.time() + SNAPSHOT_AT_LEAST_EVERY_S
            else:
                pool.line.estimate(loop.time())
            await _push_places(pool)
            await self._node.feed.tell_line(pool)
            if pool.line.is_news():
                pool.changed.set()
            await asyncio.sleep(LINE_EVERY_S)

    async def _take_snapshot(self, pool: LocalPool) -> None:
        try:
            snapshot = await self._store.snapshot(pool.name)
        except PresenceError:
            pool.line_moved = True
            raise
        pool.line.take(snapshot, pool.config or self._store.defaults, asyncio.get_running_loop().time())

    async def _recover(self, pool: LocalPool) -> None:
        """Whenever Redis has lost its memory of the pool, or is another one."""
        while True:
            await pool.lost.wait()
            with self._node.unless_redis_is_away():
                await recover(self._node, pool)
            if pool.lost.is_set():
                await asyncio.sleep(RETRY_S)

    # Connections

    async def _renew(self) -> None:
        """Renew every connection once in `renew_s`, in slices spread over it; after an outage all at once."""
        loop = asyncio.get_running_loop()
        hurry = False
        while True:
            due = loop.time()
            batches = self._hub.batches(RENEW_AT_ONCE)
            pause = self._node.settings.renew_s / max(1, len(batches))
            for name, members in batches:
                await self._renew_batch(name, members)
                due += pause
                if not (hurry and self._node.redis_up):
                    await asyncio.sleep(min(pause, max(0.0, due - loop.time())))
            hurry = not self._node.redis_up
            if not batches or hurry:
                await asyncio.sleep(RETRY_S if hurry else pause)

    async def _renew_batch(self, name: str, members: Sequence[Member]) -> None:
        held = [(member.held.session_id, member.held.connection_id) for member in members]
        outcomes: list[Renewal] = []
        with self._node.unless_redis_is_away():
            outcomes = await self._store.renew(name, held)
            lost = len(outcomes) - outcomes.count(Renewal.RENEWED)
            self._node.measured.connections.renewed(len(outcomes), lost)
        concerned = [
            (member, outcome)
            for member, outcome in zip(members, outcomes, strict=False)
            if outcome is not Renewal.RENEWED or member.held.untold
        ]
        await asyncio.gather(*(self._after(member, outcome) for member, outcome in concerned))

    async def _after(self, member: Member, outcome: Renewal) -> None:
        if not self._hub.holds(member) or not self._hub.pool(member.held.pool).settled.is_set():
            return  # it went, or was replaced, while the store was asked; or all are registered again anyway
        with self._node.unless_redis_is_away():
            await (member.tell() if outcome is Renewal.RENEWED else member.reconcile())

    async def _greetings(self) -> None:
        while True:
            await asyncio.sleep(GREETING_CHECK_S)
            for transport in self._hub.late(asyncio.get_running_loop().time()):
                late = RefusedError(Close.NO_HELLO, "no_hello", "The hello did not come in time.")
                refuse(transport, late, self._node.measured.connections.refused)

    async def _sweep(self) -> None:
        """Warn whose permit runs out soon; forget the pages over HTTP that have fallen silent."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now = loop.time()
            for pool in self._hub.pools.values():
                pool.forget_silent(now)
            for member in self._hub:
                if member.held.warn_at <= now:
                    member.warn()

    async def _tokens(self) -> None:
        every_s = self._node.settings.token_ttl_s / TOKEN_CHECKS
        while True:
            await asyncio.sleep(every_s)
            soon = time.time() + 2 * every_s
            for member in self._hub:
                if member.held.token_expires_at < soon:
                    member.refresh_token()


def _say_what_differs(name: str, config: PoolConfig, settings: PoolConfig) -> None:
    """A pool keeps what it was created or configured with, whatever the settings say later."""
    ours, theirs = structs.asdict(settings), structs.asdict(config)
    differing = {
        field: theirs[field] for field, value in ours.items() if value is not None and theirs[field] != value
    }
    if differing:
        log.info("pool_differs_from_settings", pool=name, counts=differing)


async def _push_capacity(pool: LocalPool, state: PoolState) -> bool:
    shown = pool.capacity(state)
    if not pool.is_news(state) and not pool.line.is_news():
        return False
    pool.state = state
    pool.line.note_told()
    frame = encode(shown)
    for number, watcher in enumerate(list(pool.watchers), start=1):
        watcher.send_text(frame)
        if number % FRAMES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return True


async def _push_places(pool: LocalPool) -> None:
    """Tell the waiters that are here where they are by now, and how long it will take."""
    line, waiters = pool.line, pool.waiters()
    for number, session_id in enumerate(line.waiters() if waiters else (), start=1):
        member = waiters.get(session_id)
        if member is not None:
            position = line.position(session_id, member.held.standing.ticket)
            member.place(position or line.length, line.length)
        if number % FRAMES_AT_ONCE == 0:
            await asyncio.sleep(0)


async def _dies_loudly(name: str, loop: Coroutine[None, None, None]) -> None:
    try:
        await loop
    except Exception:
        log.critical("loop_died", loop=name, exc_info=True)
        raise
