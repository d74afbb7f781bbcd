"""The names of the Redis keys (CONTRACT 6). All keys of a pool share one hash tag, so they share a cluster slot."""

from __future__ import annotations

from dataclasses import dataclass, field

POOLS = "presence:pools"

# The order in which every script gets the pool's keys (KEYS[1], KEYS[2], ...); the prelude names them in this order.
SCRIPT_KEYS = (
    "config",
    "online",
    "offline",
    "interviews",
    "offers",
    "grace",
    "line",
    "ready",
    "absent",
    "sessions",
    "ended",
    "dirty",
    "lengths",
    "events",
    "tallies",
)


@dataclass(slots=True, frozen=True)
class PoolKeys:
    """The keys of one pool. `in_order` is what every script gets as its KEYS."""

    pool: str
    prefix: str = field(init=False)
    in_order: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        prefix = f"presence:{{{self.pool}}}:"
        object.__setattr__(self, "prefix", prefix)
        object.__setattr__(self, "in_order", tuple(prefix + name for name in SCRIPT_KEYS))

    @property
    def config(self) -> str:
        """HASH: limit, mode, timings, clocks and counters."""
        return self.prefix + "config"

    @property
    def events(self) -> str:
        """STREAM: what happened."""
        return self.prefix + "events"

    @property
    def tallies(self) -> str:
        """HASH: how often what happened, since Redis' memory began."""
        return self.prefix + "tallies"

    @property
    def sessions(self) -> str:
        """ZSET: the sessions that have not ended, by start time."""
        return self.prefix + "sessions"

    @property
    def ended(self) -> str:
        """ZSET: ended sessions whose final row is not committed yet, by start time."""
        return self.prefix + "ended"

    @property
    def dirty(self) -> str:
        """ZSET: sessions not yet flushed, by when they became dirty."""
        return self.prefix + "dirty"

    @property
    def rows(self) -> str:
        """HASH: the row of each dirty session behind its score in `dirty`, as a line (`persistence.lines`)."""
        return self.prefix + "rows:1"

    @property
    def lease(self) -> str:
        """STRING with TTL: which node flushes this pool."""
        return self.prefix + "flush_lease"

    def session(self, session_id: str) -> str:
        """HASH: the record of a session."""
        return f"{self.prefix}session:{session_id}"

    def alive(self, session_id: str) -> str:
        """STRING with TTL: presence; its value is the connection id, or `-` while there is no connection."""
        return f"{self.prefix}alive:{session_id}"

    def tombstone(self, session_id: str) -> str:
        """HASH with TTL: how a session ended that is no longer here."""
        return f"{self.prefix}tombstone:{session_id}"

    def user(self, user_id: str) -> str:
        """ZSET: the user's sessions that have not ended, by start time."""
        return f"{self.prefix}user:{user_id}"
