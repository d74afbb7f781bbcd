"""What counts and times: bounds of series, hand-overs told from events, Redis's clock, and workers taken together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from server.domain.events import Event, EventType
from server.measure.exposition import Shared, alone, forget_worker
from server.measure.handovers import HandOvers
from server.measure.instruments import Counter, Gauge, Histogram
from server.measure.measured import Measured
from server.measure.redis_clock import WINDOW_S, RedisClock


def samples(metrics: Iterable[Metric]) -> list[Sample]:
    return [sample for metric in metrics for sample in metric.samples]


def value(metrics: Iterable[Metric], name: str, **labels: str) -> float:
    (found,) = [each for each in samples(metrics) if each.name == name and each.labels == labels]
    return found.value


# Instruments


def test_an_instrument_has_no_more_series_than_its_bound() -> None:
    counter = Counter("things_total", "Things", ("kind",), most=3)
    for number in range(100):
        counter.at(f"kind {number}").add()
    assert {values: cell.value for values, cell in counter.cells.items()} == {
        ("kind 0",): 1,
        ("kind 1",): 1,
        ("other",): 98,
    }


def test_a_histogram_counts_a_value_on_a_bound_to_that_bound() -> None:
    measured = Measured()
    claims = measured.admissions.claims.at("granted")
    for seconds in (0.0005, 0.0006, 99.0):
        claims.observe(seconds)
    shown = list(alone(measured))
    name = "presence_claim_seconds_bucket"
    assert value(shown, name, outcome="granted", le="0.0005") == 1
    assert value(shown, name, outcome="granted", le="0.001") == 2
    assert value(shown, name, outcome="granted", le="+Inf") == 3
    assert value(shown, "presence_claim_seconds_count", outcome="granted") == 3
    assert value(shown, "presence_claim_seconds_sum", outcome="granted") == pytest.approx(99.0011)


def test_a_close_code_or_a_method_that_somebody_made_up_is_other() -> None:
    measured = Measured()
    for code in range(3000, 5000):
        measured.connections.ended(code)
    for number in range(2000):
        measured.requests.answered(f"METHOD{number}", "/v1/sessions", 405, 0.001)
    assert len(measured.connections.closed.cells) == 12
    assert set(measured.requests.count.cells) == {("other", "/v1/sessions", "4xx")}


# Hand-overs


class Story:
    """The events of a pool, one after the other; `took` has what the hand-overs took."""

    def __init__(self) -> None:
        self.handovers = HandOvers()
        self.took: list[int] = []
        self._seq = 0

    def tell(self, at: int, kind: EventType, who: str | None = None, cause: str | None = None) -> None:
        self._seq += 1
        event = Event(type=kind, seq=self._seq, epoch="e", at=at, session_id=who, cause=cause)
        if (took := self.handovers.note(event)) is not None:
            self.took.append(took)


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_place_goes_to_the_waiter_in_the_script_that_frees_it(story: Story) -> None:
    story.tell(10, EventType.GRANTED, "anna")
    story.tell(20, EventType.WAITING, "ben")
    story.tell(500, EventType.RELEASED, "anna", "released")
    story.tell(500, EventType.OFFERED, "ben")
    story.tell(900, EventType.GRANTED, "ben")
    assert story.took == [0]


def test_a_place_that_stood_free_while_somebody_waited_took_so_long(story: Story) -> None:
    story.tell(1, EventType.GRANTED, "anna")
    story.tell(20, EventType.WAITING, "ben")
    story.tell(500, EventType.RELEASED, "anna", "grace")
    story.tell(740, EventType.GRANTED, "ben")
    assert story.took == [240]


def test_who_comes_when_a_place_has_long_been_free_is_no_hand_over(story: Story) -> None:
    story.tell(100, EventType.GRANTED, "anna")
    story.tell(500, EventType.RELEASED, "anna", "released")
    story.tell(90_000, EventType.GRANTED, "ben")
    assert story.took == []


def test_a_waiter_who_was_away_counts_from_coming_back(story: Story) -> None:
    story.tell(1, EventType.GRANTED, "anna")
    story.tell(20, EventType.WAITING, "ben")
    story.tell(500, EventType.RELEASED, "anna", "released")
    story.tell(8_000, EventType.CONNECTED, "ben", "new")
    story.tell(8_003, EventType.OFFERED, "ben")
    assert story.took == [3]


def test_who_sat_out_a_missed_offer_is_not_counted_and_the_next_in_line_is(story: Story) -> None:
    story.tell(1, EventType.GRANTED, "anna")
    story.tell(10, EventType.WAITING, "ben")
    story.tell(11, EventType.WAITING, "cleo")
    story.tell(500, EventType.RELEASED, "anna", "released")
    story.tell(500, EventType.OFFERED, "ben")
    story.tell(90_500, EventType.OFFER_MISSED, "ben", "expired")
    story.tell(90_501, EventType.OFFERED, "cleo")
    story.tell(90_502, EventType.LEFT_LINE, "cleo", "released")
    story.tell(95_000, EventType.OFFERED, "ben")
    assert story.took == [0, 1]


def test_a_raised_limit_makes_places_from_that_moment_on(story: Story) -> None:
    story.tell(1, EventType.GRANTED, "anna")
    story.tell(10, EventType.RELEASED, "anna", "released")
    story.tell(20, EventType.WAITING, "ben")
    story.tell(7_000, EventType.POOL_CHANGED, cause="limit=4")
    story.tell(7_002, EventType.OFFERED, "ben")
    assert story.took == [2]


@pytest.mark.parametrize("end", [EventType.COMPLETED, EventType.KICKED, EventType.ABANDONED])
def test_a_session_that_ends_frees_the_place_that_it_had_and_no_other(story: Story, end: EventType) -> None:
    story.tell(1, EventType.GRANTED, "anna")
    story.tell(20, EventType.WAITING, "ben")
    story.tell(500, end, "anna")
    story.tell(700, end, "dora")
    story.tell(1_000, EventType.OFFERED, "ben")
    assert story.took == [500]


def test_what_moves_between_sessions_of_one_user_is_no_hand_over(story: Story) -> None:
    story.tell(10, EventType.WAITING, "new")
    story.tell(20, EventType.TAKEN_OVER, "old", "new")
    story.tell(20, EventType.GRANTED, "new", "taken_over")
    assert story.took == []


def test_after_events_were_missed_nothing_from_before_counts(story: Story) -> None:
    story.tell(10, EventType.RELEASED, "anna", "released")
    story.handovers.begin(line=["ben"], offered=["cleo"], granted=["anna"], at=60_000)
    story.tell(60_001, EventType.GRANTED, "cleo")
    story.tell(60_004, EventType.OFFERED, "ben")
    assert story.took == [4]


# Redis's clock


def test_the_quickest_reply_says_how_the_clocks_stand() -> None:
    clock = RedisClock()
    assert clock.age_s(1_000_000, 5.0) is None
    clock.saw(1_000_000, 5.050)
    clock.saw(1_001_000, 6.002)
    clock.saw(1_002_000, 7.900)
    assert clock.age_s(1_003_000, 8.012) == pytest.approx(0.010)
    assert clock.age_s(1_003_000, 8.001) == 0


def test_a_clock_that_was_set_back_is_believed_after_two_windows() -> None:
    clock = RedisClock()
    clock.saw(10_000_000, 0.0)
    for step in range(1, 4):
        clock.saw(5_000_000 + round(step * WINDOW_S * 1000), step * WINDOW_S)
    assert clock.age_s(5_180_000, 3 * WINDOW_S + 0.5) == pytest.approx(0.5)


# Workers


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Callable[[int], Shared]]:
    """Makes workers of one node."""
    with ExitStack() as stack:

        def start(worker: int) -> Shared:
            shared = Shared(tmp_path, str(worker))
            stack.callback(shared.close)
            return shared

        yield start


def work(measured: Measured, connections: int) -> None:
    measured.gauges.append(Gauge("presence_connections", "Open", lambda: connections, "livesum"))
    measured.connections.heartbeats.value += 10
    measured.admissions.claims.at("granted").observe(0.004)


def test_any_worker_tells_the_sum_of_all(share: Callable[[int], Shared]) -> None:
    first, second = Measured(), Measured()
    work(first, 3)
    work(second, 4)
    shared = [share(0), share(1)]
    shared[1].write(second)
    shown = list(shared[0].together(first))
    assert value(shown, "presence_connections") == 7
    assert value(shown, "presence_messages_total", type="heartbeat") == 20
    assert value(shown, "presence_claim_seconds_count", outcome="granted") == 2
    assert value(shown, "presence_claim_seconds_bucket", outcome="granted", le="0.005") == 2


def test_a_worker_that_died_leaves_its_counts_and_not_its_connections(
    tmp_path: Path, share: Callable[[int], Shared]
) -> None:
    first, second, third = Measured(), Measured(), Measured()
    for number, measured in enumerate((first, second, third)):
        work(measured, 10 + number)
    share(1).write(second)
    forget_worker(str(tmp_path), 1)
    observer = share(0)
    shown = list(observer.together(first))
    assert value(shown, "presence_connections") == 10
    assert value(shown, "presence_messages_total", type="heartbeat") == 20
    # Another one in its place goes on from there.
    share(1).write(third)
    shown = list(observer.together(first))
    assert value(shown, "presence_connections") == 22
    assert value(shown, "presence_messages_total", type="heartbeat") == 30


def test_workers_show_the_same_metrics_as_a_process_alone(share: Callable[[int], Shared]) -> None:
    measured = Measured()
    work(measured, 1)
    together = {(each.name, each.type) for each in share(0).together(measured)}
    assert together == {(each.name, each.type) for each in alone(measured) if each.samples}


def test_every_instrument_is_named_as_prometheus_wants_it() -> None:
    for each in Measured().instruments():
        assert each.name.startswith("presence_")
        assert each.name.endswith("_total") == isinstance(each, Counter)
        assert isinstance(each, Counter | Histogram)
        assert each.meaning
