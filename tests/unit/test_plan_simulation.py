"""The simulated line: first come first served, patience, and numbers that add up."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.plan.simulation import GAVE_UP, Run, first_come_first_served, simulate


def run(*people: tuple[float, float] | tuple[float, float, float], span_s: float = 100.0) -> Run:
    """People as (arrives, length) or (arrives, length, patience)."""
    arrivals, lengths = [person[0] for person in people], [person[1] for person in people]
    return Run(arrivals, lengths, [person[2] if len(person) == 3 else inf for person in people], span_s)


def test_who_comes_while_a_place_is_free_gets_in_at_once() -> None:
    served = first_come_first_served(run((0, 10), (5, 10), (10, 10)), 2)
    assert served.waits == [0, 0, 0]
    assert served.busy_s == 30


def test_the_line_is_served_in_order() -> None:
    assert first_come_first_served(run((0, 10), (1, 10), (2, 10), (3, 10)), 1).waits == [0, 9, 18, 27]


def test_the_place_that_falls_free_first_is_taken_first() -> None:
    assert first_come_first_served(run((0, 30), (0, 10), (1, 1), (1, 1)), 2).waits == [0, 0, 9, 10]


def test_who_gives_up_takes_no_place_and_costs_the_next_nothing() -> None:
    served = first_come_first_served(run((0, 10), (1, 50, 5), (2, 10)), 1)
    assert served.waits == [0, GAVE_UP, 8]
    assert served.busy_s == 20


def test_what_lies_behind_the_end_of_the_day_does_not_count_as_used() -> None:
    assert first_come_first_served(run((90, 30), (91, 30), span_s=100), 1).busy_s == 10


def test_the_outcome_counts_those_who_waited_and_those_who_gave_up() -> None:
    (outcome,) = simulate([run((0, 10), (1, 10), (2, 10, 5), (50, 10))], [1])
    assert (outcome.asked, outcome.admitted, outcome.gave_up) == (4, 3, 1)
    assert outcome.chance_of_waiting == 2 / 4
    assert outcome.mean_wait_s == 3
    assert (outcome.wait_s(0.5), outcome.wait_s(0.95)) == (0, 9)
    assert (outcome.share_within(8), outcome.share_within(9)) == (2 / 4, 3 / 4)
    assert outcome.utilisation == 30 / 100


def test_the_warm_up_is_not_counted() -> None:
    crowd = run((0, 10), (1, 10), (50, 10))
    (outcome,) = simulate([Run(crowd.arrivals, crowd.lengths, crowd.patience, 100, warm_up=2)], [1])
    assert (outcome.asked, outcome.chance_of_waiting) == (1, 0)


def test_without_anybody_there_is_nothing_to_wait_for() -> None:
    (outcome,) = simulate([run()], [1])
    assert (outcome.chance_of_waiting, outcome.share_within(0), outcome.wait_s(0.95)) == (0, 1, 0)


people = st.lists(
    st.tuples(st.floats(0, 1000), st.floats(1, 200), st.floats(1, 400) | st.just(inf)),
    min_size=1,
    max_size=30,
).map(sorted)


@settings(max_examples=200, deadline=None)
@given(st.lists(people, min_size=1, max_size=4))
def test_skipping_runs_without_a_line_changes_nothing(days: list[list[tuple[float, float, float]]]) -> None:
    runs = [run(*day, span_s=2000) for day in days]
    limits = [1, 2, 3, 5, 30]
    together = list(simulate(runs, limits))
    assert together == [outcome for limit in limits for outcome in simulate(runs, [limit])]
    assert together[-1].chance_of_waiting == 0
    assert all(0 <= outcome.utilisation <= 1 for outcome in together)


@settings(max_examples=200, deadline=None)
@given(people)
def test_more_places_never_make_anybody_wait_longer(day: list[tuple[float, float, float]]) -> None:
    patient = patient_people(day)
    fewer, more = (first_come_first_served(patient, limit).waits for limit in (2, 3))
    assert all(b <= a + 1e-6 for a, b in zip(fewer, more, strict=True))


@settings(max_examples=200, deadline=None)
@given(people, st.integers(1, 4))
def test_it_equals_a_simulation_event_by_event(day: list[tuple[float, float, float]], limit: int) -> None:
    """The oracle keeps a line and looks at every moment at which something happens."""
    found = first_come_first_served(patient_people(day), limit).waits
    assert found == pytest.approx(waits_event_by_event(day, limit), abs=1e-6)


def patient_people(day: list[tuple[float, float, float]]) -> Run:
    return run(*((arrives, length) for arrives, length, _ in day))


def waits_event_by_event(day: list[tuple[float, float, float]], limit: int) -> list[float]:
    waits = [0.0] * len(day)
    ends: list[float] = []
    line: list[int] = []
    coming = list(range(len(day)))
    while coming or line:
        next_end = [min(ends)] if line else []
        now = min([day[who][0] for who in coming[:1]] + next_end)
        ends = [end for end in ends if end > now]
        while coming and day[coming[0]][0] <= now:
            line.append(coming.pop(0))
        while line and len(ends) < limit:
            who = line.pop(0)
            waits[who] = now - day[who][0]
            ends.append(now + day[who][1])
    return waits


def test_the_same_seed_gives_the_same_numbers() -> None:
    def once() -> list[object]:
        rng = random.Random(3)
        day = sorted((rng.uniform(0, 1000), rng.uniform(1, 200)) for _ in range(100))
        return list(simulate([run(*day)], [1, 2]))

    assert once() == once()
