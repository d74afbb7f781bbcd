"""Erlang's formula for a line: Poisson arrivals, exponential lengths, first come first served, nobody gives up."""

from __future__ import annotations

import math

import msgspec


class ErlangC(msgspec.Struct, frozen=True):
    """A pool in its steady state. `utilisation` is a share of the places; waits are null where the line only grows."""

    chance_of_waiting: float
    mean_wait_s: float | None
    utilisation: float

    @property
    def is_stable(self) -> bool:
        """Whether the line ever comes to an end."""
        return self.utilisation < 1


def blocking(erlangs: float, places: int) -> float:
    """Erlang B: the share of arrivals that find every place taken, if they do not wait.

    By the recursion over 1/B (A. K. Erlang 1917; in this form: Jagerman, Bell System Technical Journal 53, 1974): all
    terms are positive, so nothing cancels and no factorial overflows, for any number of places.
    """
    if erlangs <= 0:
        return 0.0 if places else 1.0
    inverse = 1.0
    for place in range(1, places + 1):
        inverse = 1.0 + inverse * place / erlangs
    return 1.0 / inverse


def chance_of_waiting(erlangs: float, places: int) -> float:
    """Erlang C: the share of arrivals that have to wait; 1 where the load is no less than the places."""
    if erlangs >= places:
        return 1.0
    blocked = blocking(erlangs, places)
    return places * blocked / (places - erlangs * (1.0 - blocked))


def erlang_c(erlangs: float, places: int, mean_length_s: float) -> ErlangC:
    """All of it, for a load of `erlangs` (arrivals per second times `mean_length_s`) on so many places."""
    chance = chance_of_waiting(erlangs, places)
    stable = erlangs < places
    mean_wait_s = chance * mean_length_s / (places - erlangs) if stable else None
    return ErlangC(chance, mean_wait_s, erlangs / places if places else math.inf)


def share_within(erlangs: float, places: int, mean_length_s: float, wait_s: float) -> float:
    """The share of arrivals that wait no longer than `wait_s`."""
    if erlangs >= places:
        return 0.0
    longer = math.exp(-(places - erlangs) * wait_s / mean_length_s)
    return 1.0 - chance_of_waiting(erlangs, places) * longer
