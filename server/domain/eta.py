"""How long the line will take: the wait of every place in it, and the number that may be shown for it.

The wait of the p-th ready waiter is the time until p places have been freed. A running interview of age a ends like
one of the recent interviews that lasted longer than a; the one that takes over its place lasts like any recent one.
That gives the expected number of freed places over time (a renewal equation on a grid of time steps), its variance,
and from both the moment by which p places are freed with a chance of 50 % and of 90 %.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate
from operator import mul
from statistics import fmean

import msgspec

from server.domain.pool import Mode

MIN_SAMPLES = 5
"""With fewer recent interviews there is no ETA."""

HOLD_S = 30.0
HOLD_SHARE = 0.1
"""An estimate that rose by less than this (the larger of the two) does not make the shown number grow."""

_STEPS = 128
_MAX_LENGTHS = 40
_MAX_AGES = 64
_MIN_LENGTH_S = 1.0
_Z_MEDIAN = 0.0
_Z_BOUND = 1.2816


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What the estimate is made from: one moment of a pool.

    `ages_s`: of every held permit, those in grace too, since most of their holders come back. `lengths_s`: recent
    interviews. `ready`: ready waiters, without the `offered` ones.
    """

    ages_s: Sequence[float]
    lengths_s: Sequence[float]
    limit: int
    ready: int = 0
    offered: int = 0
    max_interview_s: float = 0
    mode: Mode = Mode.OPEN


class Eta(msgspec.Struct, frozen=True):
    """A wait: its median and its 90 % bound."""

    eta_s: float
    eta_max_s: float


def estimate(outlook: Outlook) -> list[Eta]:
    """The wait by number of ready waiters ahead, from 0 to `ready`: the last is a newcomer's. Empty: no ETA."""
    if outlook.mode is not Mode.OPEN or outlook.limit <= 0 or len(outlook.lengths_s) < MIN_SAMPLES:
        return []
    lengths = _Lengths(outlook.lengths_s, outlook.max_interview_s)
    forecast = _Forecast(outlook, lengths)
    count = outlook.ready + 1
    medians = forecast.medians(count)
    return [Eta(p50, p90) for p50, p90 in zip(medians, forecast.bounds(medians), strict=True)]


def next_eta(outlook: Outlook, etas: Sequence[Eta]) -> Eta | None:
    """What a newcomer would wait: nothing if a place is free, unknown before enough interviews have ended."""
    if outlook.mode is not Mode.OPEN or outlook.limit <= 0:
        return None
    if len(outlook.ages_s) + outlook.offered + outlook.ready < outlook.limit:
        return Eta(0.0, 0.0)
    return etas[-1] if etas else None


class EtaReason(StrEnum):
    """Why the number shown has grown, or why none is shown any more."""

    PAUSED = "paused"
    CLOSED = "closed"
    LIMIT_LOWERED = "limit_lowered"
    RETURNED_AHEAD = "returned_ahead"
    INTERVIEWS_RUN_LONGER = "interviews_run_longer"


class Circumstances(msgspec.Struct, frozen=True):
    """What an estimate for one waiter rested on. `ahead`: ready waiters in front, without offered ones."""

    limit: int
    ahead: int
    mode: Mode = Mode.OPEN


class Shown(msgspec.Struct, frozen=True):
    """What a waiter was shown last. Keep it, and hand it to `show` with the next estimate.

    `last` is the latest number, also while none is shown; `promised` the lower one that it grew from, as long as it is
    above that; `under` the circumstances in which `last` was the estimate.
    """

    eta: Eta | None
    reason: EtaReason | None
    under: Circumstances
    last: Eta | None = None
    promised: Eta | None = None


def show(estimated: Eta | None, now: Circumstances, before: Shown | None = None) -> Shown:
    """The number to show next: it shrinks at will, and grows only together with a reason.

    A rise that is small for the number (`HOLD_S`, `HOLD_SHARE`) is not shown. A reason stays until the number is back
    at what had been promised.
    """
    if estimated is None:
        return _show_none(now, before)
    if before is None or before.last is None or before.promised is None:
        return Shown(estimated, None, now, estimated, estimated)
    last, promised = before.last, before.promised
    if _is_held(estimated.eta_s, last.eta_s) and _is_held(estimated.eta_max_s, last.eta_max_s):
        number = Eta(min(estimated.eta_s, last.eta_s), min(estimated.eta_max_s, last.eta_max_s))
        # While the number is held, small causes may add up: they are judged from where it was the estimate.
        under = now if number == estimated else before.under
        if number.eta_s <= promised.eta_s and number.eta_max_s <= promised.eta_max_s:
            return Shown(number, None, under, number, number)
        return Shown(number, before.reason, under, number, promised)
    return Shown(estimated, _cause(now, before), now, estimated, promised)


def _show_none(now: Circumstances, before: Shown | None) -> Shown:
    reason = None
    if now.mode is not Mode.OPEN:
        reason = EtaReason(now.mode.value)
    elif now.limit <= 0:
        reason = EtaReason.LIMIT_LOWERED
    if before is None:
        return Shown(None, reason, now)
    return Shown(None, reason or before.reason, before.under, before.last, before.promised)


def _is_held(estimated_s: float, shown_s: float) -> bool:
    return estimated_s <= shown_s + max(HOLD_S, HOLD_SHARE * shown_s)


def _cause(now: Circumstances, before: Shown) -> EtaReason:
    if before.eta is None and before.reason is not None:
        return before.reason
    if now.limit < before.under.limit:
        return EtaReason.LIMIT_LOWERED
    if now.ahead > before.under.ahead:
        return EtaReason.RETURNED_AHEAD
    # Nothing else makes an estimate rise: places were freed later than they should have been, or lengths have grown.
    return EtaReason.INTERVIEWS_RUN_LONGER


class _Lengths:
    """The distribution of interview lengths, as at most `_MAX_LENGTHS` equally likely ones."""

    def __init__(self, lengths_s: Sequence[float], max_interview_s: float) -> None:
        self.max_s = max_interview_s if max_interview_s > 0 else math.inf
        possible = [max(_MIN_LENGTH_S, min(length, self.max_s)) for length in lengths_s]
        self.likely = _condensed(possible, _MAX_LENGTHS)
        self.mean = fmean(self.likely)
        # Of the numbers themselves: condensing hides a part of their variance.
        mean = fmean(possible)
        self.spread = sum((length - mean) ** 2 for length in possible) / (len(possible) - 1) / mean**2
        # How badly the mean length is known from so many samples; Student's t in place of the normal quantile.
        self.doubt = self.spread / len(possible)
        self.z_bound = _Z_BOUND * (1 + (_Z_BOUND**2 + 1) / (4 * (len(possible) - 1)))
        quartile = len(self.likely) * 3 // 4
        self._tail = [length - self.likely[quartile] for length in self.likely[quartile:]]

    def remaining(self, age: float, least: float) -> list[float]:
        """The equally likely remaining times of an interview of this age, in order.

        One that is older than all the others ends like the longest quarter of them did, counted from where that
        quarter begins.
        """
        longer = bisect_right(self.likely, age)
        if longer < len(self.likely):
            return [length - age for length in self.likely[longer:]]
        return [max(least, min(rest, self.max_s - age)) for rest in self._tail]


class _Forecast:
    """The number of places freed over time: `freed[k]` expected, `variance[k]`, at most half a step after k."""

    def __init__(self, outlook: Outlook, lengths: _Lengths) -> None:
        self._lengths = lengths
        self._limit = outlook.limit
        taken = len(outlook.ages_s) + outlook.offered
        self._free = max(0, outlook.limit - taken)
        # While a lowered limit drains, the first places that are freed admit nobody.
        self._excess = max(0, taken - outlook.limit)
        # An open offer is an interview that begins now.
        ages = [*(max(0.0, age) for age in outlook.ages_s), *([0.0] * outlook.offered)]
        likely_ages = _condensed(ages, _MAX_AGES)
        longest = max((lengths.remaining(age, 0.0)[-1] for age in likely_ages), default=0.0)
        self._step = (max(longest, 2 * lengths.mean) + lengths.mean) / _STEPS
        self._first = [0.0] * (_STEPS + 2)
        self._first_squared = [0.0] * (_STEPS + 2)
        for age in likely_ages:
            self._add_running(age, len(ages) / len(likely_ages))
        self.freed = self._renewed()
        self.variance = self._variances()

    def _add_running(self, age: float, weight: float) -> None:
        """Add the chance F that an interview has ended, and its square, as increments at the steps."""
        remaining = self._lengths.remaining(age, self._step)
        share = 1 / len(remaining)
        chance, chance_step = weight * share, 2 * weight * share * share
        squared = chance_step / 2
        step, first, first_squared = self._step, self._first, self._first_squared
        for rest in remaining:
            at = rest / step
            k = int(at)
            later = at - k
            first[k] += chance * (1 - later)
            first[k + 1] += chance * later
            first_squared[k] += squared * (1 - later)
            first_squared[k + 1] += squared * later
            squared += chance_step

    def _renewed(self) -> list[float]:
        """Expected freed places up to each step, those of interviews that have yet to begin included."""
        lengths_backwards = self._lengths_by_step()[::-1]
        begun: list[float] = []
        freed: list[float] = []
        total = 0.0
        for k in range(_STEPS + 1):
            now = self._first[k] + sum(map(mul, lengths_backwards[_STEPS - k :], begun))
            if k == 0:
                now += self._free
            total += now
            begun.append(min(now, max(0.0, total - self._excess)))
            freed.append(total)
        return freed

    def _lengths_by_step(self) -> list[float]:
        by_step = [0.0] * (_STEPS + 1)
        share = 1 / len(self._lengths.likely)
        for length in self._lengths.likely:
            at = max(1.0, length / self._step)
            k = int(at)
            if k < _STEPS:
                by_step[k] += share * (1 - at + k)
                by_step[k + 1] += share * (at - k)
        return by_step

    def _variances(self) -> list[float]:
        """F(1 - F) for each running interview; each later one that ends adds the spread of the lengths.

        The less regular the lengths (spread 1: memoryless), the more the later ones undo the -F² of the first.
        """
        spread = self._lengths.spread
        kept = max(0.0, 1 - spread)
        return [
            max(0.0, first - kept * squared + spread * max(0.0, freed - self._free - first))
            for first, squared, freed in zip(
                accumulate(self._first), accumulate(self._first_squared), self.freed, strict=False
            )
        ]

    def _levels(self, z: float) -> list[float]:
        """How many places are freed for certain to the degree z, at time 0 and half a step after each step."""
        doubt = self._lengths.doubt
        levels = [float(self._free)]
        for freed, variance in zip(self.freed, self.variance, strict=True):
            uncertain = freed - self._free
            # Cornish-Fisher: counts are skewed, like Poisson's (1) when seldom, the other way when nearly certain.
            skew = max(-1.0, 2 * variance / uncertain - 1) if uncertain > 0 else 0.0
            deviation = math.sqrt(variance + doubt * uncertain * uncertain)
            levels.append(freed - self._excess - z * deviation + (z * z - 1) * min(1.0, skew) / 6)
        return levels

    def medians(self, count: int) -> list[float]:
        """The median waits of the first `count` waiters."""
        waits = _crossings(self._levels(_Z_MEDIAN), count, self._step)
        limit, mean = self._limit, self._lengths.mean
        while len(waits) < count:
            # Beyond the grid the same pattern returns, one mean length later for each turn of all places.
            last = waits[-1]
            waits += [max(last, wait + mean) for wait in waits[-limit:]]
        return waits[:count]

    def bounds(self, medians: Sequence[float]) -> list[float]:
        """The 90 % bounds of the waits that have these medians: never nearer to them than the grid is fine."""
        lengths, covered, step = self._lengths, self.freed[-1], self._step
        bounds = _crossings(self._levels(lengths.z_bound), len(medians), step)
        per_place = lengths.z_bound * lengths.mean / self._limit
        known, spread, doubt = self.variance[-1], lengths.spread, lengths.doubt
        for freed, wait in enumerate(medians[len(bounds) :], len(bounds) + 1 + self._excess):
            later = spread * (freed - covered) if freed > covered else 0.0
            bounds.append(wait + per_place * math.sqrt(known + later + doubt * freed * freed))
        least = (wait + min(step, wait) for wait in medians)
        return list(accumulate(map(max, bounds, least), max))


def _condensed(values: Sequence[float], at_most: int) -> list[float]:
    """`values` in order; if they are too many, the means of equal shares of them."""
    ordered = sorted(values)
    n = len(ordered)
    if n <= at_most:
        return ordered
    return [fmean(ordered[n * i // at_most : n * (i + 1) // at_most]) for i in range(at_most)]


def _crossings(levels: Sequence[float], count: int, step: float) -> list[float]:
    """When the levels first pass 1/2, 3/2, ... (at most `count` of them), linear in between."""
    waits: list[float] = []
    target = 0.5
    reached, reached_at = levels[0], 0.0
    while len(waits) < count and target <= reached:
        waits.append(0.0)
        target += 1
    for k, level in enumerate(levels[1:]):
        at = (k + 0.5) * step
        while len(waits) < count and target <= level:
            waits.append(reached_at + (target - reached) / (level - reached) * (at - reached_at))
            target += 1
        reached, reached_at = max(reached, level), at
    return waits
