"""Operations on pools: how full they are, how they are set, and tidying up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from server.domain.errors import UnknownPoolError
from server.domain.pool import Capacity, PoolChanges, PoolConfig
from server.http.auth import Access, ApiKeyPrincipal
from server.http.problems import InvalidError
from server.http.routing import Answer, Call, Input, Operation, Params, PoolParams, operation
from server.settings import Settings

ACTOR = "api"
# A window must outlast two lost signs of life.
_WINDOW_PER_INTERVAL = 2.5


class CleanupBody(Input, frozen=True):
    """Abandon sessions that have been offline for longer than this."""

    hours: Annotated[float, msgspec.Meta(gt=0, le=87_600)] = 3


class Cleaned(msgspec.Struct, frozen=True):
    """How many sessions were abandoned."""

    abandoned: int


class PoolNames(msgspec.Struct, frozen=True):
    """The names of all pools, sorted."""

    pools: list[str]


@operation("GET", "/v1/pools", Access.KEY, answers={200: PoolNames})
async def list_pools(call: Call[None, Params]) -> Answer:
    """List the pools that there are."""
    return Answer(PoolNames(await call.node.store.pool_names()))


@operation("GET", "/v1/capacity", Access.KEY_OR_OWN_TOKEN, answers={200: Capacity}, errors=(404,))
async def get_capacity(call: Call[None, PoolParams]) -> Answer:
    """See how full the pool is."""
    state = await call.node.store.state(call.pool)
    return Answer(call.node.hub.pool(call.pool).capacity(state))


@operation("GET", "/v1/pools/{pool}", Access.KEY, answers={200: PoolConfig}, errors=(404,))
async def get_pool(call: Call[None, PoolParams]) -> Answer:
    """See what the pool is set to."""
    return Answer(await call.node.store.config(call.pool))


@operation("PUT", "/v1/pools/{pool}", Access.KEY, answers={200: PoolConfig})
async def change_pool(call: Call[PoolChanges, PoolParams]) -> Answer:
    """Change what is named, in a pool that is created if need be.

    It takes effect at once on all nodes. A lower limit throws nobody out; a higher one lets the next in at once.
    """
    wanted = _changed(await _config(call), call.body)
    problems = list(impossible(wanted, call.node.settings))
    if problems:
        raise InvalidError(" ".join(problems))
    actor = call.principal.actor if isinstance(call.principal, ApiKeyPrincipal) else ACTOR
    return Answer(await call.node.store.configure(call.pool, call.body, actor=actor))


@operation("POST", "/v1/cleanup", Access.KEY, answers={200: Cleaned}, errors=(404,))
async def clean_up(call: Call[CleanupBody, PoolParams]) -> Answer:
    """Abandon the sessions that have been offline for some hours."""
    return Answer(Cleaned(await call.node.store.cleanup(call.pool, call.body.hours * 3600)))


OPERATIONS: tuple[Operation, ...] = (list_pools, get_capacity, get_pool, change_pool, clean_up)


def impossible(config: PoolConfig, settings: Settings) -> Iterator[str]:
    """What in `config` does not fit together, one sentence each, with the value that would do."""
    if config.permit_grace_max_s < config.permit_grace_min_s:
        yield (
            "permit_grace_max_s must not be under permit_grace_min_s: "
            f"{config.permit_grace_min_s:g} would do."
        )
    least = _WINDOW_PER_INTERVAL * settings.heartbeat_s
    if config.online_window_s < least:
        yield f"online_window_s must be at least 2.5 times the heartbeat: {least:g} would do."


async def _config(call: Call[PoolChanges, PoolParams]) -> PoolConfig:
    try:
        return await call.node.store.config(call.pool)
    except UnknownPoolError:
        return call.node.settings.pool_defaults()


def _changed(config: PoolConfig, changes: PoolChanges) -> PoolConfig:
    named = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not None}
    return msgspec.structs.replace(config, **named)
