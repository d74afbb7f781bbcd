"""How many places a pool needs, worked out from its history."""

from __future__ import annotations

from typing import Annotated

import anyio
import msgspec
from starlette.requests import Request

from persistence.errors import POSTGRES_AWAY
from persistence.plan.limits import LimitsError, limits_of
from persistence.plan.planning import Plan, Question, Target
from persistence.plan.recorded import Recorded
from persistence.planner import plan_in_a_process
from server.http.auth import Access
from server.http.problems import HistoryAwayError, InvalidError
from server.http.routing import Answer, Call, Operation, PoolParams, operation

# A plan of the largest size takes seconds and one core.
_ONE_AT_A_TIME = anyio.CapacityLimiter(1)
NOBODY_READS_IT = 499


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
        recorded = await arrivals.recorded(call.pool, asked.days)
    except POSTGRES_AWAY as error:
        raise HistoryAwayError("Postgres does not answer: the history can't be read now.") from error
    plan = await _planned(recorded, question, call.request)
    return Answer(status=NOBODY_READS_IT) if plan is None else Answer(plan)


async def _planned(recorded: Recorded, question: Question, asked_by: Request) -> Plan | None:
    """None if who asked for it leaves meanwhile: then nobody works on it any more."""
    plan = None
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_gone, asked_by, group.cancel_scope)
        async with _ONE_AT_A_TIME:
            plan = await plan_in_a_process(recorded, question)
        group.cancel_scope.cancel()
    return plan


async def _cancel_when_gone(request: Request, work: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    work.cancel()


OPERATIONS: tuple[Operation, ...] = (get_plan,)
