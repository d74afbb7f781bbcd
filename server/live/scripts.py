"""Loads the Lua verbs and runs them: one script call for many items, and errors as this project's own."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from redis import exceptions as redis_errors

from server.domain.errors import (
    PresenceError,
    RedisAwayError,
    RedisFullError,
    RedisRefusedError,
    UnknownPoolError,
    WrongRedisError,
)
from server.live.connect import ANSWER_WITHIN_S, RedisClient, ask_each_server, leave
from server.live.keys import PoolKeys

LUA = files("server.live") / "lua"
CLOCK = "clock"
# What stands in front of every verb, in this order: each part uses only those before it.
PRELUDE = tuple(f"prelude/{part}" for part in ("pool", "records", "presence", "permits", "pump", "replies"))
VERBS = tuple(
    sorted(
        entry.name.removesuffix(".lua")
        for entry in LUA.iterdir()
        if entry.name.endswith(".lua") and entry.name != f"{CLOCK}.lua"
    )
)

# A script holds Redis for as long as it runs: a hundred claims take about 4 ms.
MOST_ITEMS_PER_CALL = 100

# Calls of a herd wait their turn: connections to Redis without end would themselves be the trouble.
MOST_CALLS_AT_ONCE = 64

# What Redis says while it cannot serve, though it answers: it is as good as away, and heals by itself. redis-py gives
# some of these a class of their own and strips the word; from within a script the word stands somewhere in the text.
AWAY_ERRORS = (
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
)
AWAY = re.compile(r"\b(LOADING|READONLY|NOREPLICAS|CLUSTERDOWN|MASTERDOWN|BUSY|TRYAGAIN|MISCONF|UNBLOCKED)\b")
FULL = re.compile(r"\bOOM\b")
NO_POOL = re.compile(r"\bNOPOOL\b")
READ_ONLY = re.compile(r"\bREADONLY\b")
# With these it refuses only what writes: that it answers what reads says nothing.
REFUSES_WRITES = re.compile(r"\b(NOREPLICAS|MISCONF)\b")
READING_VERBS = frozenset({"state", "snapshot"})
# Under this name all plain commands are timed.
COMMAND = "command"
CLUSTER_ERRORS = (redis_errors.RedisClusterException, redis_errors.ClusterError)
# All that redis-py may raise of what a server said, or did not say.
REDIS_ERRORS = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ResponseError,
    *CLUSTER_ERRORS,
)
# What redis-py says of a server that knows no clusters.
NO_CLUSTER = "Cluster mode is not enabled"


@dataclass(slots=True, frozen=True)
class Script:
    """A verb's whole text and the SHA-1 by which Redis knows it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@cache
def source(name: str) -> str:
    """The text of one `.lua` file."""
    return (LUA / f"{name}.lua").read_text()


def load(clock: str | None = None) -> dict[str, Script]:
    """All verbs, each behind the clock and the prelude. `clock` is Lua text that replaces clock.lua, for tests."""
    shared = (clock or source(CLOCK)) + "".join(source(part) for part in PRELUDE)
    return {verb: Script(shared + source(verb)) for verb in VERBS}


class PoolWatcher(Protocol):
    """Looks at what every script says of its pool."""

    def saw(self, pool: str, head: bytes) -> None:
        """A script replied with this head; its caller has not got the reply yet."""


class RedisObserver(Protocol):
    """Is told how each call went."""

    def redis_answered(self, script: str, seconds: float) -> None:
        """A script, or COMMAND, was answered so long after it was sent."""

    def redis_failed(self, error: str) -> None:
        """A call failed with an error of this code."""


class Scripts:
    """Runs verbs on a Redis. All raise RedisAwayError, RedisFullError, UnknownPoolError or RedisRefusedError.

    `takes_writes`: False from a refusal to write until a verb that writes has run. `watcher` sees each reply first;
    `restore` brings back a pool that Redis has lost, if it can; `observer` is told how each call went.
    """

    def __init__(self, redis: RedisClient, *, clock: str | None = None) -> None:
        self._redis = redis
        self._scripts = load(clock)
        self._turns = asyncio.Semaphore(MOST_CALLS_AT_ONCE)
        self.takes_writes = True
        self.watcher: PoolWatcher | None = None
        self.restore: Callable[[str], Awaitable[bool]] | None = None
        self.observer: RedisObserver | None = None

    async def run(self, verb: str, keys: PoolKeys, *args: str | bytes | int) -> list[Any]:
        """Run a verb once and return its reply. What Redis has forgotten, script or pool, it is given again, unseen."""
        try:
            reply = await self._run(verb, keys, *args)
        except UnknownPoolError:
            if self.restore is None or not await self.restore(keys.pool):
                raise
            reply = await self._run(verb, keys, *args)
        if self.watcher is not None:
            self.watcher.saw(keys.pool, reply[0])
        return reply

    async def _run(self, verb: str, keys: PoolKeys, *args: str | bytes | int) -> list[Any]:
        script = self._scripts[verb]
        call = (len(keys.in_order), *keys.in_order, *args)
        with self._our_errors(keys.pool):
            async with self._turn():
                began = time.perf_counter()
                try:
                    reply = await self._execute("EVALSHA", script.sha, *call)
                except redis_errors.NoScriptError:
                    reply = await self._execute("EVAL", script.text, *call)
        if self.observer is not None:
            self.observer.redis_answered(verb, time.perf_counter() - began)
        if verb not in READING_VERBS:
            self.takes_writes = True
        result: list[Any] = reply
        return result

    async def command(self, *args: str | bytes | int) -> Any:  # noqa: ANN401 - replies are what they are
        """Run a plain command, with the same errors."""
        with self._our_errors(""):
            async with self._turn():
                began = time.perf_counter()
                reply = await self._execute(*args)
        if self.observer is not None:
            self.observer.redis_answered(COMMAND, time.perf_counter() - began)
        return reply

    async def ask_each_server(self, *command: str) -> list[Any]:
        """What each server answers to a plain command, with the same errors."""
        with self._our_errors(""):
            return await ask_each_server(self._redis, *command)

    async def wait(self, *args: str | bytes | int) -> Any:  # noqa: ANN401 - replies are what they are
        """Run a command that blocks until there is news: on a connection of its own, at nobody's expense."""
        with self._our_errors(""):
            return await self._execute(*args)

    async def _execute(self, *args: str | bytes | int) -> Any:  # noqa: ANN401 - replies are what they are
        """redis-py loses a cancellation that comes while it connects: raise it afterwards, or a loop never stops."""
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            return await self._redis.execute_command(*args)
        except redis_errors.ResponseError as error:
            await self._note_refusal(error)
            raise
        finally:
            if task and task.cancelling() > before:
                raise asyncio.CancelledError

    async def _note_refusal(self, error: redis_errors.ResponseError) -> None:
        is_read_only = isinstance(error, redis_errors.ReadOnlyError) or READ_ONLY.search(str(error))
        if is_read_only or REFUSES_WRITES.search(str(error)):
            self.takes_writes = False
        if is_read_only:
            await leave(self._redis)

    @contextmanager
    def _our_errors(self, pool: str) -> Iterator[None]:
        try:
            yield
        except (*REDIS_ERRORS, OSError, asyncio.IncompleteReadError) as error:
            ours = _translated(error, pool)
            if self.observer is not None:
                self.observer.redis_failed(ours.code)
            raise ours from error

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()


def _translated(error: Exception, pool: str) -> PresenceError:
    if isinstance(error, redis_errors.ResponseError):
        return _said(error, pool)
    if isinstance(error, CLUSTER_ERRORS):
        if NO_CLUSTER in str(error):
            return WrongRedisError("this Redis is no cluster: write redis:// in place of redis+cluster://")
        return RedisAwayError("The Redis cluster cannot serve at the moment; try again soon.")
    return RedisAwayError("Redis does not answer; try again in a moment.")


def _said(error: redis_errors.ResponseError, pool: str) -> PresenceError:
    text = str(error)
    if NO_POOL.search(text):
        return UnknownPoolError(f"There is no pool named {pool!r}. Create it with PUT /v1/pools/{pool}.")
    if isinstance(error, redis_errors.MovedError):
        return WrongRedisError("this Redis belongs to a cluster: write redis+cluster:// in place of redis://")
    if isinstance(error, redis_errors.OutOfMemoryError) or FULL.search(text):
        return RedisFullError("Redis is out of memory; nothing can be added until something is freed.")
    if isinstance(error, AWAY_ERRORS) or AWAY.search(text):
        return RedisAwayError("Redis cannot serve at the moment; try again soon.")
    return RedisRefusedError(f"Redis refused what was asked of pool {pool!r}: {text}")


@dataclass(slots=True)
class _Lane:
    """The items of one verb and pool that wait for their call."""

    keys: PoolKeys
    waiting: list[tuple[bytes, asyncio.Future[Any]]] = field(default_factory=list)
    is_running: bool = False


class Coalescer:
    """The seam through which every item goes: those of one loop turn, and those that come while a call of the same
    verb and pool is under way, share a script call and a round trip."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, verb: str, keys: PoolKeys, item: bytes) -> asyncio.Future[tuple[Any, Any]]:
        """Add an item; the future gives the head of the reply and the item's own entry."""
        lane = self._lanes.get((verb, keys.pool))
        if lane is None:
            lane = self._lanes[verb, keys.pool] = _Lane(keys)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, Any]] = loop.create_future()
        lane.waiting.append((item, future))
        if not lane.is_running:
            lane.is_running = True
            task = loop.create_task(self._run_lane(verb, lane), name=f"redis {verb} {keys.pool}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def _run_lane(self, verb: str, lane: _Lane) -> None:
        try:
            while lane.waiting:
                batch, lane.waiting = lane.waiting[:MOST_ITEMS_PER_CALL], lane.waiting[MOST_ITEMS_PER_CALL:]
                await self._run_batch(verb, lane.keys, batch)
        finally:
            lane.is_running = False

    async def _run_batch(
        self, verb: str, keys: PoolKeys, batch: Sequence[tuple[bytes, asyncio.Future[Any]]]
    ) -> None:
        try:
            head, *entries = await self._scripts.run(verb, keys, *(item for item, _ in batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller must hear of it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), entry in zip(batch, entries, strict=True):
            if not future.done():
                future.set_result((head, entry))
