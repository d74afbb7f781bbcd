"""From visits to days: where they are cut, who belongs to which, how patient people are."""

from __future__ import annotations

import random
from math import inf

import pytest

from persistence.plan.demand import (
    DAY_S,
    HOUR_S,
    Demand,
    Patience,
    Visit,
    observed,
    patience_of,
    quietest_hour,
)

MIDNIGHT = 20_000 * DAY_S


def visit(day: int, hour: float, minutes: float = 20) -> Visit:
    return Visit(MIDNIGHT + day * DAY_S + hour * HOUR_S, 0.0, minutes * 60)


def test_a_day_is_cut_in_the_middle_of_its_quietest_hours() -> None:
    assert quietest_hour([visit(0, hour) for hour in range(8, 18)]) in {0, 1}
    # Busy around midnight UTC, as in California: cut in its early morning.
    late = [visit(0, hour) for hour in (16, 18, 20, 22, 23.9, 25, 27)]
    assert quietest_hour(late) in {8, 9, 10}


def test_an_hour_in_which_interviews_run_is_not_quiet_though_nobody_comes() -> None:
    assert quietest_hour([visit(0, 0, minutes=22 * 60)]) == 23


def test_each_arrival_belongs_to_its_day_and_broken_days_are_left_out() -> None:
    visits = [visit(day, hour) for day in range(4) for hour in (9, 10, 10.5)[: day or 3]]
    demand = observed(visits, since=MIDNIGHT + 12 * HOUR_S, until=MIDNIGHT + 3.5 * DAY_S)
    assert [len(day) for day in demand.days] == [1, 2]
    assert all(0 <= at < DAY_S for day in demand.days for at in day)
    assert [(at / HOUR_S + demand.cut_h) % 24 for day in demand.days for at in day] == [9, 9, 10]


def test_lengths_are_those_of_all_finished_interviews() -> None:
    running = Visit(MIDNIGHT + 10 * HOUR_S, 0.0, None)
    demand = observed([visit(0, 9), running, visit(1, 9, 30)], MIDNIGHT, MIDNIGHT + 2 * DAY_S)
    assert demand.lengths_s == [1200, 1800]


def test_a_history_of_hours_counts_as_one_day() -> None:
    demand = observed([visit(0, 9), visit(0, 10)], MIDNIGHT - 15.1 * HOUR_S, MIDNIGHT + 12 * HOUR_S)
    assert [len(day) for day in demand.days] == [2]


def test_no_more_days_are_looked_at_than_asked_for() -> None:
    demand = observed([visit(day, 9) for day in range(5)], MIDNIGHT - DAY_S, MIDNIGHT + 5 * DAY_S, 3)
    assert [len(day) for day in demand.days] == [1, 1, 1]


def test_days_without_anybody_count_too() -> None:
    demand = observed([visit(0, 9), visit(4, 9)], MIDNIGHT - DAY_S, MIDNIGHT + 6 * DAY_S)
    assert [len(day) for day in demand.days].count(1) == 2
    assert len(demand.days) == 7
    # …but nobody is surprised by an empty day when asked for the busiest hour.
    assert (demand.busiest().hour, demand.busiest().arrivals) == (9, 1)


def test_a_simulated_day_is_an_observed_one_moved_by_minutes() -> None:
    demand = Demand([[9 * HOUR_S] * 20, []], [600.0, 1200.0])
    runs = demand.runs(random.Random(1))
    assert {len(run.arrivals) for run in runs} == {0, 20}
    full = next(run for run in runs if run.arrivals)
    assert all(abs(at - 9 * HOUR_S) <= 300 for at in full.arrivals)
    assert list(full.arrivals) == sorted(full.arrivals)
    assert set(full.lengths) == {600.0, 1200.0}
    assert sum(map(bool, (run.arrivals for run in runs))) / len(runs) == pytest.approx(0.5, abs=0.05)


def test_the_work_is_bounded() -> None:
    busy = Demand([[1.0] * 10_000] * 3, [60.0])
    assert sum(len(run.arrivals) for run in busy.runs(random.Random(1))) == 100_000
    assert len(Demand([[1.0]], [60.0]).runs(random.Random(1))) == 5_000


def test_few_who_gave_up_say_nothing_about_patience() -> None:
    in_vain = [Visit(0, 60, None, got_in=False)] * 4
    assert patience_of(in_vain) == Patience()
    assert set(Patience().draw(3, random.Random(1))) == {inf}


def test_patience_is_estimated_as_by_kaplan_and_meier() -> None:
    in_vain = [Visit(0, waited_s, None, got_in=False) for waited_s in (60, 60, 120, 300, 300)]
    got_in = [Visit(0, waited_s, 600) for waited_s in (0, 0, 90, 200, 200, 400)]
    found = patience_of([*in_vain, *got_in])
    # At risk: 9 at 60 s, 6 at 120 s, 3 at 300 s.
    still_there = [1 - 2 / 9, (1 - 2 / 9) * (1 - 1 / 6), (1 - 2 / 9) * (1 - 1 / 6) * (1 - 2 / 3)]
    assert found.waits_s == [60, 120, 300]
    assert found.chances == pytest.approx(
        [1 - still_there[0], still_there[0] - still_there[1], still_there[1] - still_there[2]]
    )
    drawn = found.draw(20_000, random.Random(1))
    assert drawn.count(inf) / 20_000 == pytest.approx(still_there[2], abs=0.01)


def test_the_true_patience_is_found_again_from_what_a_line_shows_of_it() -> None:
    rng = random.Random(5)
    people = [(rng.expovariate(1 / 300), rng.uniform(0, 900)) for _ in range(20_000)]
    shown = [Visit(0, min(patience, wait), 600, got_in=wait < patience) for patience, wait in people]
    found = patience_of(shown)
    within = sum(chance for wait, chance in zip(found.waits_s, found.chances, strict=True) if wait <= 300)
    assert within == pytest.approx(1 - 2.718281828**-1, abs=0.02)
