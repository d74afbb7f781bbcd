"""`python -m benchmarks.eta_accuracy`: the estimated wait against the real one, in a simulation of the admission.

N places, one line, first come first served; people come one by one and in bursts, so that the line is often short and
at times many turns long. At moments that have nothing to do with what happens, every place in the line is estimated
and later compared with the wait that it really had. The table is the one in docs/waiting-times.md.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from statistics import fmean, median

from server.domain.eta import Circumstances, Eta, Outlook, Shown, estimate, show

Length = Callable[[random.Random], float]
Rule = Callable[[Outlook], Sequence[Eta]]

MEAN_S = 1200.0
LENGTHS_KEPT = 100
LOAD = 0.9
BURST_EVERY = 12
BURST_TURNS = 6
FAR_TURNS = 2
LIMITS = (3, 10, 50)
MOMENTS = 500
LOOK_EVERY_S = 10.0
LOOKS = 2000

LENGTHS: dict[str, Length] = {
    "constant": lambda _: MEAN_S,
    "normal, ±25 %": lambda chance: max(60.0, chance.gauss(MEAN_S, MEAN_S / 4)),
    "exponential": lambda chance: chance.expovariate(1 / MEAN_S),
    # exp(mu + 1/2) is the mean for a sigma of 1.
    "lognormal, heavy": lambda chance: MEAN_S * chance.lognormvariate(-0.5, 1.0),
    "bimodal (5 or 35 min)": lambda chance: chance.gauss(300 if chance.random() < 0.5 else 2100, 60),
}


@dataclass
class Errors:
    """What the estimates of one rule were, next to the real waits."""

    real: list[float] = field(default_factory=list)
    estimated: list[Eta] = field(default_factory=list)

    @property
    def typical_s(self) -> float:
        """The median of the absolute error of `eta_s`."""
        return median(abs(eta.eta_s - real) for eta, real in zip(self.estimated, self.real, strict=True))

    @property
    def typical_share(self) -> float:
        """The median of the absolute error as a share of the median wait."""
        return self.typical_s / median(self.real)

    @property
    def within_median(self) -> float:
        """How many waits were no longer than `eta_s`: a half of them, if it is the median."""
        return fmean(real <= eta.eta_s for eta, real in zip(self.estimated, self.real, strict=True))

    @property
    def within_bound(self) -> float:
        """How many waits were no longer than `eta_max_s`: nine in ten, if it is the bound."""
        return fmean(real <= eta.eta_max_s for eta, real in zip(self.estimated, self.real, strict=True))


def plain(outlook: Outlook) -> list[Eta]:
    """The rule to compare with: the median length less the age, in order; each further turn one median more."""
    usual = median(outlook.lengths_s)
    remaining = sorted(max(30.0, usual - age) for age in outlook.ages_s)
    turns = (remaining[p % outlook.limit] + p // outlook.limit * usual for p in range(outlook.ready))
    return [Eta(wait, wait) for wait in turns]


class Admission:
    """N places and a line, moved from event to event."""

    def __init__(self, length: Length, limit: int, seed: int, kept: int = LENGTHS_KEPT) -> None:
        self._chance = random.Random(seed)
        self._length = length
        self._limit = limit
        self._running: list[tuple[float, float]] = []
        self._recent: deque[float] = deque(maxlen=kept)
        self._arrivals = self._arriving()
        self._next_arrival = next(self._arrivals)
        self._joined = 0
        self.line: deque[int] = deque()
        self.admitted_at: dict[int, float] = {}

    def _arriving(self) -> Iterator[float]:
        """Moments of arrival. One in `BURST_EVERY` turns brings a burst, the rest of the load comes one by one."""
        now = 0.0
        rate = self._limit / MEAN_S
        burst = self._limit * BURST_TURNS
        single_rate = rate * LOAD * (1 - BURST_TURNS / BURST_EVERY)
        burst_rate = rate * LOAD / BURST_EVERY / self._limit
        while True:
            now += self._chance.expovariate(single_rate + burst_rate)
            is_burst = self._chance.random() * (single_rate + burst_rate) < burst_rate
            for _ in range(burst if is_burst else 1):
                yield now

    def run_until(self, moment: float) -> None:
        """Let everything happen that happens before `moment`."""
        while True:
            ends = self._running[0][0] if self._running else float("inf")
            now = min(ends, self._next_arrival)
            if now > moment:
                return
            if ends <= self._next_arrival:
                _, began = heappop(self._running)
                self._recent.append(ends - began)
            else:
                self.line.append(self._joined)
                self._joined += 1
                self._next_arrival = next(self._arrivals)
            self._admit(now)

    def _admit(self, now: float) -> None:
        while self.line and len(self._running) < self._limit:
            self.admitted_at[self.line.popleft()] = now
            heappush(self._running, (now + self._length(self._chance), now))

    def outlook(self, now: float) -> Outlook:
        """What a node would see now."""
        return Outlook(
            ages_s=[now - began for _, began in self._running],
            lengths_s=list(self._recent),
            limit=self._limit,
            ready=len(self.line),
        )


def simulate(
    length: Length, limit: int, rules: Sequence[Rule], moments: int, kept: int = LENGTHS_KEPT
) -> list[dict[str, Errors]]:
    """For each rule, the errors by part of the line: who is next, the first turn, and far behind."""
    admission = Admission(length, limit, seed=limit, kept=kept)
    clock = random.Random(moments)
    seen: list[tuple[float, list[int], list[Sequence[Eta]]]] = []
    now = 40 * MEAN_S
    while len(seen) < moments:
        now += clock.expovariate(1 / MEAN_S)
        admission.run_until(now)
        if admission.line:
            outlook = admission.outlook(now)
            seen.append((now, list(admission.line), [rule(outlook) for rule in rules]))
    last = seen[-1][1][-1]
    while last not in admission.admitted_at:
        now += MEAN_S
        admission.run_until(now)
    return [_errors(seen, which, limit, admission.admitted_at) for which in range(len(rules))]


def _errors(
    seen: Sequence[tuple[float, list[int], list[Sequence[Eta]]]],
    which: int,
    limit: int,
    admitted_at: dict[int, float],
) -> dict[str, Errors]:
    parts = {"next": Errors(), "near": Errors(), "far": Errors()}
    for now, line, estimates in seen:
        for ahead, (who, eta) in enumerate(zip(line, estimates[which], strict=False)):
            for part in _parts(ahead, limit):
                parts[part].real.append(admitted_at[who] - now)
                parts[part].estimated.append(eta)
    return parts


def _parts(ahead: int, limit: int) -> list[str]:
    return [
        part
        for part, belongs in (
            ("next", ahead == 0),
            ("near", ahead < limit),
            ("far", ahead >= FAR_TURNS * limit),
        )
        if belongs
    ]


def table(moments: int, limits: Sequence[int] = LIMITS) -> Iterator[str]:
    """The lines of the comparison, in Markdown."""
    yield (
        "| lengths | places | part of the line | typical wait | error, plain rule | error"
        " | waits ≤ `eta_s` | waits ≤ `eta_max_s` |"
    )
    yield "|---|--:|---|--:|--:|--:|--:|--:|"
    for name, length in LENGTHS.items():
        for limit in limits:
            of_plain, ours = simulate(length, limit, (plain, estimate), moments)
            for part, errors in ours.items():
                yield (
                    f"| {name} | {limit} | {part} | {_minutes(median(errors.real))}"
                    f" | {_error(of_plain[part])} | {_error(errors)}"
                    f" | {errors.within_median:.0%} | {errors.within_bound:.0%} |"
                )


def few_samples_table(moments: int, limit: int = 10) -> Iterator[str]:
    """How far the bound can be trusted when few interviews have ended, in Markdown."""
    yield "| lengths | known lengths | near: error | waits ≤ `eta_max_s` | far: error | waits ≤ `eta_max_s` |"
    yield "|---|--:|--:|--:|--:|--:|"
    for name, length in LENGTHS.items():
        for kept in (5, 20, LENGTHS_KEPT):
            (parts,) = simulate(length, limit, (estimate,), moments, kept)
            near, far = parts["near"], parts["far"]
            yield (
                f"| {name} | {kept} | {_error(near)} | {near.within_bound:.0%}"
                f" | {_error(far)} | {far.within_bound:.0%} |"
            )


def shown_table(looks: int, limit: int = 10) -> Iterator[str]:
    """How often a waiter who looks every ten seconds sees the number grow, in Markdown."""
    yield "| lengths | waiters | who never saw it grow | growths per hour of waiting | the bare estimate's |"
    yield "|---|--:|--:|--:|--:|"
    for name, length in LENGTHS.items():
        grown, bare, hours = watch(length, limit, looks)
        never = fmean(times == 0 for times in grown.values())
        yield (
            f"| {name} | {len(grown)} | {never:.0%} | {sum(grown.values()) / hours:.1f} | {bare / hours:.1f} |"
        )


def watch(length: Length, limit: int, looks: int) -> tuple[dict[int, int], int, float]:
    """How often the shown number grew for each waiter, how often the bare estimate did, and the hours waited."""
    admission = Admission(length, limit, seed=limit)
    shown: dict[int, Shown] = {}
    bare: dict[int, Eta] = {}
    grown: dict[int, int] = {}
    bare_growths = seen = 0
    now = 40 * MEAN_S
    admission.run_until(now)
    while not admission.line:
        now += LOOK_EVERY_S
        admission.run_until(now)
    for _ in range(looks):
        etas = estimate(admission.outlook(now))
        seen += len(admission.line)
        for ahead, who in enumerate(admission.line):
            before = shown.get(who)
            after = shown[who] = show(etas[ahead], Circumstances(limit, ahead), before)
            grown[who] = grown.get(who, 0) + (before is not None and _grew(before.eta, after.eta))
            bare_growths += _grew(bare.get(who), etas[ahead])
            bare[who] = etas[ahead]
        now += LOOK_EVERY_S
        admission.run_until(now)
    return grown, bare_growths, seen * LOOK_EVERY_S / 3600


def _grew(before: Eta | None, after: Eta | None) -> bool:
    return before is not None and after is not None and after.eta_s > before.eta_s


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _error(errors: Errors) -> str:
    return f"{_minutes(errors.typical_s)} ({errors.typical_share:.0%})"


def cost_ms(limit: int = 50, waiting: int = 1000) -> float:
    """The best of some runs: one estimate of a whole line."""
    chance = random.Random(1)
    outlook = Outlook(
        ages_s=[chance.uniform(0, MEAN_S) for _ in range(limit)],
        lengths_s=[LENGTHS["lognormal, heavy"](chance) for _ in range(LENGTHS_KEPT)],
        limit=limit,
        ready=waiting,
    )

    def once() -> float:
        began = time.perf_counter()
        estimate(outlook)
        return time.perf_counter() - began

    return min(once() for _ in range(30)) * 1000


def main() -> None:
    """Print the tables and the cost of an estimate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eta_accuracy", description=__doc__)
    parser.add_argument("--moments", type=int, default=MOMENTS, help="moments looked at per row")
    moments = parser.parse_args().moments
    for lines in (table(moments), few_samples_table(moments), shown_table(LOOKS)):
        for line in lines:
            print(line)
        print()
    print(f"One estimate of 1000 waiters for 50 places: {cost_ms():.1f} ms")


if __name__ == "__main__":
    main()
