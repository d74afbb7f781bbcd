"""The flusher's port into the live store: which sessions changed, and what became of their rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import wraps
from itertools import count, repeat
from typing import Any, ParamSpec, TypeVar

import msgspec

from persistence.errors import SourceAwayError
from persistence.port import FROM_THE_START, Backlog, Outcome, Touched
from persistence.rows import PoolRow, PresenceRow
from server.domain.errors import RedisAwayError, RedisFullError, RedisRefusedError, UnknownPoolError
from server.live.store import Store

# A script holds Redis for as long as it runs: a few milliseconds for so many.
SESSIONS_PER_CALL = 500
GIVE_BACK = 0

_encode = msgspec.msgpack.Encoder().encode
# False where the record has no such field.
_Values = list[str | bool]
_decode_records = msgspec.msgpack.Decoder(list[_Values]).decode
_decode_touched = msgspec.msgpack.Decoder(tuple[list[str], list[int]]).decode

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


# The record's fields in the order of PresenceRow's.
_NAMES = (
    "session_id",
    "user_id",
    "pool",
    "status",
    "version",
    "started_at",
    "last_seen",
    "is_in_interview",
    "language_code",
    "current_page",
    "completed_at",
    "interview_started_at",
    "interview_ended_at",
    "waited_s",
    "end_reason",
    "metadata",
)
# Those that are not text, and how they are read.
_READERS: dict[str, Callable[[str], int | float]] = {
    **dict.fromkeys((name for name in _NAMES if name.endswith("_at")), int),
    "version": int,
    "last_seen": int,
    "is_in_interview": "1".__eq__,
    "waited_s": float,
}
_READERS_IN_ORDER = tuple(_READERS.get(name) for name in _NAMES)


class StoreDirtySessions:
    """Implements `persistence.port.DirtySessions` over the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = secrets.token_hex(4)
        self._parts = count(1)

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
    async def touch(self, pool: str, limit: int, cursor: int = FROM_THE_START) -> Touched:
        """Bring `last_seen` of everyone present or in permit grace up to date; see the port."""
        keys = self._store.keys(pool)
        parts: list[str] = []
        touched: list[tuple[str, int, int]] = []
        most = min(limit, SESSIONS_PER_CALL)
        # No smaller calls for the last few: thousands who have left would then be gone through one by one.
        while len(touched) + most <= limit:
            part = f"{self._name}:{next(self._parts)}"
            _, cursor, last_seen_ms, packed = await self._store.scripts.run("touch", keys, cursor, most, part)
            found = [*zip(*_decode_touched(packed), repeat(last_seen_ms), strict=False)]
            if found:
                parts.append(part)
                touched += found
            if cursor < 0:
                break
        session_ids, versions, last_seen = zip(*touched, strict=True) if touched else ((), (), ())
        return Touched(parts, session_ids, versions, last_seen, None if cursor < 0 else cursor)

    @_as_the_port_says
    async def ack_touch(self, pool: str, touched: Touched, missed: Sequence[str]) -> None:
        """Confirm what was touched after commit; see the port."""
        keys = self._store.keys(pool)
        for start in range(0, len(missed), SESSIONS_PER_CALL):
            part = missed[start : start + SESSIONS_PER_CALL]
            await self._store.scripts.run("touch_ack", keys, _encode(([], part)))
        await self._store.scripts.run("touch_ack", keys, _encode((touched.parts, [])))

    @_as_the_port_says
    async def take(self, pool: str, limit: int, skip: int = 0) -> Sequence[PresenceRow]:
        """Up to `limit` dirty sessions with their state, behind the `skip` longest dirty; see the port."""
        keys = self._store.keys(pool)
        records: dict[str | bool, _Values] = {}
        while limit > 0:
            most = min(limit, SESSIONS_PER_CALL)
            _, gone, packed = await self._store.scripts.run("flush_take", keys, skip, most, *_NAMES)
            found = _decode_records(packed)
            # Two calls may meet the same session, if Redis's clock was set back between them.
            records.update((values[0], values) for values in found)
            if len(found) + gone < most:
                break
            skip, limit = skip + len(found), limit - len(found)
        return _rows(records.values())

    @_as_the_port_says
    async def ack(self, pool: str, outcomes: Sequence[Outcome]) -> None:
        """Confirm rows after commit; see the port."""
        keys = self._store.keys(pool)
        for start in range(0, len(outcomes), SESSIONS_PER_CALL):
            part = outcomes[start : start + SESSIONS_PER_CALL]
            await self._store.scripts.run("flush_ack", keys, _encode(_sorted_out(part)))

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


def _sorted_out(outcomes: Sequence[Outcome]) -> tuple[Sequence[object], ...]:
    """What is committed by columns, which nearly all are, and what was refused one by one."""
    refused = [outcome for outcome in outcomes if outcome.final or outcome.refused_by is not None]
    committed = set(outcomes).difference(refused) if refused else outcomes
    session_ids, versions, last_seen, *_ = zip(*committed, strict=True) if committed else ((), (), ())
    return session_ids, versions, last_seen, refused


def _rows(records: Collection[_Values]) -> list[PresenceRow]:
    """The rows, read column by column, which takes half the time."""
    columns = map(_read, _READERS_IN_ORDER, zip(*records, strict=True))
    return [PresenceRow(*values) for values in zip(*columns, strict=True)]


def _read(
    read: Callable[[str], int | float] | None, column: Sequence[str | bool]
) -> Sequence[str | int | float | None]:
    if read is None:
        return [None if value is False else value for value in column]
    return [read(value) if isinstance(value, str) else None for value in column]
