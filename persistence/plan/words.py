"""The plan in sentences, for the table and the picture alike."""

from __future__ import annotations

import re

from persistence.plan.planning import Load, Plan

_MINUTE_S, _HOUR_S = 60, 3_600
_DURATION = re.compile(r"(\d{1,6}(?:\.\d+)?) ?(s|min|m|h|)")
_SHOWN, _SMALL = 0.0005, 0.0995
_UNITS = {"": 1, "s": 1, "m": _MINUTE_S, "min": _MINUTE_S, "h": _HOUR_S}


def duration(seconds: float | None) -> str:
    """Seconds for people; None is a wait without end."""
    if seconds is None:
        return "∞"
    if round(seconds) < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"


def seconds_of(text: str) -> float:
    """Seconds from `90`, `60s`, `5m`, `5 min` or `1h`; ValueError if it is none of these."""
    matched = _DURATION.fullmatch(text.strip())
    if matched is None:
        raise ValueError(f"not a duration: {text!r}")
    return float(matched[1]) * _UNITS[matched[2]]


def percent(share: float) -> str:
    """A share for people; with a digit more where it is near none or all."""
    digits = 1 if _SHOWN <= min(share, 1 - share) < _SMALL else 0
    return f"{share * 100:.{digits}f} %"


def answer(plan: Plan) -> str:
    """The answer in one sentence."""
    share, wait = f"{plan.target.percent:g} %", duration(plan.target.wait_s)
    if not plan.limits:
        return "There are too few data for an answer."
    if plan.smallest is None:
        tried = f"{plan.limits[0].limit} to {plan.limits[-1].limit}"
        return f"No limit of {tried} is enough for {share} to wait at most {wait}."
    places = "1 place is" if plan.smallest == 1 else f"{plan.smallest} places are"
    return f"{places} enough: {share} wait at most {wait}."


def load(found: Load) -> str:
    """What the plan has to cope with, in one sentence."""
    length = f"{duration(found.mean_length_s)} each on average"
    if found.days is None or found.interviews is None:
        return f"{found.arrivals_per_hour:g} people an hour, {length}: {found.erlangs:.2f} erlangs."
    hour = f"{found.busiest_hour_utc:02}:00 UTC"
    days = "1 day" if found.days == 1 else f"{found.days} days"
    return (
        f"{found.interviews} people in {days}, {length}; in the busiest hour ({hour}) "
        f"{found.arrivals_per_hour:.1f}: {found.erlangs:.2f} erlangs."
    )
