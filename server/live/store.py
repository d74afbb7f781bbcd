"""The live store: one method a verb. Every decision is made by the Lua script of the same name."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeGuard, TypeVar

import msgspec
from msgspec.structs import replace

from server.domain.errors import (
    BadTokenError,
    PresenceError,
    SessionEndedError,
    SessionIdTakenError,
    StaleConnectionError,
    StaleFenceError,
    SupersededAttemptError,
    UnknownPoolError,
    UnknownSessionError,
)
from server.domain.interview import Admission
from server.domain.pool import DEFAULT_POOL, PoolChanges, PoolConfig, PoolState
from server.domain.session import SessionRecord
from server.live.connect import RedisClient
from server.live.keys import POOLS, PoolKeys
from server.live.scripts import Coalescer, PoolWatcher, Scripts
from server.live.verbs import (
    Beat,
    Claim,
    Connect,
    Connected,
    Drop,
    Finish,
    Forget,
    Forgot,
    Holder,
    Item,
    Look,
    Open,
    Opened,
    Release,
    Renewal,
    Seen,
    Snapshot,
    Update,
)

Reply = TypeVar("Reply")

# How many times a bounded pump is run again within one call, before the next tick goes on with it.
MOST_ROUNDS = 50
SESSIONS_PER_READ = 100
MOST_PAST_PER_CALL = 200
# In the head of a reply: the pump stopped at its bound.
HAS_MORE = b'"more":true'
# Who changes a pool that a node makes, or makes anew.
NODE_ACTOR = "node"
# The clock may jump by so much at least, or deadlines would stand still between two ticks of a second.
LEAST_CLOCK_STEP_S = 1.2


class _ConnectReply(msgspec.Struct, frozen=True):
    connection_id: str
    resumed: bool
    record: SessionRecord
    admission: Admission


class _ChangedAt(msgspec.Struct, frozen=True):
    """When somebody last changed the pool (wall-clock ms; 0: nobody did)."""

    changed_at: int = 0


class _Memory(msgspec.Struct, frozen=True):
    """A pool's configuration as this node last saw it."""

    config: PoolConfig
    changed_at: int


# Redis keeps every value as text; in lax mode "1" is an int or true where the type says so.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind, strict=False)
    for kind in (Opened, _ConnectReply, Seen, Admission, PoolState, PoolConfig, _ChangedAt, Forgot)
}
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True, frozen=True)
class NodeTimings:
    """What a node tells each pool of itself. `history`: there is a Postgres to flush to."""

    alive_ttl_s: float
    renew_s: float
    tombstone_s: float
    history: bool

    def fields(self) -> dict[str, int]:
        """The fields as they stand in the pool's config."""
        step_s = max(LEAST_CLOCK_STEP_S, self.alive_ttl_s - 2 * self.renew_s - 1)
        return {
            "alive_ttl_ms": round(self.alive_ttl_s * 1000),
            "max_step_ms": round(step_s * 1000),
            "tombstone_ms": round(self.tombstone_s * 1000),
            "history": int(self.history),
        }


def decode(kind: type[Reply], data: bytes) -> Reply:
    """A script's JSON as a `kind`."""
    decoded: Reply = _DECODERS[kind].decode(data)
    return decoded


def refusal(text: str) -> PresenceError:
    """The error for a script's refusal, which it writes as `!code` or `!code detail`."""
    code, _, detail = text.removeprefix("!").partition(" ")
    match code:
        case "unknown":
            return UnknownSessionError("There is no session of that id. Open it with POST /v1/sessions.")
        case "ended":
            return SessionEndedError(detail)
        case "stale_fence":
            return StaleFenceError("That permit is not this session's newest; nothing was changed.")
        case "stale_connection":
            return StaleConnectionError("The session has another connection by now; nothing was changed.")
        case "superseded":
            return SupersededAttemptError("A newer attempt of this tab has connected already.")
        case "bad_token":
            return BadTokenError("The token has expired. Ask for a new one.")
        case "session_id_taken":
            return SessionIdTakenError(
                "That session id belongs to another user's running session. Choose another."
            )
    raise ValueError(f"unknown refusal {text!r}")


def _is_here(seen: Seen | BaseException) -> TypeGuard[Seen]:
    """False: the session ended, was written and forgotten between listing and reading it."""
    if isinstance(seen, UnknownSessionError | SessionEndedError):
        return False
    if isinstance(seen, BaseException):
        raise seen
    return True


def _holders(flat: Sequence[bytes]) -> dict[str, Holder]:
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return {session_id.decode(): Holder(int(fence), int(since)) for session_id, fence, since in triples}


def _scored(flat: Any) -> list[tuple[int, str]]:  # noqa: ANN401 - RESP2 gives a flat list, RESP3 pairs
    pairs = (
        flat if flat and isinstance(flat[0], list | tuple) else list(zip(flat[::2], flat[1::2], strict=True))
    )
    return [(int(float(score)), member.decode()) for member, score in pairs]


class Store:
    """Live state in Redis. Every method raises RedisAwayError when Redis does not answer within about 2 s, and
    those that take a pool UnknownPoolError when it was never created."""

    def __init__(
        self,
        redis: RedisClient,
        *,
        node: str,
        defaults: PoolConfig,
        timings: NodeTimings,
        clock: str | None = None,
    ) -> None:
        self.node = node
        self.defaults = defaults
        self._timings = timings
        self._redis = redis
        self.scripts = Scripts(redis, clock=clock)
        self._coalescer = Coalescer(self.scripts)
        self._keys: dict[str, PoolKeys] = {}
        self._memory: dict[str, _Memory] = {}
        self._restoring = asyncio.Lock()

    def watch_pools(self, watcher: PoolWatcher) -> None:
        """Show `watcher` the head of every reply. From now on a pool that Redis has lost is made anew, as it was when
        last seen, by the first call that misses it."""
        self.scripts.watcher = watcher
        self.scripts.restore = self._restore

    async def _restore(self, pool: str) -> bool:
        """Make a pool anew that Redis has lost; False if it was never seen here."""
        if pool not in self._memory:
            return False
        async with self._restoring:
            if not await self.scripts.command("EXISTS", self.keys(pool).config):
                await self.configure(pool, PoolChanges(), actor=NODE_ACTOR)
        return True

    def keys(self, pool: str) -> PoolKeys:
        """The keys of a pool."""
        keys = self._keys.get(pool)
        if keys is None:
            keys = self._keys[pool] = PoolKeys(pool)
        return keys

    # Sessions

    async def open(self, pool: str, item: Open) -> Opened:
        """Open a session, or resume the user's. Raises SessionIdTakenError."""
        return (await self._do("open", pool, item, Opened))[1]

    async def connect(self, pool: str, item: Connect) -> Connected:
        """Make a connection the session's current one.

        Raises UnknownSessionError, SessionEndedError, SupersededAttemptError for a hello that a newer one of the same
        tab has overtaken, BadTokenError for an expired token whose session was away for longer than `resume_s`.
        """
        head, reply = await self._do("connect", pool, item, _ConnectReply)
        return Connected(
            connection_id=reply.connection_id,
            resumed=reply.resumed,
            record=reply.record,
            admission=reply.admission,
            state=decode(PoolState, head),
        )

    async def beat(self, pool: str, item: Beat) -> Seen:
        """A heartbeat over HTTP. Raises UnknownSessionError, SessionEndedError, StaleConnectionError."""
        return (await self._do("beat", pool, item, Seen))[1]

    async def update(self, pool: str, item: Update) -> Seen:
        """New values. Raises UnknownSessionError, SessionEndedError, StaleConnectionError."""
        return (await self._do("update", pool, item, Seen))[1]

    async def drop(self, pool: str, item: Drop) -> bool:
        """A connection was lost. False: it was not the current one, and nothing changed."""
        _, entry = await self._coalescer.submit("drop", self.keys(pool), _encode(item))
        return bool(entry)

    async def look(self, pool: str, item: Look) -> Seen:
        """A session as it stands, also an ended one. Raises UnknownSessionError; SessionEndedError once it is
        written to Postgres and gone from here."""
        return (await self._do("look", pool, item, Seen))[1]

    async def renew(self, pool: str, held: Sequence[tuple[str, str]]) -> list[Renewal]:
        """Extend the deadlines of (session_id, connection_id) pairs, some hundreds at a time."""
        _, *outcomes = await self.scripts.run(
            "renew", self.keys(pool), *(text for pair in held for text in pair)
        )
        return [Renewal(outcome) for outcome in outcomes]

    # Admission

    async def claim(self, pool: str, item: Claim) -> Admission:
        """Claim a permit. An ended session is `denied`. Raises UnknownSessionError."""
        return (await self._do("claim", pool, item, Admission))[1]

    async def release(self, pool: str, item: Release) -> Admission:
        """Give back the permit or leave the line; may be repeated. Raises UnknownSessionError, StaleFenceError."""
        return (await self._do("release", pool, item, Admission))[1]

    async def finish(self, pool: str, item: Finish) -> Admission:
        """End a session; may be repeated. Raises UnknownSessionError, StaleFenceError, and SessionEndedError if it
        ended in another way."""
        return (await self._do("finish", pool, item, Admission))[1]

    async def forget(self, pool: str, user_id: str, past: Sequence[str] = ()) -> Forgot:
        """Erase a person, whose sessions of the `past` the history tells of; may be repeated."""
        erased: list[str] = []
        step, left = Forget(user_id=user_id, session_ids=(), ended="0", events="-"), past
        while True:
            step, left = replace(step, session_ids=left[:MOST_PAST_PER_CALL]), left[MOST_PAST_PER_CALL:]
            _, reply = await self.scripts.run("forget", self.keys(pool), _encode(step))
            done = decode(Forgot, reply)
            erased += done.erased
            if not done.more and not left:
                return replace(done, erased=erased)
            step = replace(step, ended=done.ended, events=done.events)

    # Pools

    async def tick(self, pool: str) -> PoolState:
        """Reap what is past its deadline and pump, until nothing more is due."""
        state = await self._tick_once(pool)
        rounds = 1
        while state.more and rounds < MOST_ROUNDS:
            state = await self._tick_once(pool)
            rounds += 1
        return state

    async def _tick_once(self, pool: str) -> PoolState:
        (head,) = await self.scripts.run("tick", self.keys(pool))
        return decode(PoolState, head)

    async def cleanup(self, pool: str, older_than_s: float) -> int:
        """Abandon all sessions that have been offline for longer; how many."""
        abandoned = 0
        while True:
            head, ended = await self.scripts.run("cleanup", self.keys(pool), round(older_than_s * 1000))
            abandoned += int(ended)
            if not decode(PoolState, head).more:
                return abandoned

    async def configure(self, pool: str, changes: PoolChanges, *, actor: str) -> PoolConfig:
        """Create the pool if need be, change what is named, and hand over places that become free by it."""
        # The set is on another cluster slot than the pool: a name too many is harmless, one too few is not.
        if not await self.scripts.command("SISMEMBER", POOLS, pool):
            await self.scripts.command("SADD", POOLS, pool)
        request = {
            "defaults": self._defaults_of(pool),
            "node": self._timings.fields(),
            "changes": changes,
            "actor": actor,
            "salt": secrets.token_hex(8),
        }
        if pool in self._memory:
            request["memory"] = self._memory[pool]
        head, shown = await self.scripts.run("configure", self.keys(pool), _encode(request))
        if HAS_MORE in head:
            await self.tick(pool)
        return self._remember(pool, shown)

    def _defaults_of(self, pool: str) -> PoolConfig:
        """What the pool gets if it is made (anew): its window opens before the rest of the memory is applied."""
        memory = self._memory.get(pool)
        return (
            self.defaults if memory is None else replace(self.defaults, recovery_s=memory.config.recovery_s)
        )

    def _remember(self, pool: str, shown: bytes) -> PoolConfig:
        """Keep the newest configuration, to give it back to a Redis that has lost it."""
        config = decode(PoolConfig, shown)
        self._memory[pool] = _Memory(config, decode(_ChangedAt, shown).changed_at)
        return config

    async def config(self, pool: str) -> PoolConfig:
        """A pool's configuration."""
        names = (*PoolConfig.__struct_fields__, *_ChangedAt.__struct_fields__)
        values = await self.scripts.command("HMGET", self.keys(pool).config, *names)
        if values[0] is None:
            raise UnknownPoolError(f"There is no pool named {pool!r}. Create it with PUT /v1/pools/{pool}.")
        shown = {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}
        return self._remember(pool, _encode(shown))

    async def pool_names(self) -> list[str]:
        """All pools, sorted."""
        return sorted(name.decode() for name in await self.scripts.command("SMEMBERS", POOLS))

    async def state(self, pool: str) -> PoolState:
        """A pool's counts."""
        (head,) = await self.scripts.run("state", self.keys(pool))
        return decode(PoolState, head)

    async def tallies(self, pool: str) -> dict[str, int]:
        """How often what happened since Redis' memory began: by event, as `type` or `type:cause`, and `offer_taken` and
        `denied:reason`. Empty if there is no such pool."""
        counts = await self.scripts.command("HGETALL", self.keys(pool).tallies)
        return {name.decode(): int(count) for name, count in counts.items()}

    async def snapshot(self, pool: str) -> Snapshot:
        """The whole pool at one moment."""
        head, last, holders, offers, line, ready, lengths = await self.scripts.run(
            "snapshot", self.keys(pool)
        )
        return Snapshot(
            state=decode(PoolState, head),
            last_event_id=last.decode(),
            holders=_holders(holders),
            offers=[session_id.decode() for session_id in offers[::2]],
            offer_tickets=[int(float(ticket)) for ticket in offers[1::2]],
            line=[session_id.decode() for session_id in line],
            ready=frozenset(session_id.decode() for session_id in ready),
            lengths=[int(length) for length in lengths],
        )

    # Listing

    async def sessions(self, pool: str, *, before: tuple[int, str] | None, limit: int) -> list[Seen]:
        """Sessions that Redis knows, newest first by (started_at ms, session_id), after `before`."""
        keys = self.keys(pool)
        active = await self._newest(keys.sessions, before, limit)
        ended = await self._newest(keys.ended, before, limit)
        newest = sorted(active + ended, reverse=True)[:limit]
        looks = (self.look(pool, Look(session_id=session_id)) for _, session_id in newest)
        seen = await asyncio.gather(*looks, return_exceptions=True)
        return [one for one in seen if _is_here(one)]

    async def _newest(self, key: str, before: tuple[int, str] | None, limit: int) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        latest = "+inf" if before is None else before[0]
        for offset in count(0, SESSIONS_PER_READ):
            flat = await self.scripts.command(
                "ZREVRANGEBYSCORE", key, latest, "-inf", "WITHSCORES", "LIMIT", offset, SESSIONS_PER_READ
            )
            page = _scored(flat)
            found += [entry for entry in page if before is None or entry < before]
            if len(page) < SESSIONS_PER_READ or len(found) >= limit:
                break
        return found[:limit]

    async def find_pool(self, session_id: str) -> str | None:
        """The pool that has a session of this id, if any."""
        for pool in await self.pool_names():
            if await self.scripts.command("EXISTS", self.keys(pool).session(session_id)):
                return pool
        return None

    async def check_address(self) -> None:
        """Read two keys that lie on different shards of a cluster. Raises WrongRedisError if the URL takes a cluster
        for a single server, or the other way round."""
        for key in (POOLS, self.keys(DEFAULT_POOL).config):
            await self.scripts.command("EXISTS", key)

    @property
    def takes_writes(self) -> bool:
        """False while Redis refuses what writes (no replica, no master, no disk), though it answers what reads."""
        return self.scripts.takes_writes

    async def ping(self) -> None:
        """Whether Redis answers."""
        await self.scripts.command("PING")

    async def eviction_policies(self) -> set[str]:
        """What each server of this Redis throws away when it is full (`maxmemory-policy`)."""
        servers = await self.scripts.ask_each_server("INFO", "memory")
        return {str(memory.get("maxmemory_policy")) for memory in servers}

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._redis.aclose()

    async def _do(self, verb: str, pool: str, item: Item, kind: type[Reply]) -> tuple[bytes, Reply]:
        head, entry = await self._coalescer.submit(verb, self.keys(pool), _encode(item))
        if HAS_MORE in head:
            await self.tick(pool)
        if entry.startswith(b"!"):
            raise refusal(entry.decode())
        return head, decode(kind, entry)
