"""Erlang's formulas against published numbers, exact fractions and a simulation."""

from __future__ import annotations

import random
from fractions import Fraction
from math import factorial, inf
from typing import NamedTuple

import pytest

from persistence.plan.demand import Steady
from persistence.plan.erlang import blocking, chance_of_waiting, erlang_c, share_within
from persistence.plan.simulation import simulate

# (erlangs, lines) to the share of lost calls, to the digits that Erlang-B tables print.
ERLANG_B = {(2, 5): 0.0367, (5, 10): 0.0184, (10, 14): 0.0568, (8, 10): 0.1217, (1, 1): 0.5}

# The load that so many lines carry with one call in a hundred lost: the 1 % column of the same tables.
ERLANG_B_AT_1_PERCENT = {1: 0.0101, 2: 0.153, 5: 1.36, 10: 4.46, 20: 12.0, 50: 37.9, 100: 84.1}

# (erlangs, lines) to the chance of waiting: Call Centre Helper's worked example (100 calls in 30 minutes, 180 s each),
# with its digits from the reference of the R package ErlangC 0.1.0 on CRAN; 8 erlangs on 10 lines is an entry of the
# usual Erlang-C tables.
ERLANG_C = {
    (10, 11): 0.6821182,
    (10, 12): 0.44939,
    (10, 14): 0.1741319,
    (10, 15): 0.102,
    (8, 10): 0.4092,
    (48, 55): 0.2387,
}


class Example(NamedTuple):
    """A published example: calls of so many seconds on average, and how they fare."""

    erlangs: float
    agents: int
    length_s: float
    within_s: float
    mean_wait_s: float
    share: float


EXAMPLES = [
    # ErlangC 0.1.0 on CRAN, as above.
    Example(10, 14, 180, 20, 7.83593701, 0.88835),
    # The other classic: 360 calls in half an hour, four minutes each, 55 agents.
    Example(48, 55, 240, 20, 8.184, 0.8668),
]


@pytest.mark.parametrize(("places", "erlangs"), ERLANG_B_AT_1_PERCENT.items())
def test_the_share_of_lost_calls_is_that_of_the_published_table(places: int, erlangs: float) -> None:
    # The table gives three digits of the load; the last one moves the share by this much.
    assert blocking(erlangs, places) == pytest.approx(0.01, abs=0.0003)


@pytest.mark.parametrize(("at", "published"), ERLANG_B.items())
def test_the_share_of_lost_calls_is_the_published_one(at: tuple[float, int], published: float) -> None:
    assert blocking(*at) == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize(("at", "published"), ERLANG_C.items())
def test_the_chance_of_waiting_is_the_published_one(at: tuple[float, int], published: float) -> None:
    assert chance_of_waiting(*at) == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_published_examples_come_out(example: Example) -> None:
    found = erlang_c(example.erlangs, example.agents, example.length_s)
    assert found.mean_wait_s == pytest.approx(example.mean_wait_s, rel=1e-4)
    assert found.utilisation == pytest.approx(example.erlangs / example.agents)
    share = share_within(example.erlangs, example.agents, example.length_s, example.within_s)
    assert share == pytest.approx(example.share, abs=5e-5)


@pytest.mark.parametrize("places", [1, 2, 3, 7, 25])
@pytest.mark.parametrize(
    "utilisation", [Fraction(1, 100), Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)]
)
def test_it_equals_the_textbook_sum_in_exact_fractions(places: int, utilisation: Fraction) -> None:
    load = places * utilisation
    tail = load**places / factorial(places) / (1 - utilisation)
    exact = tail / (sum(load**n / factorial(n) for n in range(places)) + tail)
    assert chance_of_waiting(float(load), places) == pytest.approx(float(exact), rel=1e-12)


def test_of_a_single_place_the_chance_of_waiting_is_the_load() -> None:
    assert chance_of_waiting(0.37, 1) == pytest.approx(0.37, rel=1e-12)


def test_it_holds_for_a_hundred_thousand_places() -> None:
    # Square-root staffing (Halfin and Whitt 1981): with load + beta * root(load) places the chance tends to
    # 1 / (1 + beta * cdf(beta) / pdf(beta)), 0.2234 for beta 1.
    load = 100_000.0
    assert chance_of_waiting(load, int(load + load**0.5)) == pytest.approx(0.2234, abs=0.002)
    assert 0 <= chance_of_waiting(1.0, 100_000) < 1e-300
    assert blocking(1e-9, 1_000) == pytest.approx(0.0, abs=1e-300)


@pytest.mark.parametrize(("erlangs", "places"), [(3.0, 3), (10.0, 3), (1.0, 0)])
def test_with_too_few_places_everybody_waits_and_the_line_only_grows(erlangs: float, places: int) -> None:
    found = erlang_c(erlangs, places, 60.0)
    assert (found.chance_of_waiting, found.mean_wait_s, found.is_stable) == (1.0, None, False)
    assert share_within(erlangs, places, 60.0, 1e9) == 0.0


def test_without_load_nobody_waits() -> None:
    assert (chance_of_waiting(0.0, 3), blocking(0.0, 3), blocking(0.0, 0)) == (0.0, 0.0, 1.0)
    assert erlang_c(0.0, 0, 60.0).utilisation == inf


@pytest.mark.parametrize("places", [3, 8, 14])
def test_a_simulation_of_the_same_assumptions_agrees(places: int) -> None:
    length_s, load = 1_200.0, 0.75 * places
    steady = Steady(load / length_s * 3_600, length_s)
    (found,) = simulate(steady.runs(random.Random(7)), [places])
    expected = erlang_c(load, places, length_s)
    assert expected.mean_wait_s is not None
    assert found.chance_of_waiting == pytest.approx(expected.chance_of_waiting, rel=0.06)
    assert found.mean_wait_s == pytest.approx(expected.mean_wait_s, rel=0.15)
    assert found.utilisation == pytest.approx(0.75, rel=0.03)
    for wait_s in (60.0, 600.0):
        assert found.share_within(wait_s) == pytest.approx(
            share_within(load, places, length_s, wait_s), abs=0.015
        )
