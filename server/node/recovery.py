"""After Redis lost its memory, or was replaced: give it back, from this node's own, what must not be forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from server.domain.errors import (
    BadTokenError,
    SessionEndedError,
    StaleConnectionError,
    UnknownSessionError,
)
from server.domain.interview import InterviewState
from server.domain.pool import PoolChanges
from server.live.store import NODE_ACTOR
from server.node.hub import Held, LocalPool, Member, registration
from server.node.node import Node

log = structlog.get_logger(__name__)

AT_ONCE = 1000


async def recover(node: Node, pool: LocalPool) -> None:
    """Make the pool as it was, and register again all whom this node holds. Raises RedisAwayError: try again.

    `pool.lost` stays set unless all went well; what changes meanwhile sets it again.
    """
    pool.config = await node.store.configure(pool.name, PoolChanges(), actor=NODE_ACTOR)
    # From here on another loss shows as another epoch.
    pool.lost.clear()
    try:
        await _register_all(node, pool)
    except BaseException:
        pool.lost.set()
        raise
    if pool.lost.is_set():
        return
    pool.settled.set()
    pool.line_moved = True
    pool.wake.set()
    if node.flusher is not None:
        node.flusher.sweep_soon()


async def _register_all(node: Node, pool: LocalPool) -> None:
    members = sorted(pool.members.values(), key=lambda member: _urgency(member.held))
    pages = sorted(pool.beating.values(), key=_urgency)
    log.warning("redis_lost_its_memory", pool=pool.name, epoch=pool.epoch, sessions=len(members) + len(pages))
    await _register_pages(node, pool, pages)
    for first in range(0, len(members), AT_ONCE):
        await asyncio.gather(*(_register(node, member) for member in members[first : first + AT_ONCE]))


def _urgency(held: Held) -> tuple[bool, int]:
    """Permits first, then the line in its order: the window may close before all are through."""
    is_waiter = held.standing.ticket is not None
    return (
        held.standing.state is not InterviewState.GRANTED,
        held.standing.ticket or 0 if is_waiter else 2**60,
    )


async def _register(node: Node, member: Member) -> None:
    if node.hub.holds(member):
        await member.register_again()


async def _register_pages(node: Node, pool: LocalPool, pages: Sequence[Held]) -> None:
    for first in range(0, len(pages), AT_ONCE):
        await asyncio.gather(*(_register_page(node, pool, held) for held in pages[first : first + AT_ONCE]))


async def _register_page(node: Node, pool: LocalPool, held: Held) -> None:
    """A page over HTTP: its next heartbeat will tell it what came of this."""
    now = asyncio.get_running_loop().time()
    if held.beats_until < now:
        return
    try:
        connected = await node.store.connect(pool.name, registration(held, node.store.node))
    except (StaleConnectionError, SessionEndedError, UnknownSessionError, BadTokenError):
        pool.beating.pop(held.session_id, None)
    else:
        held.remember(connected.admission, now)
