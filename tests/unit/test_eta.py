"""The wait in line: exact small cases, what always holds, and the number that is shown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import eta_accuracy
from server.domain.eta import (
    MIN_SAMPLES,
    Circumstances,
    Eta,
    EtaReason,
    Outlook,
    Shown,
    estimate,
    next_eta,
    show,
)
from server.domain.pool import Mode

TEN_OF_900 = [900.0] * 10
# The grid of an estimate for lengths of 900 s is this fine at worst.
FINE_S = 22.0

positive = st.floats(0, 1e5)
outlooks = st.builds(
    Outlook,
    ages_s=st.lists(positive, max_size=30),
    lengths_s=st.lists(positive, min_size=MIN_SAMPLES, max_size=60),
    limit=st.integers(1, 20),
    ready=st.integers(0, 60),
    offered=st.integers(0, 5),
    max_interview_s=st.sampled_from([0.0, 0.5, 600.0, 7200.0]),
)


def medians(outlook: Outlook) -> list[float]:
    return [eta.eta_s for eta in estimate(outlook)]


def test_with_equal_lengths_each_waits_for_the_next_interview_to_end() -> None:
    outlook = Outlook(ages_s=[600, 0, 300], lengths_s=TEN_OF_900, limit=3, ready=2)
    assert medians(outlook) == pytest.approx([300, 600, 900], abs=FINE_S)


def test_who_is_further_back_than_there_are_places_waits_whole_turns_more() -> None:
    outlook = Outlook(ages_s=[600, 0, 300], lengths_s=TEN_OF_900, limit=3, ready=100)
    waits = medians(outlook)
    assert waits[3:6] == pytest.approx([1200, 1500, 1800], abs=FINE_S)
    assert waits[99:] == pytest.approx([300 + 33 * 900, 600 + 33 * 900], abs=FINE_S)


def test_a_turn_lasts_the_mean_length_not_the_median() -> None:
    lengths = [300.0] * 6 + [2100.0] * 4
    waits = medians(Outlook(ages_s=[0] * 4, lengths_s=lengths, limit=4, ready=400))
    assert (waits[400] - waits[200]) / 50 == pytest.approx(1020, rel=0.01)


def test_an_interview_that_outlasted_the_short_ones_ends_like_the_long_ones() -> None:
    lengths = [300.0] * 5 + [1800.0] * 5
    (eta,) = estimate(Outlook(ages_s=[400], lengths_s=lengths, limit=1))
    assert eta.eta_s == pytest.approx(1400, abs=60)


def test_of_many_running_interviews_the_first_to_end_ends_soon() -> None:
    lengths = [float(length) for length in range(60, 1860, 60)]
    alone = medians(Outlook(ages_s=[0], lengths_s=lengths, limit=1))
    among_ten = medians(Outlook(ages_s=[0] * 10, lengths_s=lengths, limit=10))
    assert alone == pytest.approx([930], abs=120)
    # The median of the least of ten is where each has ended with a chance of 1 - 0.5 ** 0.1 = 6.7 %.
    assert among_ten == pytest.approx([0.067 * 1800], abs=45)


def test_when_all_interviews_are_overdue_somebody_is_let_in_soon_but_not_at_once() -> None:
    for eta in estimate(Outlook(ages_s=[2000, 3000], lengths_s=TEN_OF_900, limit=2, ready=1)):
        assert 0 < eta.eta_s <= 60


def test_the_maximum_length_caps_what_remains() -> None:
    lengths = [1800.0] * 10
    capped = Outlook(ages_s=[500], lengths_s=lengths, limit=1, ready=1, max_interview_s=600)
    assert medians(capped) == pytest.approx([100, 700], abs=20)


def test_an_overdue_interview_is_not_expected_to_outlast_the_maximum() -> None:
    lengths = [100.0, 200.0, 300.0, 400.0, 800.0]
    (free,) = estimate(Outlook(ages_s=[900], lengths_s=lengths, limit=1))
    (capped,) = estimate(Outlook(ages_s=[900], lengths_s=lengths, limit=1, max_interview_s=910))
    assert capped.eta_max_s < free.eta_max_s
    assert capped.eta_s < 40


def test_an_open_offer_is_an_interview_that_begins() -> None:
    offered = Outlook(ages_s=[600], lengths_s=TEN_OF_900, limit=2, ready=1, offered=1)
    assert medians(offered) == medians(Outlook(ages_s=[600, 0], lengths_s=TEN_OF_900, limit=2, ready=1))


def test_free_places_are_taken_at_once_and_then_are_running_interviews() -> None:
    waits = medians(Outlook(ages_s=[600], lengths_s=TEN_OF_900, limit=3, ready=4))
    assert waits[:2] == [0, 0]
    assert waits[2:] == pytest.approx([300, 900, 900], abs=FINE_S)


def test_the_places_above_a_lowered_limit_admit_nobody() -> None:
    waits = medians(Outlook(ages_s=[800, 600, 300, 0], lengths_s=TEN_OF_900, limit=2, ready=3))
    assert waits == pytest.approx([600, 900, 1500, 1800], abs=FINE_S)


@pytest.mark.parametrize(
    "outlook",
    [
        Outlook(ages_s=[600], lengths_s=[900.0] * (MIN_SAMPLES - 1), limit=1),
        Outlook(ages_s=[600], lengths_s=TEN_OF_900, limit=1, mode=Mode.PAUSED),
        Outlook(ages_s=[600], lengths_s=TEN_OF_900, limit=1, mode=Mode.CLOSED),
        Outlook(ages_s=[600], lengths_s=TEN_OF_900, limit=0),
    ],
    ids=["one sample too few", "paused", "closed", "no places"],
)
def test_there_is_no_eta_where_none_can_be_given(outlook: Outlook) -> None:
    assert estimate(outlook) == []
    assert next_eta(outlook, []) is None


def test_a_newcomer_waits_behind_the_line() -> None:
    outlook = Outlook(ages_s=[600, 0], lengths_s=TEN_OF_900, limit=2, ready=1)
    eta = next_eta(outlook, estimate(outlook))
    assert eta is not None
    assert eta.eta_s == pytest.approx(900, abs=FINE_S)


def test_a_newcomer_to_a_free_place_waits_nothing_even_before_interviews_have_ended() -> None:
    assert next_eta(Outlook(ages_s=[1], lengths_s=[], limit=2), []) == Eta(0, 0)
    assert next_eta(Outlook(ages_s=[1], lengths_s=[], limit=2, offered=1), []) is None
    assert next_eta(Outlook(ages_s=[1], lengths_s=[], limit=2, ready=1), []) is None


@given(outlooks)
def test_waits_are_ordered_like_the_line_and_the_bound_is_never_below_the_median(outlook: Outlook) -> None:
    etas = estimate(outlook)
    assert len(etas) == outlook.ready + 1
    for eta in etas:
        assert 0 <= eta.eta_s <= eta.eta_max_s < float("inf")
    for one, behind in pairwise(etas):
        assert one.eta_s <= behind.eta_s
        assert one.eta_max_s <= behind.eta_max_s


@given(outlooks, st.integers(0, 1000))
def test_the_longer_the_line_the_same_the_wait_of_those_in_front(outlook: Outlook, more: int) -> None:
    longer = Outlook(
        ages_s=outlook.ages_s,
        lengths_s=outlook.lengths_s,
        limit=outlook.limit,
        ready=outlook.ready + more,
        offered=outlook.offered,
        max_interview_s=outlook.max_interview_s,
    )
    assert estimate(longer)[: outlook.ready + 1] == estimate(outlook)


def test_a_thousand_waiters_cost_a_few_milliseconds() -> None:
    # Thrice what it takes, so that a busy machine does not fail it.
    assert eta_accuracy.cost_ms(limit=50, waiting=1000) < 6


HERE = Circumstances(limit=3, ahead=5)


def shown(eta: Eta, now: Circumstances = HERE) -> Shown:
    return show(eta, now)


def test_the_first_number_is_the_estimate() -> None:
    first = shown(Eta(300, 600))
    assert (first.eta, first.reason) == (Eta(300, 600), None)


def test_the_number_follows_the_estimate_down() -> None:
    after = show(Eta(200, 500), HERE, shown(Eta(300, 600)))
    assert (after.eta, after.reason) == (Eta(200, 500), None)


def test_a_small_rise_is_not_shown() -> None:
    after = show(Eta(314, 600), HERE, shown(Eta(300, 600)))
    assert (after.eta, after.reason) == (Eta(300, 600), None)


def test_only_what_rose_is_held() -> None:
    after = show(Eta(290, 610), HERE, shown(Eta(300, 600)))
    assert after.eta == Eta(290, 600)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (Circumstances(limit=2, ahead=5), EtaReason.LIMIT_LOWERED),
        (Circumstances(limit=3, ahead=6), EtaReason.RETURNED_AHEAD),
        (Circumstances(limit=3, ahead=5), EtaReason.INTERVIEWS_RUN_LONGER),
        (Circumstances(limit=4, ahead=4), EtaReason.INTERVIEWS_RUN_LONGER),
    ],
)
def test_a_rise_is_shown_with_its_reason(now: Circumstances, reason: EtaReason) -> None:
    after = show(Eta(500, 900), now, shown(Eta(300, 600)))
    assert (after.eta, after.reason) == (Eta(500, 900), reason)


def test_a_rise_of_the_bound_alone_has_a_reason_too() -> None:
    after = show(Eta(300, 900), HERE, shown(Eta(300, 600)))
    assert (after.eta, after.reason) == (Eta(300, 900), EtaReason.INTERVIEWS_RUN_LONGER)


def test_the_reason_stays_until_the_number_is_back_at_what_was_promised() -> None:
    grown = show(Eta(500, 900), Circumstances(2, 5), shown(Eta(300, 600)))
    still = show(Eta(350, 650), Circumstances(2, 5), grown)
    back = show(Eta(300, 600), Circumstances(2, 5), still)
    assert (still.reason, back.reason) == (EtaReason.LIMIT_LOWERED, None)


def test_a_cause_is_remembered_while_the_number_is_still_held() -> None:
    held = show(Eta(310, 600), Circumstances(limit=3, ahead=6), shown(Eta(300, 600)))
    grown = show(Eta(340, 600), Circumstances(limit=3, ahead=6), held)
    assert grown.reason is EtaReason.RETURNED_AHEAD


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (Circumstances(3, 5, Mode.PAUSED), EtaReason.PAUSED),
        (Circumstances(3, 5, Mode.CLOSED), EtaReason.CLOSED),
        (Circumstances(0, 5), EtaReason.LIMIT_LOWERED),
    ],
)
def test_a_pause_takes_the_number_away_and_explains_the_higher_one_after_it(
    now: Circumstances, reason: EtaReason
) -> None:
    halted = show(None, now, shown(Eta(300, 600)))
    assert (halted.eta, halted.reason) == (None, reason)
    resumed = show(Eta(500, 900), HERE, halted)
    assert (resumed.eta, resumed.reason) == (Eta(500, 900), reason)


def test_after_a_pause_that_cost_nothing_there_is_no_reason() -> None:
    halted = show(None, Circumstances(3, 5, Mode.PAUSED), shown(Eta(300, 600)))
    assert show(Eta(280, 600), HERE, halted).reason is None


def test_no_number_for_want_of_interviews_needs_no_reason() -> None:
    unknown = show(None, HERE)
    assert (unknown.eta, unknown.reason) == (None, None)
    known = show(Eta(300, 600), HERE, unknown)
    assert (known.eta, known.reason) == (Eta(300, 600), None)


etas = st.tuples(st.floats(0, 5000), st.floats(0, 5000)).map(lambda pair: Eta(min(pair), max(pair)))
steps = st.lists(
    st.tuples(
        st.none() | etas,
        st.builds(Circumstances, st.integers(0, 4), st.integers(0, 9), st.sampled_from(Mode)),
    ),
    max_size=30,
)


@given(steps)
def test_the_number_shown_never_grows_without_a_reason(steps: list[tuple[Eta | None, Circumstances]]) -> None:
    before: Shown | None = None
    lowest: Eta | None = None
    for estimated, now in steps:
        after = show(estimated, now, before)
        assert (after.eta is None) == (estimated is None)
        if after.eta is not None:
            assert after.eta.eta_s <= after.eta.eta_max_s
            if lowest is not None and after.reason is None:
                assert after.eta.eta_s <= lowest.eta_s
                assert after.eta.eta_max_s <= lowest.eta_max_s
            # Without a reason the number is the lowest ever shown: the last one that had none.
            lowest = after.eta if after.reason is None else lowest or after.eta
        before = after


@pytest.mark.parametrize("length", eta_accuracy.LENGTHS.values(), ids=list(eta_accuracy.LENGTHS))
def test_in_a_simulation_about_nine_in_ten_waits_are_within_the_bound(length: eta_accuracy.Length) -> None:
    of_plain, ours = eta_accuracy.simulate(length, 10, (eta_accuracy.plain, estimate), moments=120)
    assert ours["near"].within_bound > 0.8
    assert ours["near"].typical_s <= of_plain["near"].typical_s + FINE_S


def test_the_tables_of_the_document_can_be_made() -> None:
    rows = len(eta_accuracy.LENGTHS)
    assert len(list(eta_accuracy.table(moments=2, limits=(3,)))) == 2 + 3 * rows
    assert len(list(eta_accuracy.few_samples_table(moments=2))) == 2 + 3 * rows
    assert len(list(eta_accuracy.shown_table(looks=100, limit=3))) == 2 + rows
