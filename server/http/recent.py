"""The last hours of a pool as a chart shows them: from the history, or from what this node remembers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
import structlog

from persistence.errors import POSTGRES_AWAY
from persistence.recent import Levels
from server.domain.errors import RedisAwayError, RedisRefusedError
from server.domain.pool import PoolState
from server.domain.times import iso
from server.http.auth import Access
from server.http.routing import Answer, AnyCall, Call, Operation, PoolParams, operation
from server.node.samples import EVERY_MS, Sample

log = structlog.get_logger(__name__)

MOST_POINTS = 240
PATIENCE_S = 5.0


class RecentParams(PoolParams, frozen=True):
    """How far back."""

    hours: Annotated[float, msgspec.Meta(ge=0.25, le=24, description="The last so many hours.")] = 4


class RecentPoint(msgspec.Struct, frozen=True):
    """How many were present, held a permit, and waited. `limit` is today's where this node did not see another."""

    at: str
    online: int
    in_interview: int
    waiting: int
    limit: int | None


class Recent(msgspec.Struct, frozen=True):
    """The oldest point first, `step_s` apart; the newest is as of now. Those of which nothing is known are left out."""

    pool: str
    source: Literal["postgres", "memory"]
    step_s: int
    points: list[RecentPoint]


@operation("GET", "/v1/analytics/recent", Access.KEY, answers={200: Recent}, errors=(404,))
async def get_recent(call: Call[None, RecentParams]) -> Answer:
    """See how many were here, in an interview, and waiting in the last hours.

    What this node saw itself is told as it saw it. What was before comes from Postgres (`source`: `postgres`); without
    it, or while it does not answer, the points begin when this node started (`memory`).
    """
    now = await _now(call)
    now_ms = round(time.time() * 1000) if now is None else now.at
    step_ms = _step_ms(call.query.hours)
    moments = range(_first_ms(now_ms, call.query.hours, step_ms), now_ms, step_ms)
    past = await _past(call, moments)
    points = list(_points(call, moments, past, now))
    return Answer(Recent(call.pool, "memory" if past is None else "postgres", step_ms // 1000, points))


OPERATIONS: tuple[Operation, ...] = (get_recent,)


async def _now(call: AnyCall) -> PoolState | None:
    """The pool as it is; None while Redis is away. UnknownPoolError."""
    try:
        return await call.node.store.state(call.pool)
    except (RedisAwayError, RedisRefusedError):
        return None


def _step_ms(hours: float) -> int:
    """Whole seconds, and no less than there is between two samples."""
    return max(EVERY_MS, -(-round(hours * 3600) // MOST_POINTS) * 1000)


def _first_ms(now_ms: int, hours: float, step_ms: int) -> int:
    """At a multiple of the step, so that a chart that is asked for again does not tremble."""
    since = now_ms - round(hours * 3_600_000)
    return -(-since // step_ms) * step_ms


async def _past(call: AnyCall, moments: range) -> list[Levels] | None:
    """What the history says; None without one, or while Postgres is away."""
    recent = call.node.recent
    if recent is None or call.node.postgres == "down":
        return None
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await recent.levels(call.pool, moments.start, moments.step, len(moments))
    except POSTGRES_AWAY as error:
        log.info("recent_without_history", pool=call.pool, error=type(error).__name__)
        return None


def _points(
    call: AnyCall, moments: range, past: list[Levels] | None, now: PoolState | None
) -> Iterator[RecentPoint]:
    samples = call.node.samples
    newest = samples.newest(call.pool)
    limit = now.limit if now is not None else None if newest is None else newest.limit
    seen = samples.at(call.pool, moments, max(moments.step, 2 * EVERY_MS))
    for step, (moment, sample) in enumerate(zip(moments, seen, strict=True)):
        if sample is not None:
            yield _point(moment, sample)
        elif past is not None:
            yield RecentPoint(iso(moment), *past[step], limit)
    if now is not None:
        yield RecentPoint(iso(now.at), now.online, now.active, now.waiting, now.limit)


def _point(moment: int, sample: Sample) -> RecentPoint:
    return RecentPoint(iso(moment), sample.online, sample.in_interview, sample.waiting, sample.limit)
