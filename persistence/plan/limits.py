"""Which limits a plan looks at, as people write them."""

from __future__ import annotations

import re

MOST_PLACES = 1_000
MOST_LIMITS = 50
_RANGE = re.compile(r"(\d{1,6})(?:\.\.(\d{1,6}))?")


class LimitsError(ValueError):
    """Not a range of limits, or more work than a plan may make; the text is a sentence."""


def limits_of(text: str) -> range:
    """`1..20`, or a single number."""
    matched = _RANGE.fullmatch(text.strip())
    if matched is None:
        raise LimitsError(f"Limits must look like 1..20, not {text!r}")
    first = int(matched[1])
    last = int(matched[2] or first)
    if not 1 <= first <= last <= MOST_PLACES or last - first >= MOST_LIMITS:
        raise LimitsError(
            f"Limits must rise, from 1 to {MOST_PLACES}, and be at most {MOST_LIMITS} in number"
        )
    return range(first, last + 1)
