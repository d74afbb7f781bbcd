"""Follows the pools' event streams with blocking reads, and notices when an event was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from server.domain.errors import RedisAwayError, RedisRefusedError, UnknownPoolError
from server.domain.events import Event, EventType
from server.domain.pool import PoolState
from server.live.store import Store
from server.live.stream import Mark
from server.live.verbs import Snapshot

log = structlog.get_logger(__name__)

BLOCK_MS = 1000
MOST_EVENTS_PER_READ = 500
RETRY_S = 0.5

OnEvent = Callable[[str, Event], None]
OnResync = Callable[[str, Snapshot], None]


_TYPES = frozenset(EventType)


@dataclass(slots=True)
class _Position:
    """Where in a pool's stream we are: the last event seen."""

    last_id: str
    epoch: str
    seq: int

    def follows(self, mark: Mark) -> bool:
        return mark.epoch == self.epoch and mark.seq == self.seq + 1


class Follower:
    """Calls `on_event` for each event of the pools that it watches, in order, and `on_resync` with a snapshot at the
    start and whenever an event may have been missed: a gap, another epoch, or a stream that ends before our place."""

    def __init__(self, store: Store, *, on_event: OnEvent, on_resync: OnResync) -> None:
        self._store = store
        self._on_event = on_event
        self._on_resync = on_resync
        self._positions: dict[str, _Position] = {}
        self._watched: set[str] = set()
        self._followed: set[str] = set()
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled. Each pool has a task and a connection, so that pools may lie on several shards."""
        async with asyncio.TaskGroup() as group:
            while True:
                for pool in self._watched - self._followed:
                    group.create_task(self._follow(pool), name=f"follow {pool}")
                self._followed |= self._watched
                self._more.clear()
                await self._more.wait()

    def watch(self, pool: str) -> None:
        """Follow this pool too, from now on."""
        if pool not in self._watched:
            self._watched.add(pool)
            self._more.set()

    def notice(self, state: PoolState) -> None:
        """Compare with a pool's state: a stream that was lost or restored sends nothing that would tell us."""
        position = self._positions.get(state.pool)
        if position is not None and state.epoch != position.epoch:
            self._positions.pop(state.pool)

    async def _follow(self, pool: str) -> None:
        while True:
            try:
                await self._step(pool)
            except (RedisAwayError, RedisRefusedError, UnknownPoolError) as error:
                log.debug("follower_waits", pool=pool, error=str(error))
                self._positions.pop(pool, None)
                await asyncio.sleep(RETRY_S)

    async def _step(self, pool: str) -> None:
        position = self._positions.get(pool)
        if position is None:
            position = self._positions[pool] = await self._resync(pool)
        for entry_id, fields in await self._read(pool, position.last_id):
            if self._positions.get(pool) is not position:
                return  # `notice` found the stream replaced
            position.last_id = entry_id
            if (mark := _mark(fields)) is None:
                log.warning("foreign_event_skipped", pool=pool, id=entry_id)
            elif not position.follows(mark):
                log.info(
                    "follower_resyncs", pool=pool, epoch=mark.epoch, seq=mark.seq, expected=position.seq + 1
                )
                self._positions.pop(pool)
                return
            else:
                position.seq = mark.seq
                self._tell(pool, mark, {**fields, "id": entry_id})

    def _tell(self, pool: str, mark: Mark, fields: dict[str, str]) -> None:
        """A newer node, in a rolling deploy, may write events that this one does not know."""
        if mark.type in _TYPES:
            self._on_event(pool, msgspec.convert(fields, Event, strict=False))

    async def _resync(self, pool: str) -> _Position:
        snapshot = await self._store.snapshot(pool)
        self._on_resync(pool, snapshot)
        return _Position(snapshot.last_event_id, snapshot.state.epoch, snapshot.state.seq)

    async def _read(self, pool: str, last_id: str) -> list[tuple[str, dict[str, str]]]:
        key = self._store.keys(pool).events
        reply = await self._store.scripts.wait(
            "XREAD", "COUNT", MOST_EVENTS_PER_READ, "BLOCK", BLOCK_MS, "STREAMS", key, last_id
        )
        return [(entry_id.decode(), _text(fields)) for entry_id, fields in _entries(reply)]


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:  # noqa: ANN401 - RESP2 and RESP3 differ
    if not reply:
        return []
    entries = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
    return list(entries)


def _text(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def _mark(fields: dict[str, str]) -> Mark | None:
    """None: somebody else wrote into the stream."""
    try:
        return msgspec.convert(fields, Mark, strict=False)
    except msgspec.ValidationError:
        return None
