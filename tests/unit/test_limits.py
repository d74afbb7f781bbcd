"""How many connections, and how many messages, are too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.node.limits import BURST_S, ConnectionLimits, MessageRate


def test_a_node_takes_no_more_connections_than_it_may() -> None:
    limits = ConnectionLimits(at_most=2, per_address=10)
    assert [limits.enter(address, limited=True) for address in "abc"] == [True, True, False]
    limits.leave("a")
    assert limits.enter("c", limited=True)


def test_an_address_takes_no_more_than_its_share_and_hinders_no_other() -> None:
    limits = ConnectionLimits(at_most=10, per_address=1)
    assert limits.enter("a", limited=True)
    assert not limits.enter("a", limited=True)
    assert limits.enter("b", limited=True)
    limits.leave("a")
    assert limits.enter("a", limited=True)


def test_an_address_without_a_limit_counts_for_the_node_only() -> None:
    limits = ConnectionLimits(at_most=2, per_address=1)
    assert [limits.enter("a", limited=False) for _ in range(3)] == [True, True, False]


def test_a_burst_is_taken_and_then_the_rate_counts() -> None:
    rate, full_at = MessageRate(10), 0.0
    for _ in range(20):
        spent = rate.spend(full_at, now=100.0)
        assert spent is not None
        full_at = spent
    assert rate.spend(full_at, now=100.0) is None
    assert rate.spend(full_at, now=100.11) is not None


@given(st.integers(1, 100), st.lists(st.floats(0, 5), max_size=200))
def test_never_more_than_the_burst_and_the_rate_pass_in_any_time(per_s: int, pauses: list[float]) -> None:
    rate, full_at, now, passed = MessageRate(per_s), 0.0, 0.0, 0
    for pause in pauses:
        now += pause
        spent = rate.spend(full_at, now)
        if spent is not None:
            full_at, passed = spent, passed + 1
    assert passed <= per_s * (BURST_S + now) + 1
