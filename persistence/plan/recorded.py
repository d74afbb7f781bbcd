"""What the table has of a pool's last days, before anything is worked out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from persistence.plan.demand import Demand, Visit, observed


@dataclass(slots=True, frozen=True)
class Recorded:
    """Who asked for a place, in seconds of Unix time; in plain tuples, which cost little to make.

    `got_in`: (arrived_at, waited_s, length_s or None while it runs); `in_vain`: (arrived_at, waited_s).
    """

    got_in: Sequence[tuple[float, float, float | None]]
    in_vain: Sequence[tuple[float, float]]
    since: float
    until: float
    days: int

    def demand(self) -> Demand:
        """The demand in it: a tenth of a second of work for the longest history."""
        return observed([*self._visits()], self.since, self.until, self.days)

    def _visits(self) -> Iterator[Visit]:
        for arrived_at, waited_s, length_s in self.got_in:
            yield Visit(arrived_at, waited_s, length_s)
        for arrived_at, waited_s in self.in_vain:
            yield Visit(arrived_at, waited_s, None, got_in=False)
