"""What a pool has to cope with: who came when, for how long, and how patient they were."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import attrgetter
from statistics import fmean

from persistence.plan.simulation import Run

HOUR_S = 3_600
DAY_S = 86_400
ARRIVALS = 100_000
"""How many arrivals are simulated for each limit: it bounds the work, and shares are right to a fraction of 1 %."""

MAX_RUNS = 5_000
JITTER_S = 300.0
MIN_GIVE_UPS = 5
_STEADY_RUNS = 20
_STEADY_WARM_UP = 1_000
_AROUND_H = 4


@dataclass(slots=True, frozen=True)
class Visit:
    """Somebody who asked for a place, in seconds of Unix time. `length_s` is None while it runs, and without one.

    `got_in` is False for who waited in vain, for `waited_s`.
    """

    arrived_at: float
    waited_s: float
    length_s: float | None
    got_in: bool = True

    @property
    def left_at(self) -> float:
        """When the interview ended; while it runs, when it began."""
        return self.arrived_at + self.waited_s + (self.length_s or 0.0)


@dataclass(slots=True, frozen=True)
class Patience:
    """How long people wait before they give up: `chances[i]` that it is `waits_s[i]`; all others never do."""

    waits_s: Sequence[float] = ()
    chances: Sequence[float] = ()

    def draw(self, count: int, rng: random.Random) -> list[float]:
        """The patience of so many people."""
        if not self.waits_s:
            return [math.inf] * count
        endless = max(0.0, 1.0 - math.fsum(self.chances))
        return rng.choices([*self.waits_s, math.inf], weights=[*self.chances, endless], k=count)


@dataclass(slots=True, frozen=True)
class Busiest:
    """The clock hour (UTC) with the most arrivals, and how many come in it, on days on which anybody comes."""

    hour: int
    arrivals: float


@dataclass(slots=True, frozen=True)
class Demand:
    """Observed days. `days`: the arrivals of each, in seconds from its beginning at `cut_h` o'clock UTC."""

    days: Sequence[Sequence[float]]
    lengths_s: Sequence[float]
    cut_h: int = 0
    patience: Patience = Patience()
    gave_up: int = 0

    @property
    def arrivals(self) -> int:
        """How many came in all."""
        return sum(map(len, self.days))

    @property
    def mean_length_s(self) -> float:
        """How long an interview lasts on average."""
        return fmean(self.lengths_s)

    def busiest(self) -> Busiest:
        """The busiest hour."""
        counts = Counter(int(at // HOUR_S) for day in self.days for at in day)
        hour, count = max(counts.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))
        return Busiest((hour + self.cut_h) % 24, count / max(1, sum(map(bool, self.days))))

    def runs(self, rng: random.Random) -> list[Run]:
        """Simulated days, each like one of the observed: its arrivals, moved by a few minutes, with lengths drawn anew.

        So a school class that came at ten stays together, and busy weekdays come as often as they did.
        """
        count = min(MAX_RUNS, max(1, ARRIVALS * len(self.days) // max(1, self.arrivals)))
        return [self._run(day, rng) for day in rng.choices(self.days, k=count)]

    def _run(self, day: Sequence[float], rng: random.Random) -> Run:
        moved = sorted(min(DAY_S, max(0.0, at + rng.uniform(-JITTER_S, JITTER_S))) for at in day)
        lengths = rng.choices(self.lengths_s, k=len(day))
        return Run(moved, lengths, self.patience.draw(len(day), rng), DAY_S)


@dataclass(slots=True, frozen=True)
class Steady:
    """What somebody assumes: arrivals at random at an even rate, lengths exponential."""

    arrivals_per_hour: float
    mean_length_s: float

    @property
    def erlangs(self) -> float:
        """The load."""
        return self.arrivals_per_hour / HOUR_S * self.mean_length_s

    def runs(self, rng: random.Random) -> list[Run]:
        """Long runs, each with a beginning that fills the pool and is not counted."""
        count = ARRIVALS // _STEADY_RUNS + _STEADY_WARM_UP
        return [self._run(count, rng) for _ in range(_STEADY_RUNS)]

    def _run(self, count: int, rng: random.Random) -> Run:
        arrivals = list(accumulate(rng.expovariate(self.arrivals_per_hour / HOUR_S) for _ in range(count)))
        lengths = [rng.expovariate(1 / self.mean_length_s) for _ in range(count)]
        return Run(arrivals, lengths, [math.inf] * count, arrivals[-1], _STEADY_WARM_UP)


def observed(visits: Sequence[Visit], since: float, until: float, most_days: int = 366) -> Demand:
    """The demand between two moments of Unix time: the last whole days, cut where the pool is emptiest.

    If no day is over yet, the one that has begun counts as a whole one.
    """
    cut_h = quietest_hour(visits)
    starts = _starts(since, until, cut_h)[-most_days:]
    days: list[list[float]] = [[] for _ in starts]
    for visit in visits:
        day = int((visit.arrived_at - starts[0]) // DAY_S)
        if 0 <= day < len(days):
            days[day].append(visit.arrived_at - starts[day])
    return Demand(
        days=[sorted(day) for day in days],
        lengths_s=[visit.length_s for visit in visits if visit.got_in and visit.length_s is not None],
        cut_h=cut_h,
        patience=patience_of(visits),
        gave_up=sum(not visit.got_in for visit in visits),
    )


def _starts(since: float, until: float, cut_h: int) -> list[float]:
    cut_s = cut_h * HOUR_S
    first = math.ceil((since - cut_s) / DAY_S) * DAY_S + cut_s
    whole = int((until - first) // DAY_S)
    return [first + day * DAY_S for day in range(max(1, whole))]


def quietest_hour(visits: Sequence[Visit]) -> int:
    """The hour of the day (UTC) at whose beginning the fewest are there, then that with the fewest arrivals around."""
    there: Counter[int] = Counter()
    arrivals: Counter[int] = Counter()
    for visit in visits:
        first, last = math.ceil(visit.arrived_at / HOUR_S), int(visit.left_at // HOUR_S)
        there.update(hour % 24 for hour in range(first, min(last, first + 23) + 1))
        arrivals[int(visit.arrived_at // HOUR_S) % 24] += 1

    def crowd(hour: int) -> tuple[int, int]:
        around = sum(arrivals[(hour + shift) % 24] for shift in range(-_AROUND_H, _AROUND_H))
        return there[hour], around

    return min(range(24), key=crowd)


def patience_of(visits: Sequence[Visit]) -> Patience:
    """How patient people are (Kaplan and Meier 1958): who got in would have waited longer, nobody knows how long.

    With fewer than `MIN_GIVE_UPS` who gave up, nobody does.
    """
    if sum(not visit.got_in for visit in visits) < MIN_GIVE_UPS:
        return Patience()
    waits, chances, at_risk, patient = [], [], len(visits), 1.0
    for waited_s, group in groupby(sorted(visits, key=attrgetter("waited_s")), key=attrgetter("waited_s")):
        same = list(group)
        lost = sum(not visit.got_in for visit in same)
        if lost:
            waits.append(waited_s)
            chances.append(patient * lost / at_risk)
            patient -= chances[-1]
        at_risk -= len(same)
    return Patience(waits, chances)
