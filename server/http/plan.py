"""How many places a pool needs, worked out from its history."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import msgspec

from persistence.errors import POSTGRES_AWAY
from persistence.plan.limits import LimitsError, limits_of
from persistence.plan.planning import Plan, Question, Target, plan_from_history
from server.http.auth import Access
from server.http.problems import HistoryAwayError, InvalidError
from server.http.routing import Answer, Call, Operation, PoolParams, operation

# One plan at a time, for at most some seconds: the rest of the process stays as quick as it is.
_ONE_AT_A_TIME = ThreadPoolExecutor(max_workers=1, thread_name_prefix="plan")


class PlanParams(PoolParams, frozen=True):
    """What is asked: `percent` of those who come shall wait at most `target_wait_s`; `limits` like `1..20`."""

    days: Annotated[int, msgspec.Meta(ge=1, le=366, description="The last so many days.")] = 28
    limits: Annotated[str, msgspec.Meta(description="Numbers of places to look at, as `5` or `1..20`.")] = (
        "1..20"
    )
    target_wait_s: Annotated[float, msgspec.Meta(ge=0, le=86_400, description="The wait that is fine.")] = 60
    percent: Annotated[float, msgspec.Meta(gt=0, le=100, description="How many shall wait no longer.")] = 95


@operation("GET", "/v1/analytics/plan", Access.KEY, answers={200: Plan})
async def get_plan(call: Call[None, PlanParams]) -> Answer:
    """See how long people would wait for each number of places, and how many are needed.

    From the arrivals and the lengths of the last days: simulated days like those, and Erlang-C for the busiest hour.
    Without enough data `limits` is empty, and `warnings` says what is missing.
    """
    arrivals, asked = call.node.arrivals, call.query
    if arrivals is None:
        raise HistoryAwayError("This server keeps no history: DATABASE_URL is not set.")
    try:
        limits = limits_of(asked.limits)
    except LimitsError as error:
        raise InvalidError(f"In the query: {error} - at `$.limits`.") from None
    question = Question(limits, Target(asked.target_wait_s, asked.percent), call.pool)
    try:
        demand = await arrivals.demand(call.pool, asked.days)
    except POSTGRES_AWAY as error:
        raise HistoryAwayError("Postgres does not answer: the history can't be read now.") from error
    loop = asyncio.get_running_loop()
    return Answer(await loop.run_in_executor(_ONE_AT_A_TIME, plan_from_history, demand, question))


OPERATIONS: tuple[Operation, ...] = (get_plan,)
