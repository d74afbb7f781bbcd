"""The plan as a whole: what it answers, what it says about itself, and how it looks."""

from __future__ import annotations

import itertools
import json
import random
from xml.etree import ElementTree as ET

import msgspec
import pytest

from persistence.plan.demand import DAY_S, HOUR_S, Demand, Steady, Visit, observed
from persistence.plan.limits import LimitsError, limits_of
from persistence.plan.picture import svg, worth_showing
from persistence.plan.planning import Plan, Question, Target, plan_from_assumptions, plan_from_history
from persistence.plan.words import answer, duration, load, percent, seconds_of

MIDNIGHT = 20_000 * DAY_S
TARGET = Target(60, 95)


def demand(days: int = 28, a_day: int = 30, gave_up: int = 0) -> Demand:
    """Weeks of a study: most come around eleven, for about twenty minutes."""
    rng = random.Random(3)
    visits = [
        Visit(MIDNIGHT + day * DAY_S + rng.triangular(8, 20, 11) * HOUR_S, 30, rng.lognormvariate(7, 0.4))
        for day in range(days)
        for _ in range(a_day)
    ]
    in_vain = [Visit(MIDNIGHT + 11 * HOUR_S, 20, None, got_in=False)] * gave_up
    return observed([*visits, *in_vain], MIDNIGHT - 6 * HOUR_S, MIDNIGHT + days * DAY_S + 4 * HOUR_S)


def planned(found: Demand | None = None, limits: range = range(1, 11), target: Target = TARGET) -> Plan:
    return plan_from_history(found or demand(), Question(limits, target, "main"))


def test_the_smallest_limit_is_the_first_that_reaches_the_target() -> None:
    plan = planned()
    within = {each.limit: each.within_target for each in plan.limits}
    assert plan.smallest is not None
    assert within[plan.smallest] >= 0.95 > within[plan.smallest - 1]
    assert list(within) == list(range(1, 11))
    assert answer(plan) == f"{plan.smallest} places are enough: 95 % wait at most 60 s."


def test_a_harder_target_needs_more_places_and_an_impossible_one_is_said_to_be() -> None:
    easy, hard = planned(target=Target(600, 90)).smallest, planned(target=Target(0, 99.9)).smallest
    assert easy is not None
    assert hard is not None
    assert easy < hard
    none = planned(limits=range(1, 3))
    assert none.smallest is None
    assert answer(none) == "No limit of 1 to 2 is enough for 95 % to wait at most 60 s."


def test_more_places_mean_less_of_everything() -> None:
    limits = planned().limits
    for fewer, more in itertools.pairwise(limits):
        assert more.chance_of_waiting <= fewer.chance_of_waiting
        assert (more.p95_wait_s or 0) <= (fewer.p95_wait_s or 0)
        assert more.utilisation <= fewer.utilisation
        assert more.erlang_c.chance_of_waiting < fewer.erlang_c.chance_of_waiting or fewer.limit == 1


def test_thousands_of_days_are_simulated() -> None:
    assert planned().replications > 3_000


def test_the_load_is_told() -> None:
    found = planned().load
    assert found is not None
    assert (found.days, found.interviews, found.busiest_hour_utc) == (28, 28 * 30, 11)
    assert found.erlangs == pytest.approx(found.arrivals_per_hour * found.mean_length_s / 3_600)
    assert load(found).startswith(
        "840 people in 28 days, 20 min each on average; in the busiest hour (11:00 UTC)"
    )


def test_with_too_few_interviews_nothing_is_claimed() -> None:
    plan = planned(Demand([[1.0] * 4], [600.0] * 4))
    assert (plan.limits, plan.load, plan.smallest) == ([], None, None)
    (warning,) = plan.warnings
    assert warning.startswith("Too few data for a plan: 4 finished interviews")


def test_thin_data_are_named() -> None:
    warnings = planned(demand(days=3, a_day=5)).warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        "Only 3 whole days of history",
        "Only 15 finished interviews",
    ]
    assert planned().warnings == []


def test_it_says_whether_people_give_up() -> None:
    assert any(sentence.startswith("Nobody gives up") for sentence in planned().assumes)
    plan = planned(demand(gave_up=40), limits=range(1, 3))
    assert "People give up as the 40 did who waited in vain." in plan.assumes
    assert plan.limits[0].gave_up > 0


def test_the_same_history_gives_the_same_plan() -> None:
    assert planned() == planned()


def test_assumptions_alone_give_erlangs_answer() -> None:
    plan = plan_from_assumptions(Steady(6, 1_800), Question(limits_of("1..12"), TARGET))
    assert plan.smallest == 7
    for each in plan.limits[3:]:
        assert each.chance_of_waiting == pytest.approx(each.erlang_c.chance_of_waiting, abs=0.02)
    hopeless = plan.limits[2]
    assert (hopeless.chance_of_waiting, hopeless.p95_wait_s, hopeless.erlang_c.mean_wait_s) == (1, None, None)


def test_a_plan_survives_json() -> None:
    plan = planned()
    assert msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(plan))), Plan) == plan


@pytest.mark.parametrize("limits", [range(1, 3), range(1, 11), range(3, 4), range(1, 41)])
def test_the_picture_is_an_svg_with_its_meaning_in_words(limits: range) -> None:
    plan = planned(limits=limits)
    root = ET.fromstring(svg(plan))
    names = {"s": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    assert root.findtext("s:title", namespaces=names) == "How many places are needed: pool main"
    description = root.findtext("s:desc", namespaces=names) or ""
    assert description.startswith(answer(plan))
    assert all(f"{each.limit}: " in description for each in worth_showing(plan))
    assert "prefers-color-scheme: dark" in svg(plan)
    for shape in root.iter():
        for name in ("x", "y", "cx", "cy", "width", "height"):
            assert 0 <= float(shape.get(name, 0)) <= 760, (shape.tag, name)


def test_a_pool_with_markup_in_its_name_can_not_break_the_picture() -> None:
    plan = msgspec.structs.replace(planned(limits=range(1, 3)), pool="<script>&")
    assert "<script>" not in svg(plan)
    ET.fromstring(svg(plan))


def test_limits_at_which_nobody_waits_any_more_are_left_out_but_not_the_chosen_one() -> None:
    plan = planned(limits=range(1, 41))
    shown = worth_showing(plan)
    assert len(shown) < 15
    assert [each.chance_of_waiting < 0.0005 for each in shown].count(True) == 2
    assert plan.smallest in [each.limit for each in shown]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("60s", 60), ("5m", 300), ("5 min", 300), ("1.5h", 5400), ("0", 0)]
)
def test_durations_are_understood(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "soon", "-1s", "5d", "5mm", "nan", "inf", "1h30"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        seconds_of(text)


def test_limits_are_a_range_or_a_number() -> None:
    assert list(limits_of("2..4")) == [2, 3, 4]
    assert list(limits_of(" 7 ")) == [7]


@pytest.mark.parametrize("text", ["", "0..3", "3..1", "1-20", "1..51", "1..1001", "9" * 9, "a..b"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(LimitsError):
        limits_of(text)


def test_numbers_are_short() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 119.4, 125, 7_300, None)] == [
        "0 s", "60 s", "119 s", "2 min", "2.0 h", "∞",
    ]  # fmt: skip
    assert [percent(share) for share in (0, 0.0002, 0.004, 0.0994, 0.2, 0.949, 0.9999, 1)] == [
        "0 %", "0 %", "0.4 %", "9.9 %", "20 %", "94.9 %", "100 %", "100 %",
    ]  # fmt: skip
