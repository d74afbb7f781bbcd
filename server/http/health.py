"""Operations for those who watch over this node: alive, and ready."""

from __future__ import annotations

from typing import Literal

import msgspec

from server.domain.errors import PresenceError, UnknownPoolError
from server.domain.pool import DEFAULT_POOL
from server.http.auth import Access
from server.http.routing import Answer, Call, Operation, operation
from server.node.node import Node


class Health(msgspec.Struct, frozen=True):
    """The process runs and answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """How this node is. `flush_lag_s` and `backlog` say how far Postgres is behind; null without Postgres.

    `flush_failures`: flushes of this node that failed; `set_aside`: sessions whose rows Postgres refuses.
    """

    ready: bool
    redis: Literal["ok", "down"]
    postgres: Literal["ok", "down", "off"]
    recovering: bool
    draining: bool
    flush_lag_s: float | None
    backlog: int | None
    flush_failures: int | None
    set_aside: int | None


@operation("GET", "/healthz", Access.ANYONE, answers={200: Health})
async def get_health(call: Call[None, None]) -> Answer:  # noqa: ARG001 - there is nothing to look at
    """Say that the process is alive."""
    return Answer(Health())


@operation("GET", "/readyz", Access.ANYONE, answers={200: Readiness, 503: Readiness})
async def get_readiness(call: Call[None, None]) -> Answer:
    """Say whether this node can serve: 503 while Redis is away, in recovery, and while it stops.

    Postgres being away is shown, but live sessions don't need it.
    """
    node = call.node
    is_up, recovering = await _redis(node)
    ready = is_up and not recovering and not node.draining
    flush = node.flush_status()
    readiness = Readiness(
        ready=ready,
        redis="ok" if is_up else "down",
        postgres=node.postgres,
        recovering=recovering,
        draining=node.draining,
        flush_lag_s=None if flush is None else flush.lag_s,
        backlog=None if flush is None else flush.backlog,
        flush_failures=None if flush is None else flush.failures,
        set_aside=None if flush is None else flush.set_aside,
    )
    return Answer(readiness, 200 if ready else 503)


OPERATIONS: tuple[Operation, ...] = (get_health, get_readiness)


async def _redis(node: Node) -> tuple[bool, bool]:
    """Whether Redis answers, and whether it is being recovered."""
    try:
        recovering = (await node.store.state(DEFAULT_POOL)).recovering
    except UnknownPoolError:
        return True, True  # made anew by the next that needs it
    except PresenceError:
        return False, False
    return node.store.takes_writes, recovering
