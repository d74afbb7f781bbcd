"""What a node remembers of its pools."""

from __future__ import annotations

import pytest

from server.domain.pool import Mode, PoolState
from server.node.samples import EVERY_MS, KEPT, SPARE, Samples


def state(at: int, *, pool: str = "main", online: int = 1, active: int = 0, limit: int = 3) -> PoolState:
    return PoolState(pool, "e", at, 1, Mode.OPEN, limit, active, 0, 2, online, online)


def test_one_tick_in_ten_seconds_is_kept() -> None:
    samples = Samples()
    for at in range(0, 60_000, 500):
        samples.see(state(at, online=at))
    seen = list(samples.at("main", range(0, 60_000, EVERY_MS), EVERY_MS))
    assert [sample.online for sample in seen if sample] == list(range(0, 60_000, EVERY_MS))
    assert samples.newest("main") == seen[-1]


def test_a_moment_has_the_last_sample_before_it_unless_that_is_too_old() -> None:
    samples = Samples()
    samples.see(state(100_000, active=2))
    first, second, third = samples.at("main", (99_999, 119_999, 120_000), 20_000)
    assert (first, third) == (None, None)
    assert second is not None
    assert (second.at, second.in_interview, second.waiting, second.limit) == (100_000, 2, 2, 3)


def test_pools_are_kept_apart_and_an_unknown_one_is_empty() -> None:
    samples = Samples()
    samples.see(state(0, pool="lab"))
    assert list(samples.at("main", (0,), 1)) == [None]
    assert samples.newest("main") is None


def test_a_day_is_kept_and_no_more() -> None:
    samples = Samples()
    count = 2 * KEPT
    for number in range(count):
        samples.see(state(number * EVERY_MS))
    kept = [each for each in samples.at("main", range(0, count * EVERY_MS, EVERY_MS), EVERY_MS) if each]
    assert KEPT <= len(kept) <= KEPT + SPARE
    assert kept[-1].at == (count - 1) * EVERY_MS


def test_a_clock_that_was_set_back_takes_what_was_seen_of_the_future() -> None:
    samples = Samples()
    for at in (0, 10_000, 90_000):
        samples.see(state(at))
    samples.see(state(20_000, online=5))
    newest = samples.newest("main")
    assert newest is not None
    assert (newest.at, newest.online) == (20_000, 5)


@pytest.mark.parametrize("limit", [-1, 10**12])
def test_a_limit_that_somebody_wrote_into_redis_by_hand_is_kept_as_it_is(limit: int) -> None:
    samples = Samples()
    samples.see(state(0, limit=limit))
    samples.see(state(EVERY_MS))
    seen = [sample.limit for sample in samples.at("main", (0, EVERY_MS), EVERY_MS) if sample]
    assert seen == [limit, 3]
