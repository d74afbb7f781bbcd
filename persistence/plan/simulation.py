"""Simulated days of a pool: the same arrivals, lengths and patience once for each number of places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace

GAVE_UP = math.inf


@dataclass(slots=True, frozen=True)
class Run:
    """What befalls a pool in one replication, in seconds from its beginning; arrivals in order.

    The first `warm_up` arrivals fill the pool and are not counted.
    """

    arrivals: Sequence[float]
    lengths: Sequence[float]
    patience: Sequence[float]
    span_s: float
    warm_up: int = 0


@dataclass(slots=True, frozen=True)
class Outcome:
    """What came of all runs with so many places. `waits`: in order, of those who waited and got in."""

    limit: int
    asked: int
    gave_up: int
    waits: Sequence[float]
    utilisation: float

    @property
    def admitted(self) -> int:
        """How many got in."""
        return self.asked - self.gave_up

    @property
    def chance_of_waiting(self) -> float:
        """The share of those who asked that did not get in at once."""
        return (len(self.waits) + self.gave_up) / self.asked if self.asked else 0.0

    @property
    def mean_wait_s(self) -> float:
        """Of all who got in, those at once too."""
        return math.fsum(self.waits) / self.admitted if self.admitted else 0.0

    def wait_s(self, share: float) -> float:
        """The shortest wait that this share of those who got in did not exceed."""
        at_once = self.admitted - len(self.waits)
        index = math.ceil(share * self.admitted) - 1 - at_once
        return self.waits[index] if index >= 0 else 0.0

    def share_within(self, wait_s: float) -> float:
        """The share of those who asked that got in and waited no longer."""
        longer = sum(wait > wait_s for wait in self.waits)
        return (self.admitted - longer) / self.asked if self.asked else 1.0


def simulate(runs: Sequence[Run], limits: Sequence[int]) -> Iterator[Outcome]:
    """An outcome a limit, in rising order.

    All limits see the same runs, so more places never look worse by chance. A run in which nobody waits need not be
    repeated with more places.
    """
    asked = sum(len(run.arrivals) - run.warm_up for run in runs)
    span_s = sum(run.span_s for run in runs)
    served = [Served((), sum(run.lengths)) for run in runs]
    crowded = list(range(len(runs)))
    for limit in sorted(limits):
        for index in crowded:
            served[index] = first_come_first_served(runs[index], limit)
        crowded = [index for index in crowded if any(served[index].waits)]
        waits = sorted(
            wait for index in crowded for wait in served[index].waits[runs[index].warm_up :] if wait
        )
        gave_up = waits.count(GAVE_UP)
        busy_s = math.fsum(each.busy_s for each in served)
        yield Outcome(limit, asked, gave_up, waits[: len(waits) - gave_up], busy_s / (limit * span_s))


@dataclass(slots=True, frozen=True)
class Served:
    """One run: the wait of each arrival (`GAVE_UP` if it lost patience), and for how long places were taken in all."""

    waits: Sequence[float]
    busy_s: float


def first_come_first_served(run: Run, limit: int) -> Served:
    """Give out so many places.

    Each is known by when it falls free; who comes takes the first to do so (Kiefer and Wolfowitz 1955).
    """
    free = [0.0] * limit
    waits: list[float] = []
    busy_s = 0.0
    for arrived, length, patience in zip(run.arrivals, run.lengths, run.patience, strict=True):
        wait = free[0] - arrived
        if wait <= 0.0:
            wait = 0.0
        elif wait > patience:
            waits.append(GAVE_UP)
            continue
        waits.append(wait)
        heapreplace(free, arrived + wait + length)
        busy_s += length
    # Nobody comes after the end, so a place that is still taken then is so without a break.
    beyond = sum(max(0.0, at - run.span_s) for at in free)
    return Served(waits, busy_s - beyond)
