"""This node's connections, by pool and session, and what it remembers of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from msgspec import structs

from server.domain.events import Event
from server.domain.interview import Admission, InterviewState
from server.domain.pool import PoolConfig, PoolState
from server.domain.token import TokenClaims
from server.node.protocol import Transport

NOWHERE = Admission(InterviewState.NONE)


@dataclass(slots=True, eq=False)
class Held:
    """What a node remembers of a session whose connection it holds.

    It is enough to register the session again after Redis lost its memory: who, which connection and attempt,
    and with which permit (`standing.fence`) or ticket. `fence` is the highest ever seen, so that a late
    event of an older grant is recognised. `untold`: page or visibility have not reached the store yet.
    """

    session_id: str
    pool: str
    user_id: str
    language_code: str | None
    started_at: int
    connection_id: str
    tab: str | None
    attempt: int
    page: str | None
    visible: bool | None
    token_expires_at: float
    standing: Admission = NOWHERE
    told_at: float = 0.0
    fence: int = 0
    untold: bool = False

    def claims(self) -> TokenClaims:
        """What a token for this session says now."""
        return TokenClaims(
            session_id=self.session_id,
            pool=self.pool,
            user_id=self.user_id,
            started_at=self.started_at,
            language_code=self.language_code,
            fence=self.standing.fence,
            ticket=self.standing.ticket,
        )


class Member(Protocol):
    """A connection, as the hub and the loops see it."""

    held: Held

    def send_text(self, frame: str) -> None:
        """Send an encoded message."""

    def hear(self, event: Event) -> None:
        """Something happened to this session."""

    def compare(self, fence: int | None, *, waits: bool) -> None:
        """Events were missed: the session holds the permit with this fence, or waits, or neither."""

    def place(self, position: int, waiting: int) -> None:
        """The session's position in the line, of `waiting`."""

    def refresh_token(self) -> None:
        """Send a newer token."""

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket; the session stays as it is."""

    def replaced_by(self, tab: str | None) -> None:
        """Another connection of the session is the current one, made by `tab`: close."""

    async def tell(self) -> None:
        """Tell the store what it has not been told of the page."""

    async def reconcile(self) -> None:
        """The store no longer takes this connection for the current one: find out why, and act."""


@dataclass(slots=True, eq=False)
class LocalPool:
    """This node's share of a pool: its members, and what they were told of the whole (`state`: the watchers)."""

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    watchers: set[Member] = field(default_factory=set)
    config: PoolConfig | None = None
    state: PoolState | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    line_moved: bool = False
    config_changed: bool = True
    last_seq: int = 0

    def waiters(self) -> dict[str, Member]:
        """The members that are in the line, as far as they were told."""
        return {
            session_id: member
            for session_id, member in self.members.items()
            if member.held.standing.state is InterviewState.WAITING
        }

    def is_news(self, state: PoolState) -> bool:
        """Whether the watchers were not told these counts yet."""
        return self.state is None or _counts(state) != _counts(self.state)

    @property
    def longest_interview_ms(self) -> int | None:
        """How long a permit granted now lasts; None: no limit, or not known."""
        return int(self.config.max_interview_s * 1000) or None if self.config else None


class Hub:
    """Who is connected here.

    `greeting` has those that owe a hello, with the time by which it is due; `has_new_pool` is set when somebody
    came of a pool that nobody here was of before.
    """

    def __init__(self) -> None:
        self.pools: dict[str, LocalPool] = {}
        self.greeting: dict[Transport, float] = {}
        self.has_new_pool = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(pool.members) for pool in self.pools.values())

    def __iter__(self) -> Iterator[Member]:
        """All members; a copy, so that they may come and go meanwhile."""
        return iter([member for pool in self.pools.values() for member in pool.members.values()])

    def pool(self, name: str) -> LocalPool:
        """This node's share of the pool of that name."""
        if name not in self.pools:
            self.pools[name] = LocalPool(name)
            self.has_new_pool.set()
        return self.pools[name]

    def join(self, member: Member) -> None:
        """Make `member` its session's connection here; of two, the newer is and the other is told."""
        members = self.pool(member.held.pool).members
        winner, loser = member, members.get(member.held.session_id)
        if loser is not None and is_newer(loser.held.connection_id, member.held.connection_id):
            winner, loser = loser, member
        members[member.held.session_id] = winner
        if loser is not None:
            loser.replaced_by(winner.held.tab)

    def holds(self, member: Member) -> bool:
        """Whether `member` is its session's connection here."""
        return self.pool(member.held.pool).members.get(member.held.session_id) is member

    def leave(self, member: Member) -> bool:
        """Forget `member`; False if it was not, or no longer, its session's connection."""
        pool = self.pool(member.held.pool)
        pool.watchers.discard(member)
        if not self.holds(member):
            return False
        del pool.members[member.held.session_id]
        return True

    def late(self, now: float) -> list[Transport]:
        """Those whose hello is overdue; they came in the order of their deadlines."""
        overdue = []
        for transport, due in self.greeting.items():
            if due > now:
                break
            overdue.append(transport)
        return overdue

    def batches(self, size: int) -> list[tuple[str, list[Member]]]:
        """All members in batches of one pool each."""
        found = []
        for pool in self.pools.values():
            members = iter(list(pool.members.values()))
            while batch := list(islice(members, size)):
                found.append((pool.name, batch))
        return found


def is_newer(connection_id: str, other: str) -> bool:
    """Whether the first connection was made after the other. The ids are numbers that only rise."""
    return int(connection_id) > int(other)


def _counts(state: PoolState) -> PoolState:
    """A state without what changes all the time."""
    return structs.replace(state, at=0, seq=0, more=False)
