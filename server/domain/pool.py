"""A pool: one capacity domain, its configuration and its state."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from server.domain.times import Moment, iso

DEFAULT_POOL = "main"

Limit = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Mode(StrEnum):
    """`paused`: the line grows and nobody enters; `closed`: there is no line either."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool is set to. The fields are those of the Redis hash `presence:{pool}:config`.

    `declared_limit`: the limit that the app declared last, if any; an operator may have set another one since.
    """

    limit: int = 3
    declared_limit: int | None = None
    mode: Mode = Mode.OPEN
    offer_s: float = 90
    max_interview_s: float = 0
    max_line: int = 1000
    permits_per_user: int = 1
    online_window_s: float = 60
    grace_s: float = 10
    permit_grace_min_s: float = 20
    permit_grace_max_s: float = 60
    resume_s: float = 900
    abandon_after_s: float = 10_800
    recovery_s: float = 5


class PoolChanges(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Changes to a pool's configuration; what is not named stays. The body of `PUT /v1/pools/{pool}`.

    `declared_limit` sets the limit only if it differs from the one declared last, or none was: for apps, which declare
    it each time they start.
    """

    limit: Limit | None = None
    declared_limit: Limit | None = None
    mode: Mode | None = None
    offer_s: Seconds | None = None
    max_interview_s: Seconds | None = None
    max_line: Count | None = None
    permits_per_user: Count | None = None
    online_window_s: Seconds | None = None
    grace_s: Seconds | None = None
    permit_grace_min_s: Seconds | None = None
    permit_grace_max_s: Seconds | None = None
    resume_s: Seconds | None = None
    abandon_after_s: Seconds | None = None
    recovery_s: Seconds | None = None


class PoolState(msgspec.Struct, frozen=True):
    """A pool's counts at one moment: the head of every script's reply.

    `active` = permits including those in grace, without offers; `waiting` = tickets, without offers;
    `online` = present sessions; `sessions` = sessions not ended; `at` = wall-clock ms.
    `epoch` changes when Redis lost the pool; `more` asks the caller to run the pump again.
    """

    pool: str
    epoch: str
    at: int
    seq: int
    mode: Mode
    limit: int
    active: int
    offered: int
    waiting: int
    online: int
    sessions: int
    more: bool = False
    recovering: bool = False

    @property
    def available(self) -> int:
        """Places that a claim could take now."""
        return 0 if self.recovering else max(0, self.limit - self.active - self.offered)


class Capacity(msgspec.Struct, frozen=True):
    """The capacity object of the HTTP API and the WebSocket protocol; `as_of` is ISO 8601 UTC."""

    pool: Annotated[str, msgspec.Meta(description="The pool's name.")]
    mode: Annotated[Mode, msgspec.Meta(description="Whether anybody may enter, or wait.")]
    limit: Annotated[int, msgspec.Meta(description="Permits that may be held at the same time.")]
    active: Annotated[
        int, msgspec.Meta(description="Permits that are held, with those in grace, without offers.")
    ]
    available: Annotated[int, msgspec.Meta(description="Places that a claim could take now.")]
    offered: Annotated[int, msgspec.Meta(description="Permits that are reserved for somebody who waits.")]
    waiting: Annotated[int, msgspec.Meta(description="How long the line is, without offers.")]
    sessions_online: Annotated[int, msgspec.Meta(description="Sessions that are present.")]
    sessions_active: Annotated[int, msgspec.Meta(description="Sessions that have not ended.")]
    eta_s: Annotated[
        float | None, msgspec.Meta(description="What a newcomer would wait; none if too little is known.")
    ]
    eta_max_s: Annotated[
        float | None, msgspec.Meta(description="In nine cases of ten the wait is shorter than this.")
    ]
    recovering: Annotated[
        bool,
        msgspec.Meta(description="Redis has lost its memory a moment ago: nobody enters for some seconds."),
    ]
    as_of: Annotated[Moment, msgspec.Meta(description="When it was so.")]


def capacity(state: PoolState, eta_s: float | None = None, eta_max_s: float | None = None) -> Capacity:
    """The capacity object for a pool's state, with what a newcomer would wait."""
    return Capacity(
        pool=state.pool,
        mode=state.mode,
        limit=state.limit,
        active=state.active,
        available=state.available,
        offered=state.offered,
        waiting=state.waiting,
        sessions_online=state.online,
        sessions_active=state.sessions,
        eta_s=eta_s,
        eta_max_s=eta_max_s,
        recovering=state.recovering,
        as_of=iso(state.at),
    )
