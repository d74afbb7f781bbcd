"""The plan: what each limit means for those who come, the smallest one that will do, and what all that rests on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import msgspec

from persistence.plan.demand import HOUR_S, MIN_GIVE_UPS, Demand, Steady
from persistence.plan.erlang import ErlangC, erlang_c
from persistence.plan.simulation import Outcome, Run, simulate

MIN_LENGTHS = 5
"""With fewer finished interviews nothing is said."""

ENOUGH_LENGTHS = 50
ENOUGH_DAYS = 7
SEED = 1


class Target(msgspec.Struct, frozen=True):
    """`percent` of those who ask shall wait no longer than `wait_s`."""

    wait_s: float = 60.0
    percent: float = 95.0


class AtLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One number of places. Shares are from 0 to 1; waits are those of people who get in, at once or later.

    All but `erlang_c` is simulated. Numbers are null where the line only grows.
    """

    limit: int
    chance_of_waiting: float
    mean_wait_s: float | None
    median_wait_s: float | None
    p95_wait_s: float | None
    within_target: float
    gave_up: float
    utilisation: float
    erlang_c: ErlangC


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool has to cope with. The hour is the busiest of the clock (UTC); null if all are alike."""

    days: int | None
    interviews: int | None
    gave_up: int
    busiest_hour_utc: int | None
    arrivals_per_hour: float
    mean_length_s: float
    median_length_s: float | None
    p90_length_s: float | None
    erlangs: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `limits` is empty and `load` null if the history says too little; `warnings` then say why.

    `smallest`: the smallest of the limits that reaches the target; null if none does.
    """

    pool: str | None
    target: Target
    load: Load | None
    limits: list[AtLimit]
    smallest: int | None
    replications: int
    assumes: list[str]
    warnings: list[str]


@dataclass(slots=True, frozen=True)
class Question:
    """What is asked."""

    limits: Sequence[int]
    target: Target
    pool: str | None = None


def plan_from_history(demand: Demand, question: Question) -> Plan:
    """The plan for days like the observed ones."""
    if len(demand.lengths_s) < MIN_LENGTHS or not demand.arrivals:
        return _nothing(demand, question)
    return _plan(question, _observed_load(demand), demand.runs(_chance()), _Said(demand))


def plan_from_assumptions(steady: Steady, question: Question) -> Plan:
    """The plan for an even stream of arrivals, in its steady state."""
    return _plan(question, _assumed_load(steady), steady.runs(_chance()), None)


def _plan(question: Question, load: Load, runs: Sequence[Run], said: _Said | None) -> Plan:
    steady = said is None
    # Of a line that only grows no run is long enough to tell its length.
    possible = [limit for limit in question.limits if not steady or limit > load.erlangs]
    outcomes = {outcome.limit: outcome for outcome in simulate(runs, possible)}
    limits = [
        _at_limit(limit, outcomes.get(limit), load, question.target) for limit in sorted(question.limits)
    ]
    enough = (each.limit for each in limits if each.within_target * 100 >= question.target.percent)
    return Plan(
        pool=question.pool,
        target=question.target,
        load=load,
        limits=limits,
        smallest=next(enough, None),
        replications=len(runs),
        assumes=list(_STEADY_ASSUMES if said is None else said.assumptions()),
        warnings=[] if said is None else list(said.warnings()),
    )


def _chance() -> random.Random:
    """The same for every plan, so that two plans differ by what they are asked alone."""
    return random.Random(SEED)  # noqa: S311 - nothing secret


def _at_limit(limit: int, outcome: Outcome | None, load: Load, target: Target) -> AtLimit:
    formula = erlang_c(load.erlangs, limit, load.mean_length_s)
    if outcome is None:
        return AtLimit(
            limit=limit,
            chance_of_waiting=1.0,
            mean_wait_s=None,
            median_wait_s=None,
            p95_wait_s=None,
            within_target=0.0,
            gave_up=0.0,
            utilisation=1.0,
            erlang_c=formula,
        )
    return AtLimit(
        limit=limit,
        chance_of_waiting=outcome.chance_of_waiting,
        mean_wait_s=outcome.mean_wait_s,
        median_wait_s=outcome.wait_s(0.5),
        p95_wait_s=outcome.wait_s(0.95),
        within_target=outcome.share_within(target.wait_s),
        gave_up=outcome.gave_up / outcome.asked,
        utilisation=outcome.utilisation,
        erlang_c=formula,
    )


def _observed_load(demand: Demand) -> Load:
    busiest = demand.busiest()
    return Load(
        days=len(demand.days),
        interviews=demand.arrivals,
        gave_up=demand.gave_up,
        busiest_hour_utc=busiest.hour,
        arrivals_per_hour=busiest.arrivals,
        mean_length_s=demand.mean_length_s,
        median_length_s=median(demand.lengths_s),
        p90_length_s=quantiles(demand.lengths_s, n=10, method="inclusive")[-1],
        erlangs=busiest.arrivals / HOUR_S * demand.mean_length_s,
    )


def _assumed_load(steady: Steady) -> Load:
    return Load(
        days=None,
        interviews=None,
        gave_up=0,
        busiest_hour_utc=None,
        arrivals_per_hour=steady.arrivals_per_hour,
        mean_length_s=steady.mean_length_s,
        median_length_s=None,
        p90_length_s=None,
        erlangs=steady.erlangs,
    )


_FIFO = "First come, first served; a place is taken again the moment it is free."
_STEADY_ASSUMES = (
    "People come at random, at this rate all the time; lengths are exponential.",
    _FIFO,
    "Nobody gives up.",
)


@dataclass(slots=True, frozen=True)
class _Said:
    """What has to be said about a plan from history."""

    demand: Demand

    def assumptions(self) -> Iterator[str]:
        """On what the plan rests."""
        yield "Days will be like the chosen ones; interviews last as long as those did, whoever comes when."
        yield _FIFO
        yield f"Each day begins at {self.demand.cut_h:02}:00 UTC, the quietest hour, with nobody there."
        if self.demand.patience.waits_s:
            yield f"People give up as the {self.demand.gave_up} did who waited in vain."
        else:
            yield f"Nobody gives up: in the history fewer than {MIN_GIVE_UPS} did. Who was turned away is not in it."
        yield "Erlang-C is for the busiest hour as if it went on for ever, with exponential lengths."

    def warnings(self) -> Iterator[str]:
        """Where the data are thin."""
        days, lengths = len(self.demand.days), len(self.demand.lengths_s)
        if days < ENOUGH_DAYS:
            yield f"Only {_count(days, 'whole day')} of history: not every weekday has been seen. Take it as a hint."
        if lengths < ENOUGH_LENGTHS:
            yield (
                f"Only {_count(lengths, 'finished interview')}: how long the longest are, and so the p95 wait, "
                f"is hardly known before {ENOUGH_LENGTHS}."
            )


def _nothing(demand: Demand, question: Question) -> Plan:
    found = _count(len(demand.lengths_s), "finished interview")
    sentence = (
        f"Too few data for a plan: {found} in the chosen days, at least {MIN_LENGTHS} are needed. "
        "Choose more days, or say what you expect with --arrivals-per-hour and --mean-minutes."
    )
    return Plan(
        pool=question.pool,
        target=question.target,
        load=None,
        limits=[],
        smallest=None,
        replications=0,
        assumes=[],
        warnings=[sentence],
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
