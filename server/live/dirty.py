"""The flusher's port into the live store: which sessions changed, and what became of their rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import msgspec

from persistence.errors import SourceAwayError
from persistence.port import Backlog, Outcome
from persistence.rows import PoolRow, PresenceRow
from server.domain.errors import RedisAwayError, RedisFullError, RedisRefusedError, UnknownPoolError
from server.live.scripts import MOST_ITEMS_PER_CALL
from server.live.store import Store
from server.live.verbs import Ack

SESSIONS_PER_TOUCH = 500
NEWEST = -1
GIVE_BACK = 0

_encode = msgspec.json.Encoder().encode

Args = ParamSpec("Args")
Result = TypeVar("Result")


def _as_the_port_says(
    method: Callable[Args, Coroutine[Any, Any, Result]],
) -> Callable[Args, Coroutine[Any, Any, Result]]:
    """Raise the port's error. A pool may be unknown for a moment: its name is written before it is."""

    @wraps(method)
    async def call(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        try:
            return await method(*args, **kwargs)
        except (RedisAwayError, RedisFullError, RedisRefusedError, UnknownPoolError) as error:
            raise SourceAwayError(str(error)) from error

    return call


def _text(value: bytes) -> str:
    return value.decode()


def _flag(value: bytes) -> bool:
    return value == b"1"


# The record's fields in the order of PresenceRow's, with how each is read.
_FIELDS: tuple[tuple[str, Callable[[bytes], Any]], ...] = (
    ("session_id", _text),
    ("user_id", _text),
    ("pool", _text),
    ("status", _text),
    ("version", int),
    ("started_at", int),
    ("last_seen", int),
    ("is_in_interview", _flag),
    ("language_code", _text),
    ("current_page", _text),
    ("completed_at", int),
    ("interview_started_at", int),
    ("interview_ended_at", int),
    ("waited_s", float),
    ("end_reason", _text),
    ("metadata", _text),
)
_NAMES = tuple(name for name, _ in _FIELDS)
_READERS = tuple(reader for _, reader in _FIELDS)


class StoreDirtySessions:
    """Implements `persistence.port.DirtySessions` over the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @_as_the_port_says
    async def pools(self) -> Sequence[PoolRow]:
        """All pools with their present limit and mode."""
        rows = []
        for pool in await self._store.pool_names():
            state = await self._store.state(pool)
            rows.append(PoolRow(pool=pool, limit=state.limit, mode=state.mode.value))
        return rows

    @_as_the_port_says
    async def lease(self, pool: str, holder: str, ttl_ms: int) -> bool:
        """Take or renew the flush lease of a pool; False while another holder has it."""
        _, is_ours = await self._store.scripts.run("flush_lease", self._store.keys(pool), holder, ttl_ms)
        return bool(is_ours)

    @_as_the_port_says
    async def release_lease(self, pool: str, holder: str) -> None:
        """Give the lease back, if it is still this holder's."""
        await self._store.scripts.run("flush_lease", self._store.keys(pool), holder, GIVE_BACK)

    @_as_the_port_says
    async def touch(self, pool: str) -> None:
        """Bring `last_seen` of everyone present or in permit grace up to date, and mark them dirty."""
        keys = self._store.keys(pool)
        rank = NEWEST
        while True:
            _, rank = await self._store.scripts.run("touch", keys, rank, SESSIONS_PER_TOUCH)
            if rank < 0:
                return

    @_as_the_port_says
    async def take(self, pool: str, limit: int) -> Sequence[PresenceRow]:
        """Up to `limit` dirty sessions with their state, the longest dirty first. They stay dirty until acked."""
        _, *records = await self._store.scripts.run("flush_take", self._store.keys(pool), limit, *_NAMES)
        return [_row(values) for values in records]

    @_as_the_port_says
    async def ack(self, pool: str, outcomes: Sequence[Outcome]) -> None:
        """Confirm rows after commit; see the port."""
        keys = self._store.keys(pool)
        for start in range(0, len(outcomes), MOST_ITEMS_PER_CALL):
            acks = [_encode(_ack(outcome)) for outcome in outcomes[start : start + MOST_ITEMS_PER_CALL]]
            await self._store.scripts.run("flush_ack", keys, *acks)

    @_as_the_port_says
    async def backlog(self, pool: str) -> Backlog:
        """How much waits to be written."""
        command = self._store.scripts.command
        key = self._store.keys(pool).dirty
        sessions = await command("ZCARD", key)
        oldest = await command("ZRANGE", key, 0, 0, "WITHSCORES")
        if not oldest:
            return Backlog(sessions=0, oldest_age_ms=0)
        seconds, micros = await command("TIME")
        score = oldest[0][1] if isinstance(oldest[0], list | tuple) else oldest[1]
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return Backlog(sessions=sessions, oldest_age_ms=max(0, now_ms - int(float(score))))

    @_as_the_port_says
    async def known(self, pool: str, session_ids: Sequence[str]) -> Collection[str]:
        """Those of `session_ids` that Redis has a record of."""
        keys, command = self._store.keys(pool), self._store.scripts.command
        return {each for each in session_ids if await command("EXISTS", keys.session(each))}


def _row(values: Sequence[bytes | None]) -> PresenceRow:
    read: list[Any] = [
        None if value is None else reader(value) for reader, value in zip(_READERS, values, strict=True)
    ]
    return PresenceRow(*read)


def _ack(outcome: Outcome) -> Ack:
    return Ack(
        session_id=outcome.session_id,
        version=outcome.version,
        last_seen=outcome.last_seen_ms,
        refused_by=outcome.refused_by,
        final=outcome.final,
    )
