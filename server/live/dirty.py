"""The flusher's port into the live store: which sessions changed, and what became of their rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import wraps
from itertools import count, repeat
from typing import Any, ParamSpec, TypeVar

import msgspec

from persistence.errors import SourceAwayError
from persistence.lines import read_line, session_id_of
from persistence.port import ALL_WRITTEN, FROM_THE_START, Backlog, Taken, Touched, Written
from persistence.rows import PoolRow
from server.domain.errors import RedisAwayError, RedisFullError, RedisRefusedError, UnknownPoolError
from server.live.store import Store

# A script holds Redis for as long as it runs: a few milliseconds for so many.
SESSIONS_PER_CALL = 500
GIVE_BACK = 0

_encode = msgspec.msgpack.Encoder().encode
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
    async def take(self, pool: str, limit: int, skip: int = 0) -> Taken:
        """Up to `limit` dirty sessions with their state, behind the `skip` longest dirty; see the port."""
        keys = self._store.keys(pool)
        lines: dict[str, str] = {}
        receipts: list[bytes] = []
        while limit > 0:
            most = min(limit, SESSIONS_PER_CALL)
            _, gone, receipt, written = await self._store.scripts.run("flush_take", keys, skip, most)
            found = [read_line(line) for line in written]
            # Two calls may meet the same session, if it changed between them or Redis's clock was set back.
            lines.update((session_id_of(line), line) for line in found)
            receipts.append(receipt)
            if len(found) + gone < most:
                break
            skip, limit = skip + len(found), limit - len(found)
        return Taken(list(lines.values()), receipts)

    @_as_the_port_says
    async def ack(self, pool: str, taken: Taken, written: Written = ALL_WRITTEN) -> None:
        """Confirm rows after commit; see the port."""
        run, keys = self._store.scripts.run, self._store.keys(pool)
        uncommitted = _encode([*written.left_out, *(refusal.session_id for refusal in written.refused)])
        for receipt in taken.receipts:
            await run("flush_ack", keys, receipt, uncommitted)
        for start in range(0, len(written.refused), SESSIONS_PER_CALL):
            await run("flush_refuse", keys, _encode(written.refused[start : start + SESSIONS_PER_CALL]))

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
