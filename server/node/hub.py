"""This node's connections, by pool and session, and what it remembers of each."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from msgspec import structs

from server.domain.events import Event, EventType
from server.domain.interview import Admission, InterviewState
from server.domain.pool import Capacity, PoolConfig, PoolState, capacity
from server.domain.session import ConnectionKind
from server.domain.token import TokenClaims, Verified
from server.live.verbs import Connect, Known
from server.node.line import Told
from server.node.outlook import Line
from server.node.protocol import Transport

NOWHERE = Admission(InterviewState.NONE)
# How long before the end of a permit its holder is warned.
WARN_BEFORE_END_S = (300.0, 60.0)
_EPOCH = re.compile(rb'"epoch":"([^"]*)"')
_RECOVERING = b'"recovering":true'


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _at(now: float, in_ms: int | None) -> float | None:
    return None if in_ms is None else now + in_ms / 1000


def _left(at: float | None, now: float) -> int | None:
    return None if at is None else max(0, round((at - now) * 1000))


@dataclass(slots=True, eq=False)
class Held:
    """What a node remembers of a session whose connection it holds.

    It is enough to register the session again after Redis lost its memory: who, which connection and attempt,
    and with which permit (`standing.fence`) or ticket. `fence` is the highest ever seen, so that a late
    event of an older grant is recognised. `untold`: page or visibility have not reached the store yet.
    `ends_at` and `offer_ends_at` are when permit and offer run out, `warn_at` when the next warning of that is due,
    all by the loop's clock; `beats_until`: until when the last heartbeat over HTTP counts.
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
    told: Told = ()
    fence: int = 0
    untold: bool = False
    kind: ConnectionKind = ConnectionKind.WS
    ends_at: float | None = None
    offer_ends_at: float | None = None
    warn_at: float = math.inf
    beats_until: float = 0.0

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

    def known(self) -> Known:
        """What a Redis is told that has lost its memory."""
        return Known(
            user_id=self.user_id,
            started_at=self.started_at,
            language_code=self.language_code,
            fence=self.fence or None,
            holds=self.standing.state is InterviewState.GRANTED,
            ticket=self.standing.ticket,
        )

    def remember(self, admission: Admission, now: float) -> None:
        """The session stands like this at `now`."""
        self.standing = admission
        self.fence = max(self.fence, admission.fence or 0)
        self.ends_at = _at(now, admission.ends_in_ms)
        self.offer_ends_at = _at(now, admission.offer_expires_in_ms)
        self.plan_warning(now)

    def plan_warning(self, now: float) -> None:
        """The next warning, before the permit runs out, that lies ahead at `now`."""
        warnings = () if self.ends_at is None else (self.ends_at - before for before in WARN_BEFORE_END_S)
        self.warn_at = min((at for at in warnings if at > now), default=math.inf)

    def standing_at(self, now: float) -> Admission:
        """How the session stands, with what is left of the times that run down."""
        return structs.replace(
            self.standing,
            ends_in_ms=_left(self.ends_at, now),
            offer_expires_in_ms=_left(self.offer_ends_at, now),
        )

    def note(self, event: Event) -> None:
        """The session's standing after `event`, as far as an event tells it."""
        match event.type:
            case EventType.GRANTED:
                self.standing = Admission(InterviewState.GRANTED, fence=event.fence)
                self.fence = max(self.fence, event.fence or 0)
            case EventType.WAITING | EventType.OFFER_MISSED:
                self.standing = Admission(InterviewState.WAITING, ticket=event.ticket)
            case EventType.OFFERED:
                self.standing = Admission(InterviewState.OFFERED, ticket=event.ticket)
            case EventType.RELEASED | EventType.LEFT_LINE | EventType.TAKEN_OVER:
                self.standing = NOWHERE


class Member(Protocol):
    """A connection, as the hub and the loops see it."""

    held: Held

    def send_text(self, frame: str) -> None:
        """Send an encoded message."""

    def hear(self, event: Event) -> None:
        """Something happened to this session."""

    def compare(self, state: InterviewState, fence: int | None) -> None:
        """Events were missed: the session stands like this, a permit has this fence."""

    def place(self, position: int, waiting: int) -> None:
        """The session's position in the line, of `waiting`."""

    def warn(self) -> None:
        """The permit runs out soon: say when."""

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

    async def register_again(self) -> None:
        """Tell the store, which may have lost its memory, of this connection and of what the session holds."""


@dataclass(slots=True, eq=False)
class LocalPool:
    """This node's share of a pool: its members, and what they were told of the whole (`state`: the watchers).

    `beating`: sessions whose pages showed a sign of life over HTTP here. `epoch`: that of the newest reply; with
    another one Redis has lost its memory: then `lost` is set, and `settled` is not until all are registered again.
    `wake`: the next tick is not to wait. `changes` counts those of the configuration, `changes_read` those in `config`.
    """

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    watchers: set[Member] = field(default_factory=set)
    config: PoolConfig | None = None
    state: PoolState | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    line_moved: bool = True
    changes: int = 1
    changes_read: int = 0
    last_seq: int = 0
    line: Line = field(default_factory=Line)
    beating: dict[str, Held] = field(default_factory=dict)
    epoch: str | None = None
    recovering: bool = False
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=_set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

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

    def saw(self, epoch: str, *, recovering: bool) -> None:
        """A reply says this of the pool."""
        self.recovering = recovering
        if epoch == self.epoch:
            return
        if self.epoch is not None:
            self.settled.clear()
            self.lost.set()
        self.epoch = epoch

    def capacity(self, state: PoolState) -> Capacity:
        """The capacity object, with what a newcomer would wait."""
        return capacity(state, *self.line.newcomers_wait(state))

    def beats(self, held: Held, until: float) -> None:
        """A page showed a sign of life over HTTP, which counts until then."""
        held.beats_until = until
        self.beating[held.session_id] = held

    def says_bye(self, session_id: str, connection_id: str) -> None:
        """A page over HTTP is gone."""
        held = self.beating.get(session_id)
        if held is not None and held.connection_id == connection_id:
            del self.beating[session_id]

    def forget_silent(self, now: float) -> None:
        """Forget the pages over HTTP whose sign of life counts no more."""
        for session_id in [who for who, held in self.beating.items() if held.beats_until < now]:
            del self.beating[session_id]

    @property
    def config_changed(self) -> bool:
        """Whether `config` may be out of date."""
        return self.changes != self.changes_read

    @property
    def longest_interview_ms(self) -> int | None:
        """How long a permit granted now lasts; None: no limit, or not known."""
        return int(self.config.max_interview_s * 1000) or None if self.config else None


class Hub:
    """Who is connected here.

    `greeting` has those that owe a hello, with the time by which it is due; `has_new_pool` is set when somebody
    came of a pool that nobody here was of before. `counted` is called when there are more or fewer of them.
    """

    def __init__(self) -> None:
        self.pools: dict[str, LocalPool] = {}
        self.greeting: dict[Transport, float] = {}
        self.has_new_pool = asyncio.Event()
        self.counted: Callable[[], None] | None = None

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

    def saw(self, pool: str, head: bytes) -> None:
        """See `PoolWatcher`: this comes before anybody acts on the reply."""
        epoch = _EPOCH.search(head)
        if epoch is not None and pool in self.pools:
            self.pools[pool].saw(epoch[1].decode(), recovering=_RECOVERING in head)

    def join(self, member: Member) -> None:
        """Make `member` its session's connection here; of two, the newer is and the other is told."""
        pool = self.pool(member.held.pool)
        members = pool.members
        pool.beating.pop(member.held.session_id, None)
        winner, loser = member, members.get(member.held.session_id)
        if loser is not None and is_newer(loser.held.connection_id, member.held.connection_id):
            winner, loser = loser, member
        members[member.held.session_id] = winner
        self._count()
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
        self._count()
        return True

    def _count(self) -> None:
        if self.counted is not None:
            self.counted()

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


def known_of(verified: Verified) -> Known | None:
    """What the bearer of a token tells a Redis that has lost its memory; nothing once the token has expired."""
    claims = verified.claims
    if verified.expired:
        return None
    return Known(
        user_id=claims.user_id,
        started_at=claims.started_at,
        language_code=claims.language_code,
        fence=claims.fence,
        holds=claims.fence is not None,
        ticket=claims.ticket,
    )


def registration(held: Held, node: str) -> Connect:
    """What registers again a connection that this node holds, or that gave a sign of life here."""
    return Connect(
        session_id=held.session_id,
        node=node,
        connection_id=held.connection_id,
        known=held.known(),
        kind=held.kind,
        tab=held.tab,
        attempt=held.attempt,
        page=held.page,
        visible=held.visible,
    )


def is_newer(connection_id: str, other: str) -> bool:
    """Whether the first connection was made after the other. The ids are numbers that only rise."""
    return int(connection_id) > int(other)


def _counts(state: PoolState) -> PoolState:
    """A state without what changes all the time."""
    return structs.replace(state, at=0, seq=0, more=False)
