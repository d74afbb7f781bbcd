"""`get_presence_tracker(max_concurrent=N)`: what the app says, and what an operator says since."""

from __future__ import annotations

import pytest

from presence_tracker import start as start_module
from tests.tracker.conftest import MakeTracker
from tests.tracker.servers import Operator, switched


def restart_app() -> None:
    """A new process of the app remembers nothing."""
    start_module._kept_api.cache_clear()


def test_the_limit_that_an_app_declares_is_the_pools(tracker: MakeTracker, operator: Operator) -> None:
    presence = tracker(max_concurrent=5)
    assert presence.max_concurrent == 5
    assert operator.ask("GET", "/v1/pools/main")["declared_limit"] == 5


def test_an_operators_change_survives_runs_and_restarts_of_the_app(
    tracker: MakeTracker, operator: Operator
) -> None:
    tracker(max_concurrent=5)
    operator.configure(limit=2)
    assert tracker(max_concurrent=5).max_concurrent == 2
    restart_app()
    assert tracker(max_concurrent=5).max_concurrent == 2


def test_another_number_in_the_app_counts_again(tracker: MakeTracker, operator: Operator) -> None:
    tracker(max_concurrent=5)
    operator.configure(limit=2)
    assert tracker(max_concurrent=6).max_concurrent == 6
    restart_app()
    assert tracker(max_concurrent=5).max_concurrent == 5


def test_a_number_that_is_edited_back_counts_without_a_restart(tracker: MakeTracker) -> None:
    assert [tracker(max_concurrent=limit).max_concurrent for limit in (5, 6, 5)] == [5, 6, 5]


def test_without_a_number_the_pool_keeps_its_own(tracker: MakeTracker, operator: Operator) -> None:
    operator.configure(limit=4)
    assert tracker().max_concurrent == 4


def test_a_run_declares_nothing_that_was_declared_lately(
    tracker: MakeTracker, node_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with switched(node_url) as (url, switch):
        for _ in range(3):
            tracker(max_concurrent=5, url=url)
        assert switch.asked == ["PUT /v1/pools/main"]
        monkeypatch.setattr("presence_tracker.api.DECLARE_AGAIN_S", 0.0)
        tracker(max_concurrent=5, url=url)
        assert len(switch.asked) == 2


def test_raising_the_limit_in_the_app_lets_the_next_in(tracker: MakeTracker) -> None:
    first, second = tracker(max_concurrent=1), tracker(max_concurrent=1)
    for presence, user in ((first, "anna"), (second, "ben")):
        presence.mark_session_started(user)
    assert (first.can_start_interview()[0], second.can_start_interview()[0]) == (True, False)
    tracker(max_concurrent=2)
    assert second.can_start_interview()[0]
